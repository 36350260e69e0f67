"""A multiprocessing pool of forked processes behind an HTTP server of the standard library.

`POST /predict?seconds=0`, `GET /ready`. SIGTERM and Ctrl-C drain it.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from served import answer, facts

_STOP = {signal.SIGTERM, signal.SIGINT}
_SECONDS = 20.0


def job(body: bytes, seconds: float) -> tuple[bytes, dict[str, str]]:
    """What a process of the pool does."""
    return answer(body, seconds), facts()


def begin() -> None:
    """A process of the pool ends with the pool, not by the Ctrl-C that a terminal sends to all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)


class Server(ThreadingHTTPServer):
    #: Closing it waits for the requests in flight.
    daemon_threads = False
    pool: multiprocessing.pool.Pool


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"ready")

    def do_POST(self) -> None:
        options = parse_qs(urlsplit(self.path).query)
        x = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Server)
        asked = self.server.pool.apply_async(job, (x, float(options.get("seconds", ["0"])[0])))
        body, headers = asked.get(_SECONDS)
        self.send_response(200)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    # Blocked in all threads, so that the signal waits for `sigwait`.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    pool = multiprocessing.get_context("fork").Pool(4, begin)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.pool = pool
        accepting = threading.Thread(target=server.serve_forever)
        accepting.start()
        print(f"http://127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
        signal.sigwait(_STOP)
        server.shutdown()
        accepting.join()
    pool.close()
    pool.join()


if __name__ == "__main__":
    main()
