"""Somebody else's server, which a webhook calls."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(slots=True)  # mutable
class Receiver:
    """Somebody else's server: what it got, and what it answers next (200 when nothing is said)."""

    url: str = ""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    always: int = 200
    location: str = ""
    hold: threading.Event = field(default_factory=threading.Event)

    def bodies(self, kind: str = "task.finished") -> list[dict[str, Any]]:
        found = [json.loads(body) for _, body in self.got]
        return [one for one in found if one["type"] == kind]


@contextmanager
def receiving() -> Iterator[Receiver]:
    here = Receiver()
    here.hold.set()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            here.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            here.hold.wait(20)
            self.send_response(here.answers.pop(0) if here.answers else here.always)
            if here.location:
                self.send_header("Location", here.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.daemon_threads = True
    here.url = f"http://127.0.0.1:{server.server_address[1]}/hook?x=1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        here.hold.set()
        server.shutdown()
        server.server_close()
