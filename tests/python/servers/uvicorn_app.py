"""For uvicorn: ASGI by FastAPI. `POST /predict?seconds=0`, `GET /ready`."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from served import answer, facts

app = FastAPI()


@app.get("/ready")
async def ready() -> str:
    return "ready"


@app.post("/predict")
async def predict(request: Request, seconds: float = 0.0) -> Response:
    body = await request.body()
    # A thread waits for the computation, the loop does not.
    y = await run_in_threadpool(answer, body, seconds)
    return Response(y, headers=facts(), media_type="application/octet-stream")
