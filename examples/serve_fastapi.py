"""A service: sequences are classified, and streams answered step by step.

    pip install 'seqrs[prometheus]' fastapi 'uvicorn[standard]'
    uvicorn serve_fastapi:app --workers 2            # in this folder; then open localhost:8000

- POST /classify {"sequence": [[...], ...]}: requests that come together are one batch (`Batcher`).
- WebSocket /stream: a list of numbers in, a list of numbers out, for each step. Whatever all
  connections have sent is one batched step (`StreamPool`).
- GET /health, GET /metrics (for Prometheus), GET / (a page that draws a stream as it comes).

CLASSIFIER and STREAM name files that `model.save` made; without them fresh models answer nonsense.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client
import seqrs
import seqrs.prometheus
from fastapi import FastAPI, HTTPException, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel

PAGE = Path(__file__).with_name("serve_fastapi.html")
#: Seconds after which nobody waits for a class any more.
TIMEOUT = 10.0


def model_of(variable: str, layers: list[seqrs.Layer]) -> Any:
    """The model of the file that the variable names, or a fresh one."""
    path = os.environ.get(variable)
    return seqrs.load(path) if path else seqrs.Sequential(layers, seed=0)


class Streams:
    """Steps of many connections, run as one batch whenever the one before is done."""

    def __init__(self, model: Any) -> None:
        self.pool = seqrs.StreamPool(model, capacity=10_000)
        self._waiting: list[tuple[seqrs.Stream, Any, asyncio.Future[Any]]] = []
        self._something = asyncio.Event()

    async def step(self, sid: seqrs.Stream, x: Any) -> Any:
        """The output for one step of one stream. A stream waits for one step at a time."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((sid, x, done))
        self._something.set()
        return await done

    async def run(self) -> None:
        """Steps whatever waits, again and again."""
        while True:
            await self._something.wait()
            self._something.clear()
            # Who has gone meanwhile has closed the stream, too.
            batch = [each for each in self._waiting if not each[2].cancelled()]
            self._waiting = []
            if not batch:
                continue
            sids, xs = [sid for sid, _, _ in batch], np.stack([x for _, x, _ in batch])
            try:
                ys = list(await run_in_threadpool(self.pool.step, sids, xs))
            except Exception as error:  # for those who wait; the next batch is another
                ys = [error] * len(batch)
            for (_, _, done), y in zip(batch, ys, strict=True):
                if done.cancelled():
                    continue
                if isinstance(y, Exception):
                    done.set_exception(y)
                else:
                    done.set_result(y)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """In each worker, after it was started: what it serves, and its metrics."""
    classifier = model_of(
        "CLASSIFIER",
        [seqrs.LSTM(8, 64), seqrs.Last(), seqrs.Linear(64, 4), seqrs.Activation("softmax")],
    )
    streamed = model_of("STREAM", [seqrs.GRU(1, 32), seqrs.Linear(32, 1)])
    app.state.width = streamed.layers[0].input_size
    app.state.registry = prometheus_client.CollectorRegistry()
    labels = {"worker": str(os.getpid())}
    app.state.streams = streams = Streams(streamed)
    seqrs.prometheus.register(streams.pool, "stream", registry=app.state.registry, labels=labels)
    stepping = asyncio.create_task(streams.run())
    async with seqrs.Batcher(classifier, max_queue=256) as batcher:
        app.state.batcher = batcher
        seqrs.prometheus.register(batcher, "classify", registry=app.state.registry)
        yield
    stepping.cancel()


app = FastAPI(title="seqrs", lifespan=lifespan)


class Sequence(BaseModel):
    sequence: list[list[float]]


@app.post("/classify")
async def classify(asked: Sequence, request: Request) -> dict[str, Any]:
    """The most likely class, and the probability of each."""
    if not asked.sequence:
        raise HTTPException(422, "sequence: expected at least one step, got none")
    try:
        y = await request.app.state.batcher.predict_async(asked.sequence, timeout=TIMEOUT)
    except (seqrs.ShapeError, seqrs.DTypeError, ValueError) as error:
        raise HTTPException(422, str(error)) from error
    except seqrs.QueueFullError as error:
        raise HTTPException(503, str(error), headers={"Retry-After": "1"}) from error
    except TimeoutError as error:
        raise HTTPException(504, str(error)) from error
    return {"class": int(y.argmax()), "probabilities": y.tolist()}


@app.websocket("/stream")
async def stream(socket: WebSocket) -> None:
    """A stream for as long as the connection lives."""
    streams: Streams = socket.app.state.streams
    await socket.accept()
    try:
        sid = streams.pool.open()
    except seqrs.QueueFullError as error:
        await socket.close(1013, str(error)[:120])
        return
    try:
        while True:
            sent = await socket.receive_text()
            try:
                x = np.asarray(json.loads(sent), np.float32)
            except (ValueError, TypeError):
                x = np.empty(0)
            if x.shape != (socket.app.state.width,):
                width = socket.app.state.width
                await socket.close(1003, f"expected a list of {width} numbers")
                return
            y = await streams.step(sid, x)
            await socket.send_json(y.tolist())
    except WebSocketDisconnect:
        pass
    finally:
        streams.pool.close(sid)


@app.get("/health")
async def health(request: Request) -> JSONResponse:
    """Whether requests are taken, for whoever balances the load."""
    closed = request.app.state.batcher.closed
    return JSONResponse({"ready": not closed}, 503 if closed else 200)


@app.get("/metrics")
async def metrics(request: Request) -> Response:
    text = prometheus_client.generate_latest(request.app.state.registry)
    return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)


@app.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE.read_text("utf-8"))
