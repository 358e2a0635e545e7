"""GitHub's side: its REST API for repositories and releases, and git over HTTP by git's own
backend. It lets in one token and writes down what it was asked with.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class FakeGithub:
    """repositories: full name → private. refusals: answers given before any other, in turn.
    before_push: called once in the middle of the next push.
    """

    def __init__(self, folder: Path, token: str) -> None:
        self.folder = folder
        self.token = token
        self.repositories: dict[str, bool] = {}
        self.releases: dict[str, dict[str, Any]] = {}
        self.refusals: list[tuple[int, dict[str, str], dict[str, Any]]] = []
        self.asked: list[str] = []
        self.answers: list[str] = []
        self.before_push: Callable[[], object] | None = None
        fake = self

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: object) -> None: ...

            def do_GET(self) -> None:
                fake._answer(self)

            do_POST = do_PATCH = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, full_name: str, *, private: bool = True) -> Path:
        path = self.folder / f"{full_name}.git"
        self.git("init", "-q", "--bare", "-b", "main", str(path))
        self.git("-C", str(path), "config", "http.receivepack", "true")
        self.repositories[full_name] = private
        return path

    def git(self, *words: str, into: bytes | None = None) -> bytes:
        return subprocess.run(
            ["git", *words], input=into, capture_output=True, check=True, env=self._environment()
        ).stdout

    def files(self, full_name: str) -> dict[str, str]:
        path = str(self.folder / f"{full_name}.git")
        names = self.git("-C", path, "ls-tree", "-r", "-z", "--name-only", "main").decode()
        return {
            name: self.git("-C", path, "show", f"main:{name}").decode()
            for name in names.split("\0")
            if name
        }

    def write(self, full_name: str, changes: dict[str, str | None], *, link: str = "") -> None:
        """A commit of somebody else's."""
        work = self.folder / "elsewhere"
        subprocess.run(["rm", "-rf", str(work)], check=True)
        self.git("clone", "-q", str(self.folder / f"{full_name}.git"), str(work))
        self.git("-C", str(work), "checkout", "-q", "-B", "main")
        for name, text in changes.items():
            path = work / name
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        if link:
            (work / link).symlink_to("/etc/passwd")
        self.git("-C", str(work), "add", "-A")
        self.git("-C", str(work), "commit", "-q", "-m", "by hand")
        self.git("-C", str(work), "push", "-q", "origin", "main")

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _environment(self) -> dict[str, str]:
        who = {"NAME": "Somebody", "EMAIL": "somebody@example.org"}
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            **{
                f"GIT_{side}_{key}": v for side in ("AUTHOR", "COMMITTER") for key, v in who.items()
            },
        }

    def _answer(self, asked: BaseHTTPRequestHandler) -> None:
        size = int(asked.headers.get("Content-Length") or 0)
        body = asked.rfile.read(size) if size else _chunks(asked)
        path = urlsplit(asked.path)
        self.asked.append(f"{asked.command} {asked.path}")
        if path.path.startswith("/api/"):
            self._rest(asked, path.path.removeprefix("/api"), body)
        else:
            self._smart(asked, path.path, path.query, body)

    def _rest(self, asked: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        if self.refusals:
            status, headers, told = self.refusals.pop(0)
            return _send(asked, status, told, headers)
        if asked.headers.get("Authorization") != f"token {self.token}":
            return _send(asked, 401, {"message": "Bad credentials", "status": "401"})
        parts = path.strip("/").split("/")
        data = json.loads(body) if body else {}
        if path == "/user":
            return _send(asked, 200, {"login": "me", "url": f"{self.url}/api/user"})
        if path == "/user/repos":
            self.add(f"me/{data['name']}", private=data["private"])
            return _send(asked, 201, self._repository(f"me/{data['name']}"))
        full_name = "/".join(parts[1:3])
        if parts[0] != "repos" or full_name not in self.repositories:
            return _send(asked, 404, {"message": "Not Found", "status": "404"})
        if len(parts) == 3:
            return _send(asked, 200, self._repository(full_name))
        return self._release(asked, full_name, parts[4:], data)

    def _release(
        self, asked: BaseHTTPRequestHandler, full_name: str, rest: list[str], data: dict[str, Any]
    ) -> None:
        if asked.command == "POST":
            if data["tag_name"] in self.releases:
                fault = {"resource": "Release", "code": "already_exists", "field": "tag_name"}
                return _send(asked, 422, {"message": "Validation Failed", "errors": [fault]})
            data |= {"id": len(self.releases) + 1, "prerelease": data.get("prerelease", False)}
            data["html_url"] = f"{self.url}/{full_name}/releases/tag/{data['tag_name']}"
            data["url"] = f"{self.url}/api/repos/{full_name}/releases/{data['id']}"
            self.releases[data["tag_name"]] = data
            return _send(asked, 201, data)
        found = [
            one
            for tag, one in self.releases.items()
            if rest == ["tags", tag] or rest == [str(one["id"])]
        ]
        if not found:
            return _send(asked, 404, {"message": "Not Found", "status": "404"})
        found[0].update(data)
        return _send(asked, 200, found[0])

    def _repository(self, full_name: str) -> dict[str, Any]:
        owner, _, name = full_name.partition("/")
        return {
            "id": 1,
            "name": name,
            "full_name": full_name,
            "private": self.repositories[full_name],
            "owner": {"login": owner, "id": 1, "url": f"{self.url}/api/users/{owner}"},
            "html_url": f"{self.url}/{full_name}",
            "url": f"{self.url}/api/repos/{full_name}",
            "default_branch": "main",
        }

    def _smart(self, asked: BaseHTTPRequestHandler, path: str, query: str, body: bytes) -> None:
        given = base64.b64encode(f"x-access-token:{self.token}".encode()).decode()
        if asked.headers.get("Authorization") != f"Basic {given}":
            return _send(asked, 401, {}, {"WWW-Authenticate": 'Basic realm="GitHub"'})
        if path.endswith("git-receive-pack") and asked.command == "POST" and self.before_push:
            turn, self.before_push = self.before_push, None
            turn()
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            check=True,
            env={
                **self._environment(),
                "GIT_PROJECT_ROOT": str(self.folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REMOTE_USER": "me",
                "REQUEST_METHOD": asked.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": asked.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": asked.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": asked.headers.get("Git-Protocol", ""),
            },
        ).stdout
        head, _, content = done.partition(b"\r\n\r\n")
        self.answers.append(
            f"{asked.client_address} {asked.command} {asked.path}: {head!r} {content[:80]!r}"
        )
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200 OK").split()[0])
        asked.send_response(status)
        for name, value in headers.items():
            asked.send_header(name, value)
        asked.send_header("Content-Length", str(len(content)))
        asked.end_headers()
        asked.wfile.write(content)
        return None


def _chunks(asked: BaseHTTPRequestHandler) -> bytes:
    if asked.headers.get("Transfer-Encoding") != "chunked":
        return b""
    found = b""
    while size := int(asked.rfile.readline().strip() or b"0", 16):
        found += asked.rfile.read(size)
        asked.rfile.readline()
    asked.rfile.readline()
    return found


def _send(
    asked: BaseHTTPRequestHandler,
    status: int,
    told: dict[str, Any],
    headers: dict[str, str] | None = None,
) -> None:
    data = json.dumps(told).encode()
    asked.send_response(status)
    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
        asked.send_header(name, value)
    asked.send_header("Content-Length", str(len(data)))
    asked.end_headers()
    asked.wfile.write(data)
