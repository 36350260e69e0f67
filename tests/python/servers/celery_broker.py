"""Celery with folders as the broker and the store of results, so that nothing else has to run.

Its own classes for that write into the file that others are about to read, which under load ends
with half a message read. These let a file appear when it is whole.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

from celery import Celery
from celery.backends.filesystem import FilesystemBackend
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps


def write_whole(path: str, data: bytes) -> None:
    """Writes a file that nobody sees before it is whole."""
    part = f"{path}.{uuid.uuid4()}.part"
    Path(part).write_bytes(data)
    os.replace(part, path)


class Channel(filesystem.Channel):
    def _put(self, queue: str, payload: Any, **_: Any) -> None:
        # As its parent names it: by time, and what is not a queue's message is not looked at.
        name = f"{time.monotonic() * 1000:.0f}_{uuid.uuid4()}.{queue}.msg"
        write_whole(os.path.join(self.data_folder_out, name), dumps(payload).encode())


class Transport(filesystem.Transport):
    Channel = Channel


class Results(FilesystemBackend):
    def set(self, key: bytes, value: str | bytes) -> None:
        data = value.encode() if isinstance(value, str) else value
        write_whole(os.fsdecode(self._filename(key)), data)


TRANSPORT_ALIASES["whole-files"] = f"{__name__}:Transport"


def connected(folder: Path) -> Any:
    """The application, for its workers and for those who ask them."""
    for name in ("queue", "control", "results"):
        (folder / name).mkdir(exist_ok=True)
    results = f"{__name__}:Results+file://{folder / 'results'}"
    app = Celery("served", broker="whole-files://", backend=results)
    app.conf.update(
        broker_transport_options={
            "data_folder_in": str(folder / "queue"),
            "data_folder_out": str(folder / "queue"),
            "control_folder": str(folder / "control"),
            "polling_interval": 0.01,
        },
        # A process takes one task at a time, so that those who wait are taken by whoever is free.
        worker_prefetch_multiplier=1,
    )
    return app
