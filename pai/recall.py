"""Ranking: what the looks found in, items out, best first. Pure.

A candidate's score is a weighted sum of what speaks for it; the weights and how they were found
are in docs/decisions/2026-11-21-recall-ranks.md. Whatever a memory does not have (a speaker, a
conversation, a vector) adds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pai.brief import Brief
from pai.points import DENSE, WORDS, memory_of
from pai.question import Question, held, names
from pai.shapes import Collection, Item, Tier
from pai.warm import Hit

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Bools = NDArray[np.bool_]
#: More places than a series has.
SERIES_MAX = 2**33
#: A text of so many stems is as long as one can wish; more adds nothing.
STEMS_ENOUGH = 24
LENGTHS = np.log1p(np.arange(STEMS_ENOUGH + 1, dtype=float))
HALF_LIFE_DAYS = 30.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: A cosine below says nothing: texts that have nothing to do with each other reach it.
DENSE_FLOOR = 0.2
#: What can speak for a memory that has neither the question's words nor its meaning.
SPEAKING = frozenset({"near", "far", "answer", "speaker", "period"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What counts how much. words, dense, near, far, answer: for each standard deviation of the
    candidates' scores; the others for having it.

    near: words of the turns before and after; far: of those two away; answer: words and meaning
    of the other's question right before; speaker: the question names who said it; asks: it is
    itself a question; length: per natural logarithm of the number of stems; period: of the days
    that the question names; tells_time: says when, and when_told: that on top where the question
    asks when; recent: of now, half of it after `HALF_LIFE_DAYS`; rerank: the cross-encoder's.
    """

    words: float = 0.4
    dense: float = 0.5
    near: float = 0.15
    far: float = 0.2
    answer: float = 0.2
    speaker: float = 2.0
    asks: float = -0.5
    length: float = 0.5
    period: float = 2.0
    tells_time: float = 0.6
    when_told: float = 0.8
    recent: float = 0.1
    rerank: float = 2.0


WEIGHTS = Weights()
#: What can speak for a memory, by the names of their weights.
PARTS = tuple(field.name for field in fields(Weights))
_SPEAKING = tuple(at for at, name in enumerate(PARTS) if name in SPEAKING)


class Candidate(NamedTuple):  # as `Hit`
    """words: BM25, 0 for none; dense: cosine, None where the look did not list it. collection:
    where the warm store has it. payload: None while nobody needed it.
    """

    id: str
    tier: Tier
    brief: Brief
    collection: str = Collection.MEMORIES
    payload: Mapping[str, Any] | None = None
    words: float = 0.0
    dense: float | None = None

    @property
    def whole(self) -> Mapping[str, Any]:
        assert self.payload is not None, "its payload was not read"
        return self.payload

    @property
    def text(self) -> str:
        return str(self.whole["text"])


class Ranked(NamedTuple):  # as `Hit`
    """worth: how much of `PARTS` spoke for it, the last of them only once it was reranked."""

    candidate: Candidate
    score: float
    worth: Sequence[float]

    @property
    def parts(self) -> dict[str, float]:
        """What spoke how much for it, by the name of its weight."""
        return {name: value for name, value in zip(PARTS, self.worth, strict=False) if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What one look, of that name, found in one place."""

    tier: Tier
    name: str
    hits: Sequence[Hit]
    collection: str = Collection.MEMORIES


def gather(lists: Iterable[Listed]) -> list[Candidate]:
    """One candidate an id, of the hits of all looks."""
    first: dict[str, tuple[Listed, Hit]] = {}
    scores: dict[str, dict[str, float]] = {WORDS: {}, DENSE: {}}
    for one in lists:
        mine = scores[one.name]
        for hit in one.hits:
            id, score = hit.id, hit.score
            if id not in first:
                first[id] = one, hit
            if score > mine.get(id, -math.inf):
                mine[id] = score
    words, dense = scores[WORDS], scores[DENSE]
    return [
        Candidate(
            id, one.tier, hit.brief, one.collection, hit.payload, words.get(id, 0.0), dense.get(id)
        )
        for id, (one, hit) in first.items()
    ]


def rank(
    question: Question,
    candidates: Sequence[Candidate],
    now: datetime,
    weights: Weights = WEIGHTS,
) -> list[Ranked]:
    """All of them, best first; equals in the order of their ids. Where the question names people,
    what nobody said must have its payload.
    """
    if not candidates:
        return []
    candidates = sorted(candidates, key=itemgetter(0))
    kinds = [one.brief.traits for one in candidates]
    asks = np.array([kind.asks for kind in kinds])
    parts = {
        **_matches(candidates, asks),
        "speaker": _speakers(question, candidates),
        "asks": asks.astype(float),
        "length": LENGTHS[np.minimum([kind.stems for kind in kinds], STEMS_ENOUGH)],
        "tells_time": np.array([kind.tells_time for kind in kinds], dtype=float),
        **_times(question, candidates, now),
    }
    parts["when_told"] = parts["tells_time"] * question.asks_when
    worth = np.array([getattr(weights, name) * parts[name] for name in PARTS[:-1]])
    total: Floats = worth.sum(axis=0)
    rows, totals = worth.T.tolist(), total.tolist()
    return [
        Ranked(candidates[at], totals[at], rows[at])
        for at in np.argsort(-total, kind="stable").tolist()
    ]


def reranked(
    ranked: Sequence[Ranked], scores: Sequence[float], weights: Weights = WEIGHTS
) -> list[Ranked]:
    """With what a cross-encoder says of the first `len(scores)`, of which it makes a new order."""
    first, rest = ranked[: len(scores)], ranked[len(scores) :]
    told = _standard(np.array(scores, dtype=float)) * weights.rerank
    before = _standard(np.array([one.score for one in first]))
    order = np.argsort(-(told + before), kind="stable")
    return [
        Ranked(
            candidate=first[at].candidate,
            score=first[at].score,
            worth=(*first[at].worth, float(told[at])),
        )
        for at in order
    ] + list(rest)


def speaks(one: Ranked) -> bool:
    """Whether anything of the question speaks for it; else it was only among the nearest."""
    candidate = one.candidate
    alike = candidate.dense is not None and candidate.dense >= DENSE_FLOOR
    return alike or candidate.words > 0 or any(one.worth[at] for at in _SPEAKING)


def item(one: Ranked, question: Question) -> Item:
    """For whoever asked: the memory, and why."""
    return Item(
        memory=memory_of(one.candidate.whole),
        tier=one.candidate.tier,
        score=round(one.score, 4),
        why=tuple(_why(one, question)),
        support=one.candidate.whole.get("support", 1),
    )


def _matches(candidates: Sequence[Candidate], asks: Bools) -> dict[str, Floats]:
    """What its own text and the texts around it have of the question."""
    lexical = _standard(np.array([one.words for one in candidates]))
    floor = min((one.dense for one in candidates if one.dense is not None), default=0.0)
    dense = _standard(
        np.array([floor if one.dense is None else one.dense for one in candidates], dtype=float)
    )
    beside = _beside([one.brief for one in candidates])
    before = beside[-1]
    above, above_dense = lexical - lexical.min(), dense - dense.min()
    answers = np.zeros(len(candidates))
    for at in np.flatnonzero((before >= 0) & asks[before]).tolist():
        asked = int(before[at])
        if candidates[asked].brief.speaker != candidates[at].brief.speaker:
            answers[at] = above[asked] + above_dense[asked]
    return {
        "words": lexical,
        "dense": dense,
        "near": _at(above, before) + _at(above, beside[1]),
        "far": _at(above, beside[-2]) + _at(above, beside[2]),
        "answer": answers,
    }


def _beside(briefs: Sequence[Brief]) -> dict[int, Rows]:
    """By how many steps away (-2 to 2): the row of who stands there in its series, -1 for nobody.
    Of several in one place the last.
    """
    found = {step: np.full(len(briefs), -1) for step in (-2, -1, 1, 2)}
    number: dict[str, int] = {}
    rows, keys = [], []
    for at, one in enumerate(briefs):
        if one.series and one.seq is not None:
            rows.append(at)
            keys.append(number.setdefault(one.series, len(number)) * SERIES_MAX + one.seq)
    if rows:
        own = np.array(keys, dtype=np.int64)
        order = np.argsort(own, kind="stable")
        ordered, at_row = own[order], np.array(rows)[order]
        for step, into in found.items():
            last = np.searchsorted(ordered, ordered + step, side="right") - 1
            into[at_row] = np.where(ordered[last] == ordered + step, at_row[last], -1)
    return found


def _at(values: Floats, rows: Rows) -> Floats:
    """The value of each row; 0 for nobody."""
    return np.where(rows >= 0, values[rows], 0.0)


def _speakers(question: Question, candidates: Sequence[Candidate]) -> Floats:
    """1 for what was said by whom the question names, or by nobody and names them itself."""
    people = question.people
    if not people:
        return np.zeros(len(candidates))
    return np.array(
        [
            one.brief.speaker in people
            if one.brief.speaker
            else any(names(one.text, name) for name in people)
            for one in candidates
        ],
        dtype=float,
    )


def _times(question: Question, candidates: Sequence[Candidate], now: datetime) -> dict[str, Floats]:
    at_s = np.array([one.brief.at_s for one in candidates])
    ages = np.maximum(0.0, (now.timestamp() - at_s) / 86_400)
    period = np.zeros(len(candidates))
    if question.periods:
        days = [(EPOCH + timedelta(seconds=one.brief.at_s)).date() for one in candidates]
        period = np.array(held(question.periods, days), dtype=float)
    return {"period": period, "recent": 0.5 ** (ages / HALF_LIFE_DAYS)}


def _standard(values: Floats) -> Floats:
    """By mean and standard deviation; all 0 where all are equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 1e-9 else np.zeros(len(values))


def _why(one: Ranked, question: Question) -> Iterable[str]:
    candidate, parts = one.candidate, one.parts
    if candidate.dense is not None:
        yield f"meaning {candidate.dense:.2f}"
    if candidate.words > 0:
        yield f"words {candidate.words:.1f}"
    if "speaker" in parts:
        speaker = candidate.brief.speaker
        yield f"said by {speaker}" if speaker else f"names {', '.join(question.people)}"
    if "answer" in parts:
        yield "answers a question that matches"
    elif "near" in parts or "far" in parts:
        yield "what is around it matches"
    if "period" in parts:
        yield "of the time named"
    if "when_told" in parts:
        yield "says when"
    if "rerank" in parts:
        yield f"reranker {parts['rerank']:+.1f}"
