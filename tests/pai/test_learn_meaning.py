"""Thresholds that stand on meaning, held against labelled tables with the shipped model."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hearing_cases import AGAIN, AWAY, NEXT
from trigger_cases import CHOSEN, HELD, Case

from base.bus import Bus
from base.deadline import Deadline
from pai import hearing, triggers, words
from pai.embed import Embedder

ROOT = Path(__file__).parents[2]
Vectors = dict[str, np.ndarray]


async def _embedded(redis: str, texts: Sequence[str]) -> Vectors:
    bus = await Bus.open(redis, "asker")
    try:
        found = await Embedder(bus).embed(texts, "bulk", Deadline.after(60))
    finally:
        await bus.close()
    return dict(zip(texts, found.matrix, strict=True))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Iterator[Vectors]:
    """Every text of the tables by the real worker, started for this once."""
    home = tmp_path_factory.mktemp("worker")
    env = os.environ | {"AI_INFRA_HOME": str(home), "AI_INFRA_REDIS_URL": redis_server}
    worker = subprocess.Popen(
        [sys.executable, "-m", "workers", "embed"], cwd=ROOT, env=env, stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    assert worker.stdout.readline().startswith(b"READY embed")
    cases = [*CHOSEN, *HELD]
    texts = [text for case in cases for text in (case.trigger, *case.fits, *case.near)]
    texts += [text for turn in (*AGAIN, *AWAY, *NEXT) for text in turn]
    try:
        yield asyncio.run(_embedded(redis_server, list(dict.fromkeys(texts))))
    finally:
        worker.terminate()
        worker.wait(20)
        worker.stdout.close()


def fits(vectors: Vectors, trigger: str, situation: str) -> bool:
    near = float(vectors[trigger] @ vectors[situation])
    return triggers.fit(triggers.overlap(trigger, situation), near) is not None


@pytest.mark.parametrize("cases", [CHOSEN, HELD], ids=["chosen", "held"])
def test_a_trigger_fits_its_situations_and_no_other(
    vectors: Vectors, cases: tuple[Case, ...]
) -> None:
    found, wanted, wrong = 0, 0, []
    for case in cases:
        for situation in case.fits:
            wanted += 1
            found += fits(vectors, case.trigger, situation)
        others = [text for other in (*CHOSEN, *HELD) if other != case for text in other.fits]
        others += [text for other in (*CHOSEN, *HELD) for text in other.near]
        wrong += [(case.trigger, text) for text in others if fits(vectors, case.trigger, text)]
    assert wrong == [], "precision comes first"
    assert found / wanted >= 0.8


@pytest.mark.parametrize("trigger", ["always", "any task", "the person asks for something", "code"])
def test_a_trigger_for_everything_fits_nothing(vectors: Vectors, trigger: str) -> None:
    for case in (*CHOSEN, *HELD):
        for text in (*case.fits, *case.near):
            assert triggers.fit(triggers.overlap(trigger, text), 0.45) is None


def similarity(vectors: Vectors, turn: tuple[str, str, str]) -> float:
    asked, answer, message = (vectors[text] for text in turn)
    return float(max(message @ asked, message @ answer))


@pytest.mark.parametrize(
    ("turns", "kind"), [(AGAIN, "follow_up"), (AWAY, "context_switch"), (NEXT, None)]
)
def test_the_next_message_is_understood(
    vectors: Vectors, turns: tuple[tuple[str, str, str], ...], kind: str | None
) -> None:
    for turn in turns:
        stems = len(words.stems(turn[2]))
        assert hearing.kind(20, similarity(vectors, turn), stems) == kind, turn
