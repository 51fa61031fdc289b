"""An S3 server for tests, in a process of its own: TileDB holds the GIL while it waits for some answers.

Prints its port and writes one line for each request to the file that it is given. A number on stdin is from then on the seconds that it
waits before it answers a request; it ends when stdin is closed.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import make_server


class Logged:
    """A WSGI application that notes requests, and may be slow to answer."""

    delay_s = 0.0

    def __init__(self, application: Any, path: str) -> None:
        self._application, self._file, self._lock = application, open(path, "a", encoding="utf-8"), threading.Lock()  # noqa: SIM115

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._lock:
            line = [
                environ["REQUEST_METHOD"],
                environ["PATH_INFO"],
                environ["QUERY_STRING"],
                environ.get("HTTP_RANGE", ""),
            ]
            self._file.write("\t".join(line) + "\n")
            self._file.flush()
        if self.delay_s:  # no sleep at all: even one of 0 s gives the core away
            time.sleep(self.delay_s)
        return self._application(environ, start_response)  # type: ignore[no-any-return]


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # Of S3 alone: moto's dispatcher looks through all services that it knows for each request, which takes a third of the time.
    app = Logged(create_backend_app("s3"), sys.argv[1])
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.port, flush=True)
    for line in sys.stdin:
        app.delay_s = float(line)
    os._exit(0)
