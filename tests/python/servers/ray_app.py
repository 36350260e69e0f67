"""Ray Serve on a cluster of this process's own, until SIGTERM or Ctrl-C, which drain it.

`POST /predict?seconds=0`, `GET /ready`, on the port SERVED_PORT.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

_STOP = {signal.SIGTERM, signal.SIGINT}


@serve.deployment(
    num_replicas=2,
    max_ongoing_requests=8,
    graceful_shutdown_wait_loop_s=0.1,
    ray_actor_options={"num_cpus": 0.5},
)
class Model:
    def __init__(self) -> None:
        # In the replica: importing it loads the model there.
        import served

        self._served: Any = served

    async def __call__(self, request: Request) -> Response:
        if request.url.path == "/ready":
            return Response("ready")
        seconds = float(request.query_params.get("seconds", "0"))
        y = await run_in_threadpool(self._served.answer, await request.body(), seconds)
        return Response(y, headers=self._served.facts())


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=100 << 20,
        include_dashboard=False,
        _temp_dir=os.environ["SERVED_TEMP"],
        log_to_driver=False,
    )
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=int(os.environ["SERVED_PORT"])))
    serve.run(Model.bind(), name="model")
    print(f"http://127.0.0.1:{os.environ['SERVED_PORT']}", file=sys.stderr, flush=True)
    signal.sigwait(_STOP)
    # Its replicas finish what they have begun.
    serve.delete("model")
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
