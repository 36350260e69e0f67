"""Puts the workers of gunicorn into the pretended cgroup of their master.

/proc/PID/cgroup, which says where a process is, is of one process: each has its own to be covered.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any


def post_fork(server: Any, worker: Any) -> None:
    """In each worker, before it computes."""
    pretended = os.environ["SERVED_CGROUP"]
    subprocess.run(["mount", "--bind", pretended, f"/proc/{os.getpid()}/cgroup"], check=True)
