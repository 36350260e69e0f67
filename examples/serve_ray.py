"""A model on Ray Serve: replicas, each of which computes requests that come together as one batch.

    pip install 'seqrs[ray]'
    python serve_ray.py                              # then POST a list of steps to localhost:8000

MODEL names a file that `model.save` made; without it a fresh model answers nonsense. PORT and TEMP
are the port and the folder of Ray's files.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import ray
import seqrs
from ray import serve
from ray.serve.config import HTTPOptions
from starlette.requests import Request
from starlette.responses import JSONResponse

STOP = {signal.SIGTERM, signal.SIGINT}


@serve.deployment(
    num_replicas=2,
    max_ongoing_requests=64,
    graceful_shutdown_wait_loop_s=0.5,
    ray_actor_options={"num_cpus": 0.5},
)
class Classifier:
    def __init__(self, path: str | None) -> None:
        # Each replica loads the model itself: what Ray would have to pickle stays outside.
        layers = [seqrs.LSTM(8, 64), seqrs.Last(), seqrs.Linear(64, 4)]
        model: Any = seqrs.load(path) if path else seqrs.Sequential(layers, seed=0)
        self._batcher = seqrs.Batcher(model)

    async def __call__(self, request: Request) -> JSONResponse:
        try:
            y = await self._batcher.predict_async(await request.json(), timeout=10.0)
        except (ValueError, TypeError) as error:  # ShapeError and DTypeError among them
            return JSONResponse({"error": str(error)}, 422)
        except (seqrs.QueueFullError, TimeoutError) as error:
            return JSONResponse({"error": str(error)}, 503)
        return JSONResponse(y.tolist())

    def check_health(self) -> None:
        """Ray asks from time to time, and replaces a replica in which this raises."""
        if self._batcher.closed:
            raise RuntimeError("the batcher is closed")


def main() -> None:
    # So that the signal waits for `sigwait`, in whatever thread it arrives.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    temp = {"_temp_dir": os.environ["TEMP"]} if "TEMP" in os.environ else {}
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, **temp)
    port = int(os.environ.get("PORT", "8000"))
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    serve.run(Classifier.bind(os.environ.get("MODEL")), name="classifier")
    print(f"http://127.0.0.1:{port}", flush=True)
    signal.sigwait(STOP)
    # The replicas finish what they have begun.
    serve.delete("classifier")
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
