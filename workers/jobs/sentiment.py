"""How a message sounds, -1 to 1: by a local model where one is set, else by a word list."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any

from base.errors import SettingsError
from workers.jobs import payload as read
from workers.jobs.bench import Bench
from workers.jobs.classifier import Classifier
from workers.jobs.lexicon import Lexicon

NAMED = {"negative": -1.0, "neg": -1.0, "neutral": 0.0, "neu": 0.0, "positive": 1.0, "pos": 1.0}
#: Labels without a name, or with a number of stars, go from the worst to the best.
NUMBERED = re.compile(r"label_\d+|[1-9] stars?")


def values(labels: tuple[str, ...]) -> tuple[float, ...]:
    """What each label is worth. Raises SettingsError for labels that are no sentiment."""
    names = [one.strip().lower() for one in labels]
    if all(one in NAMED for one in names):
        return tuple(NAMED[one] for one in names)
    if len(names) in {2, 3, 5} and all(NUMBERED.fullmatch(one) for one in names):
        step = 2 / (len(names) - 1)
        return tuple(-1 + at * step for at in range(len(names)))
    raise SettingsError([f"sentiment_model has the labels {', '.join(labels)}: no sentiment"])


def expected(logits: list[float], worth: tuple[float, ...]) -> float:
    """The worth of the labels, weighted by their probability."""
    top = max(logits)
    chances = [math.exp(one - top) for one in logits]
    score = sum(a * b for a, b in zip(chances, worth, strict=True)) / sum(chances)
    return max(-1.0, min(1.0, score))


class Sentiment:
    """Payload: texts. Answer: scores and `by`: "model" or "lexicon"."""

    def __init__(self, bench: Bench) -> None:
        folder = bench.settings.sentiment_model
        self._model = Classifier(bench, "sentiment_model", folder) if folder else None
        self._lexicon = None if folder else Lexicon.load(bench.settings)

    def info(self) -> dict[str, Any]:
        if self._model is None:
            return {"ready": True, "by": "lexicon"}
        return {"ready": True, "by": "model", "loaded": self._model.ready}

    async def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        texts = read.texts(payload)
        if self._lexicon is not None:
            lexicon = self._lexicon
            scores = await asyncio.to_thread(lambda: [lexicon.score(one) for one in texts])
            return {"scores": scores, "by": "lexicon"}
        assert self._model is not None
        await self._model.load()
        worth = values(self._model.labels)
        found = await self._model.logits(texts)
        return {"scores": [expected(one, worth) for one in found], "by": "model"}
