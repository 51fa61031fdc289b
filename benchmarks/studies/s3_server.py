"""An S3 server (moto) in a process of its own, that waits before it answers: TileDB holds the interpreter's lock while it waits for some
answers. Prints its port; a number on stdin is from then on the seconds that it waits; it ends when stdin is closed."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

__all__ = ["Slow", "main"]


class Slow:
    """A WSGI application that takes its time."""

    def __init__(self, application: Any) -> None:
        self._application, self.delay_s = application, 0.0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        time.sleep(self.delay_s)
        answer: Iterable[bytes] = self._application(environ, start_response)
        return answer


def main() -> None:
    """Serve until stdin is closed."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = Slow(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.port, flush=True)
    for line in sys.stdin:
        application.delay_s = float(line)
    os._exit(0)


if __name__ == "__main__":
    main()
