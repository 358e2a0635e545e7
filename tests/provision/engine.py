"""A server that plays Docker's engine on a Unix socket, as far as the verbs ask it."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ID = "abc" + "0" * 61


class Engine:
    """Its containers by id: name and whether it runs; what it was asked to do."""

    def __init__(self) -> None:
        self.names = {ID: "shop", "f" * 64: "other"}
        self.restarted: list[str] = []

    def found(self, asked: str) -> str | None:
        """The id behind a name, an id, or the start of one, as Docker takes it."""
        for one, name in self.names.items():
            if asked == name or one.startswith(asked):
                return one
        return None

    def shown(self, one: str) -> dict[str, Any]:
        return {
            "Id": one,
            "Name": f"/{self.names[one]}",
            "Config": {"Image": f"{self.names[one]}:1", "Tty": False},
            "State": {"Status": "running", "StartedAt": "2026-11-28T10:00:00Z"},
        }


@contextlib.contextmanager
def playing(path: Path) -> Iterator[Engine]:
    engine = Engine()

    class Answer(BaseHTTPRequestHandler):
        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            return

        def _send(self, status: int, body: Any, kind: str = "application/json") -> None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def do_GET(self) -> None:
            where = urlsplit(self.path)
            words = where.path.strip("/").split("/")
            if words[-1] == "version":
                return self._send(200, {"ApiVersion": "1.44", "MinAPIVersion": "1.24"})
            words = words[1:]
            if words == ["containers", "json"]:
                return self._send(200, [{"Id": one} for one in engine.names])
            one = engine.found(words[1])
            if one is None:
                return self._send(404, {"message": f"No such container: {words[1]}"})
            if words[2] == "json":
                return self._send(200, engine.shown(one))
            count = int(parse_qs(where.query)["tail"][0])
            lines = [f"line {number}\n".encode() for number in range(100)][-count:]
            lines.append(b"password=hunter2hunter2 \x1b[31m\n")
            raw = b"".join(b"\x01\0\0\0" + len(line).to_bytes(4, "big") + line for line in lines)
            return self._send(200, raw, "application/vnd.docker.raw-stream")

        def do_POST(self) -> None:
            engine.restarted.append(urlsplit(self.path).path.split("/")[3])
            self.send_response(204)
            self.send_header("Content-Length", "0")
            self.end_headers()

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    with Server(str(path), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield engine
        finally:
            server.shutdown()
            thread.join()
            path.unlink()
