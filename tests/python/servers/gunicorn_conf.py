"""Lets Ctrl-C drain gunicorn, as SIGTERM does: by itself it drops the requests in flight."""

from __future__ import annotations

import os
import signal
from typing import Any


def when_ready(server: Any) -> None:
    """The master takes Ctrl-C for SIGTERM."""
    signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


def post_worker_init(worker: Any) -> None:
    """A terminal sends Ctrl-C to the workers too, which wait for the master's word instead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
