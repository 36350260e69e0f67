"""Prints the size of the wheel in a folder and fails if it is above the promised 5 MB."""

import sys
from pathlib import Path

LIMIT = 5_000_000

wheels = sorted(Path(sys.argv[1]).glob("seqrs-*.whl"))
if len(wheels) != 1:
    sys.exit(f"wheel: expected one in {sys.argv[1]}, got {len(wheels)}")
size = wheels[0].stat().st_size
print(f"wheel: {wheels[0]}, {size / 1e6:.2f} MB")
if size > LIMIT:
    sys.exit(f"wheel: expected at most {LIMIT / 1e6:.0f} MB, got {size / 1e6:.2f} MB")
