"""For a Celery worker: the task `predict`."""

from __future__ import annotations

import os
from pathlib import Path

from celery_broker import connected
from served import answer, facts

app = connected(Path(os.environ["SERVED_FOLDER"]))


@app.task(name="predict")
def predict(body: bytes, seconds: float = 0.0) -> tuple[bytes, dict[str, str]]:
    return answer(body, seconds), facts()
