"""For gunicorn: WSGI without a framework. `POST /predict?seconds=0`, `GET /ready`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from served import answer, facts

#: With this variable so many requests begin at the same moment, each in a thread of its own.
_TOGETHER = threading.Barrier(int(os.environ.get("SERVED_TOGETHER", "1")))
_SECONDS = 20.0


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/ready":
        body = b"ready"
    else:
        options = parse_qs(environ["QUERY_STRING"])
        length = int(environ["CONTENT_LENGTH"])
        x = environ["wsgi.input"].read(length)
        _TOGETHER.wait(_SECONDS)
        body = answer(x, float(options.get("seconds", ["0"])[0]))
    headers = {"Content-Length": str(len(body)), **facts()}
    start_response("200 OK", list(headers.items()))
    return [body]
