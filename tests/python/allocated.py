"""What this process has taken from malloc and not given back, to the byte.

Pages would be a worse measure: which of them are resident depends on where malloc puts a buffer,
and so on the threads' timing, by some MB.
"""

from __future__ import annotations

import ctypes

#: The fields of glibc's `struct mallinfo2`.
FIELDS = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


#: glibc 2.33 or later has it.
mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
if mallinfo2 is not None:
    mallinfo2.restype = Mallinfo2


def allocated() -> int:
    """Bytes in all heaps, and in mappings of their own."""
    assert mallinfo2 is not None
    found = mallinfo2()
    return int(found.uordblks + found.hblkhd)
