"""The provider, against a small server that speaks its API."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from base.errors import ModelError, SettingsError
from base.settings import load
from workers.embed_openai import REQUEST_CHARS, REQUEST_TEXTS, TEXT_CHARS, OpenAI, requests

DIM = 1536
ROOT = Path(__file__).parent.parent.parent


class Provider(ThreadingHTTPServer):
    """Answers vectors whose first numbers tell the text's length; `faults` come first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Speaks)
        self.faults: deque[tuple[int, dict[str, str], dict[str, Any]]] = deque()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.numbers = False
        self.short = False
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Speaks(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        body = json.loads(self.rfile.read(length))
        self.server.keys.add(self.headers["authorization"])
        if self.path != "/v1/embeddings":
            return self._tell(404, {}, {"error": {"message": f"no route {self.path}"}})
        if self.server.faults:
            return self._tell(*self.server.faults.popleft())
        self.server.bodies.append(body)
        data = [self._one(at, text) for at, text in enumerate(body["input"])]
        if self.server.short:
            data.pop()
        told = {"object": "list", "data": data[::-1], "model": body["model"],
                "usage": {"prompt_tokens": 7, "total_tokens": 7}}  # fmt: skip
        return self._tell(200, {}, told)

    def _one(self, at: int, text: str) -> dict[str, Any]:
        vector = np.zeros(DIM, dtype="<f4")
        vector[:2] = len(text), 1
        plain = self.server.numbers
        told = vector.tolist() if plain else base64.b64encode(vector.tobytes()).decode()
        return {"object": "embedding", "index": at, "embedding": told}

    def _tell(self, status: int, headers: dict[str, str], told: dict[str, Any]) -> None:
        raw = json.dumps(told).encode()
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(raw))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="provider")
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AI_INFRA_HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    (folder / "openai-api-key").write_text("sk-test-of-a-file\n")
    (folder / "openai-api-key").chmod(0o600)
    return tmp_path


async def opened(home: Path, provider: Provider, model: str = "text-embedding-3-small") -> OpenAI:
    settings = load(home=home, embed_model=f"openai:{model}", embed_base_url=provider.url)
    return await OpenAI.open(settings, backoff_s=0.01)


REFUSED: dict[str, Any] = {"error": {"message": "Rate limit reached"}}


async def test_vectors_in_order_of_length_one_in_few_requests(
    home: Path, provider: Provider
) -> None:
    model = await opened(home, provider)
    assert (model.name, model.dim) == ("openai:text-embedding-3-small", DIM)
    provider.bodies.clear()
    texts = ["x" * (n % 50) for n in range(300)]
    found = await model.vectors(texts, bulk=True)
    assert found.shape == (300, DIM)
    assert found.dtype == np.float32
    expected = np.array([[max(len(text), 1), 1] for text in texts], dtype=np.float32)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(found[:, :2], expected, atol=1e-5)
    assert len(provider.bodies) == 2
    assert provider.bodies[0]["model"] == "text-embedding-3-small"
    assert provider.keys == {"Bearer sk-test-of-a-file"}


async def test_plain_numbers_are_understood(home: Path, provider: Provider) -> None:
    provider.numbers = True
    model = await opened(home, provider)
    assert np.isclose(np.linalg.norm((await model.vectors(["abc"], bulk=False))[0]), 1)


async def test_the_environment_s_key_comes_first(
    home: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-of-the-environment")
    await opened(home, provider)
    assert provider.keys == {"Bearer sk-test-of-the-environment"}


async def test_429_and_5xx_are_tried_again_when_the_provider_says(
    home: Path, provider: Provider
) -> None:
    model = await opened(home, provider)
    provider.faults += [(429, {"retry-after": "0.4"}, REFUSED), (503, {}, {})]
    began_s = asyncio.get_running_loop().time()
    await model.vectors(["abc"], bulk=False)
    assert asyncio.get_running_loop().time() - began_s >= 0.4


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, {"error": {"message": "Incorrect API key provided"}}),
        (400, {"error": {"message": "model does not exist"}}),
        (429, {"error": {"message": "You exceeded", "code": "insufficient_quota"}}),
    ],
)
async def test_a_refusal_for_good_is_one_clear_error(
    home: Path, provider: Provider, status: int, told: dict[str, Any]
) -> None:
    model = await opened(home, provider)
    provider.faults += [(status, {}, told), (500, {}, {})]
    with pytest.raises(ModelError, match=f"{status} {told['error']['message']}"):
        await model.vectors(["abc"], bulk=False)
    assert len(provider.faults) == 1


async def test_retries_end(home: Path, provider: Provider) -> None:
    model = await opened(home, provider)
    provider.faults += [(500, {}, {"error": {"message": "broken"}})] * 10
    with pytest.raises(ModelError, match="500 broken"):
        await model.vectors(["abc"], bulk=False)
    assert len(provider.faults) == 4


async def test_an_answer_with_a_vector_too_few_is_an_error(home: Path, provider: Provider) -> None:
    model = await opened(home, provider)
    provider.short = True
    with pytest.raises(ModelError, match="2 texts were asked, 1 vectors came"):
        await model.vectors(["abc", "def"], bulk=False)


async def test_a_text_beyond_the_window_is_cut_and_counted(home: Path, provider: Provider) -> None:
    model = await opened(home, provider)
    await model.vectors(["y" * (TEXT_CHARS + 5)], bulk=False)
    assert len(provider.bodies[-1]["input"][0]) == TEXT_CHARS
    assert model.about()["texts_cut"] == 1


async def test_without_a_key_or_a_model_nothing_starts(home: Path, provider: Provider) -> None:
    (home / "secrets" / "openai-api-key").unlink()
    with pytest.raises(SettingsError, match="ai-infra secrets set openai-api-key"):
        await opened(home, provider)
    with pytest.raises(SettingsError, match="needs a model"):
        await opened(home, provider, model="")


def test_texts_are_shared_out_by_number_and_length() -> None:
    long = "x" * (REQUEST_CHARS // 2)
    assert [len(part) for part in requests([long, long, "a", "b"])] == [2, 2]
    assert [len(part) for part in requests(["a"] * (REQUEST_TEXTS + 1))] == [REQUEST_TEXTS, 1]


def test_a_worker_with_a_provider_loads_no_torch(
    home: Path, provider: Provider, redis_url: str
) -> None:
    env = os.environ | {
        "AI_INFRA_EMBED_MODEL": "openai:text-embedding-3-small",
        "AI_INFRA_EMBED_BASE_URL": provider.url,
        "AI_INFRA_REDIS_URL": redis_url,
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "workers", "embed"], cwd=ROOT, env=env, stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    assert worker.stdout.readline().startswith(b"READY embed")
    assert "torch" not in Path(f"/proc/{worker.pid}/maps").read_text()
    worker.terminate()
    assert worker.wait(10) == 0
    worker.stdout.close()
