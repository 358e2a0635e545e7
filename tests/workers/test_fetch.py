"""A Whisper from a model hub, played here: what is fetched, what is refused, what is said."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from base.errors import InputError
from workers.fetch import repository

ROOT = Path(__file__).parent.parent.parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = b"weights" * 50_000
FILES = {
    "config.json": b'{"model_type": "whisper"}',
    "tokenizer.json": b"{}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"a pickle",
    "README.md": b"words",
}
Hub = tuple[str, list[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    """It has openai/whisper-tiny and other/bert; the address, and the files that were got."""
    got: list[str] = []

    class Play(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Silent."""

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            known = FILES
            if "other/bert" in path:
                known = {**FILES, "config.json": b'{"model_type": "bert"}'}
            elif "openai/whisper-tiny" not in path:
                self._send(404, b'{"error": "Repository not found"}', {}, body)
                return
            headers: dict[str, str] = {}
            if "/tree/" in path:
                rows = [
                    {"type": "file", "path": name, "size": len(data), "oid": _oid(data)}
                    for name, data in known.items()
                ]
                data = json.dumps(rows).encode()
            elif path.startswith("/api/"):
                siblings = [{"rfilename": name} for name in known]
                told = {"id": "x/y", "sha": COMMIT, "siblings": siblings, "tags": []}
                data = json.dumps(told).encode()
            else:
                name = path.rpartition("/")[2]
                data = known[name]
                headers = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": COMMIT}
                if body:
                    got.append(name)
            self._send(200, data, headers, body)

        def _send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Play)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()
    thread.join(10)


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def pull(home: Path, name: str, hub: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "AI_INFRA_HOME": str(home), "HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1"}
    line = [sys.executable, "-m", "portal.cli", "voice", "pull", name]
    return subprocess.run(
        line, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )


def test_a_model_is_fetched_once_and_only_what_is_needed(tmp_path: Path, hub: Hub) -> None:
    url, got = hub
    done = pull(tmp_path, "tiny", url)
    folder = tmp_path / "models" / "whisper-tiny"
    assert done.returncode == 0, done.stderr
    assert f'whisper_model = "{folder}"' in done.stdout
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert sorted(got) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert not folder.with_name("whisper-tiny.part").exists()
    assert pull(tmp_path, "openai/whisper-tiny", "http://127.0.0.1:9").returncode == 0
    assert len(got) == 3


def test_what_is_not_there_is_no_whisper_or_cannot_be_reached_is_said(
    tmp_path: Path, hub: Hub
) -> None:
    for name, url, said in (
        ("nobody/nothing", hub[0], "the model hub has no nobody/nothing that is open to all"),
        ("other/bert", hub[0], "holds a 'bert', not a whisper"),
        ("small", "http://127.0.0.1:9", "the model hub cannot be reached; on a machine that"),
    ):
        done = pull(tmp_path, name, url)
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.splitlines()[-1].startswith("ai-infra: ")
        assert "Traceback" not in done.stderr
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", "huge", "a/b/c", "../x", "x/..", "-x/y", "a b/c", "http://x/y"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="is no model; write one of tiny, base"):
        repository(name)


def test_sizes_have_a_short_name() -> None:
    assert repository("large-v3-turbo") == "openai/whisper-large-v3-turbo"
    assert repository("distil-whisper/distil-large-v3.5") == "distil-whisper/distil-large-v3.5"
