"""Vectors of a provider that speaks OpenAI's embeddings API. Loads no torch.

The only place that retries its calls: 429 and 5xx and broken lines, at most RETRIES times, after
as long as the provider asks for.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
from collections.abc import Sequence
from itertools import islice
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from base import log, secrets
from base.errors import ModelError, SettingsError
from base.redact import remember
from base.settings import PLAIN_KEY, Settings

PREFIX = "openai:"
KEY = "openai-api-key"
#: What one request may have; the API itself takes 2,048 texts and 300,000 tokens.
REQUEST_TEXTS, REQUEST_CHARS = 256, 200_000
MAX_TOKENS = 8_192
#: A character is at most about a token in any script; longer texts would be refused.
TEXT_CHARS = 8_000
AT_ONCE = 4
RETRIES = 5
BACKOFF_S, LONGEST_S = 0.5, 30.0
ANSWER_S = 30.0

logger = log.get("embed")


class OpenAI:
    """One model of the provider. Make it with `open`, which asks it once."""

    def __init__(self, settings: Settings, key: SecretStr, *, backoff_s: float = BACKOFF_S) -> None:
        self.name, self.dim, self.max_tokens = settings.embed_model, 0, MAX_TOKENS
        self._model = settings.embed_model.removeprefix(PREFIX)
        self._url = settings.embed_base_url.rstrip("/") + "/embeddings"
        self._backoff_s = backoff_s
        self._free = asyncio.Semaphore(AT_ONCE)
        self._tokens = 0
        self._cut = 0
        self._requests = 0
        self._texts = 0
        self._busy_s = 0.0
        bearer = {"authorization": f"Bearer {key.get_secret_value()}"}
        self._client = httpx.AsyncClient(timeout=ANSWER_S, headers=bearer)

    @classmethod
    async def open(cls, settings: Settings, *, backoff_s: float = BACKOFF_S) -> OpenAI:
        """Raises SettingsError without a key or model, ModelError when the provider refuses."""
        if settings.embed_model == PREFIX:
            raise SettingsError(["embed_model: openai: needs a model's name behind it"])
        provider = cls(settings, await _key(settings), backoff_s=backoff_s)
        (vector,) = await provider._ask(["ready"])
        provider.dim = len(vector)
        return provider

    async def vectors(self, texts: Sequence[str], *, bulk: bool) -> NDArray[np.float32]:
        self._cut += sum(len(text) > TEXT_CHARS for text in texts)
        ready = [text[:TEXT_CHARS] or " " for text in texts]  # the API refuses an empty one
        asked = [self._ask(part) for part in requests(ready)]
        matrix = np.concatenate(await asyncio.gather(*asked))
        if matrix.shape != (len(texts), self.dim):
            raise ModelError(f"the embedding provider answered vectors of shape {matrix.shape}")
        return matrix

    async def _ask(self, texts: list[str]) -> NDArray[np.float32]:
        loop = asyncio.get_running_loop()
        body = {"model": self._model, "input": texts, "encoding_format": "base64"}
        async with self._free:
            began_s = loop.time()
            told = await self._post(body)
            self._busy_s += loop.time() - began_s
        self._requests += 1
        self._texts += len(texts)
        try:
            self._tokens += int(told["usage"]["total_tokens"])
            data = sorted(told["data"], key=lambda one: int(one["index"]))
            matrix = np.stack([_vector(one["embedding"]) for one in data])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"the embedding provider's answer makes no sense: {error!r}"
            ) from error
        if len(matrix) != len(texts):
            raise ModelError(f"{len(texts)} texts were asked, {len(matrix)} vectors came")
        norms = np.linalg.norm(matrix, axis=1, keepdims=True)
        return np.asarray(matrix / np.maximum(norms, 1e-12), dtype=np.float32)

    async def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        for attempt in range(RETRIES + 1):
            asked_s: float | None = None
            try:
                answer = await self._client.post(self._url, json=body)
            except httpx.HTTPError as error:
                fault = ModelError(f"the embedding provider cannot be reached: {error!r}")
                fault.__cause__ = error
            else:
                if answer.is_success:
                    return _object(answer)
                fault = ModelError(f"the embedding provider refused: {_reason(answer)}")
                quota = "insufficient_quota" in answer.text  # a spend cap is never retried
                if quota or not (answer.status_code == 429 or answer.status_code >= 500):
                    raise fault
                asked_s = _retry_after_s(answer)
            if attempt == RETRIES:
                raise fault
            wait_s = asked_s if asked_s is not None else self._backoff_s * 2**attempt
            wait_s = min(LONGEST_S, wait_s) * (1 + random.random() / 4)
            logger.warning("retried the provider", error=str(fault), wait_s=round(wait_s, 2))
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    def about(self) -> dict[str, Any]:
        return {
            "device": "provider",
            "dtype": "fp32",
            "tokens_per_s": round(self._tokens / self._busy_s, 1) if self._busy_s else 0.0,
            "batch": round(self._texts / self._requests, 2) if self._requests else 0.0,
            "batches": self._requests,
            "texts_cut": self._cut,
        }


def requests(texts: Sequence[str]) -> list[list[str]]:
    """The texts in as many requests as their number and length ask for, in order."""
    found: list[list[str]] = [[]]
    chars = 0
    for text in texts:
        if found[-1] and (len(found[-1]) == REQUEST_TEXTS or chars + len(text) > REQUEST_CHARS):
            found.append([])
            chars = 0
        found[-1].append(text)
        chars += len(text)
    return found


async def _key(settings: Settings) -> SecretStr:
    given = os.environ.get("OPENAI_API_KEY", "").strip()
    remember(given)
    key = SecretStr(given) if given else await secrets.of(settings).fetch(KEY)
    if key is None:
        raise SettingsError(
            [f"embed_model {settings.embed_model} needs a key; run: ai-infra secrets set {KEY}"]
        )
    if not PLAIN_KEY.fullmatch(key.get_secret_value()):
        raise SettingsError([f"{KEY} is not one line of plain characters"])
    return key


def _vector(told: str | list[float]) -> NDArray[np.float32]:
    """Base64 as asked for; servers that know only numbers send those."""
    if isinstance(told, str):
        return np.frombuffer(base64.b64decode(told), dtype="<f4")
    return np.asarray(told, dtype=np.float32)


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError as error:
        raise ModelError("the embedding provider answered no JSON") from error
    return found if isinstance(found, dict) else {}


def _reason(answer: httpx.Response) -> str:
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = "".join(islice(answer.text, 200))
    return f"{answer.status_code} {message}"


def _retry_after_s(answer: httpx.Response) -> float | None:
    try:
        return max(0.0, float(answer.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
