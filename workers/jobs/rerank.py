"""How well each text answers a query, by a cross-encoder that reads both together."""

from __future__ import annotations

from typing import Any

from base.errors import InputError, SettingsError
from workers.jobs import payload as read
from workers.jobs.bench import Bench
from workers.jobs.classifier import Classifier

QUERY_CHARS = 4_000


class Rerank:
    """Payload: query, texts. Answer: scores, the higher the better; only their order and
    differences mean anything (a model of one label gives its logit, of two the second's lead).
    """

    def __init__(self, bench: Bench) -> None:
        folder = bench.settings.rerank_model
        self._model = Classifier(bench, "rerank_model", folder) if folder else None

    def info(self) -> dict[str, Any]:
        if self._model is None:
            return {"ready": False, "why": "rerank_model is not set"}
        return {"ready": True, "loaded": self._model.ready}

    async def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        if self._model is None:
            raise InputError("no rerank_model is set: set it to the folder of a cross-encoder")
        query = read.text(payload, "query", longest=QUERY_CHARS)
        texts = read.texts(payload)
        await self._model.load()
        if len(self._model.labels) > 2:
            count = len(self._model.labels)
            raise SettingsError([f"rerank_model has {count} labels; a cross-encoder has 1 or 2"])
        found = await self._model.logits([query] * len(texts), texts)
        return {"scores": [one[-1] - (one[0] if len(one) == 2 else 0.0) for one in found]}
