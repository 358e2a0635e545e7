"""How much of what answers a question is found? Questions with gold turns, by the real keeper.

`--data FILE`: a list of {id, turns: [{id, speaker, date, text}], questions: [{question, evidence:
[turn ids], category}]}. Each conversation is a user of its own; turns of one date are one
conversation of his. Keeper and embedding worker are processes of their own and asked over the bus,
with no language model anywhere. BM25, dense and their reciprocal-rank fusion are computed here over
the same texts with the same vectors. Then the keeper's stores are opened here, and each question's
candidates are ranked with parts of the method left out, and with weights that were fitted on the
other conversations alone (held out).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import recall_fit as fitting
from audit import private_postgres
from memory import private_redis, process, ready
from recall_fit import Case

from base import log
from base.bus import Bus
from base.deadline import Deadline
from base.settings import Settings
from base.store import Store
from pai import keeper, people, recall, search
from pai.client import MemoryClient
from pai.embed import Embedder
from pai.meaning import QUERY_S
from pai.question import Question
from pai.recall import WEIGHTS, Weights
from pai.shapes import Collection, Memory, Query, memory_id
from pai.stores import Stores
from pai.tiers import Rules

LIMIT = 10
K1, B, K = 1.5, 0.75, 60
BATCH, EMBED = 100, 256
DATES = ("%I:%M %p on %d %B, %Y", "%Y-%m-%d", "%d %B %Y", "%d %B, %Y")
PARTS = [field.name for field in fields(Weights) if field.name != "rerank"]
#: What is added from one line of the table to the next.
STEPS: list[tuple[str, tuple[str, ...]]] = [
    ("words and meaning, names left out", ("words", "dense")),
    ("+ who said it", ("speaker",)),
    ("+ words of what is around it", ("near", "far")),
    ("+ the question that it answers", ("answer",)),
    ("+ length, and being a question itself", ("length", "asks")),
    ("+ the days that are named", ("period",)),
    ("+ saying when", ("tells_time", "when_told")),
    ("+ recency: all of it", ("recent",)),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question and the ids of what answers it."""

    user: str
    text: str
    gold: frozenset[str]
    category: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    recall: float
    ndcg: float

    @classmethod
    def of(cls, hits: Sequence[bool], wanted: int) -> Score:
        gain = sum(hit / math.log2(rank + 1) for rank, hit in enumerate(hits, 1))
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(LIMIT, wanted) + 1))
        return cls(recall=sum(hits) / wanted, ndcg=gain / ideal)


# Data ----------------------------------------------------------------------------------------


def day(text: str) -> datetime:
    for form in DATES:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return datetime.fromisoformat(text).astimezone(UTC)


def memories(conversation: dict[str, Any]) -> list[Memory]:
    counts: Counter[str] = Counter()
    found = []
    for turn in conversation["turns"]:
        counts[turn["date"]] += 1
        found.append(
            Memory(
                id=memory_id("bench", conversation["id"], turn["id"]),
                collection=Collection.CONVERSATIONS,
                user_id=conversation["id"],
                text=turn["text"],
                kind="message",
                speaker=turn["speaker"],
                conversation_id=f"{conversation['id']} {turn['date']}",
                seq=counts[turn["date"]],
                created_at=day(turn["date"]),
            )
        )
    return found


def date_of(turn: Memory) -> str:
    """As the file writes it."""
    return (turn.conversation_id or "").removeprefix(f"{turn.user_id} ")


def questions(conversation: dict[str, Any]) -> list[Asked]:
    return [
        Asked(
            user=conversation["id"],
            text=one["question"],
            gold=frozenset(memory_id("bench", conversation["id"], id) for id in one["evidence"]),
            category=int(one["category"]),
        )
        for one in conversation["questions"]
        if one["evidence"]
    ]


# Plain search, for comparison ----------------------------------------------------------------


def bm25(texts: Sequence[str], asked: Sequence[str]) -> np.ndarray[Any, Any]:
    """Okapi BM25 over lower-cased words: (questions, texts)."""
    split = [re.findall(r"\w+", text.lower()) for text in texts]
    length = np.array([len(one) for one in split])
    norm = K1 * (1 - B + B * length / length.mean())
    where: dict[str, dict[int, int]] = {}
    for at, one in enumerate(split):
        for word, often in Counter(one).items():
            where.setdefault(word, {})[at] = often
    found = np.zeros((len(asked), len(texts)))
    for row, text in enumerate(asked):
        for word in re.findall(r"\w+", text.lower()):
            if rows := where.get(word):
                idf = math.log(1 + (len(texts) - len(rows) + 0.5) / (len(rows) + 0.5))
                at, often = np.array(list(rows)), np.array(list(rows.values()))
                found[row, at] += idf * often * (K1 + 1) / (often + norm[at])
    return found


def by_rank(*scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Reciprocal ranks, summed."""
    ranks = [np.argsort(np.argsort(-one, axis=1, kind="stable"), axis=1) + 1 for one in scores]
    total: np.ndarray[Any, Any] = np.sum([1 / (K + one) for one in ranks], axis=0)
    return total


async def vectors(embedder: Embedder, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    parts = [
        (await embedder.embed(texts[at : at + EMBED], "bulk", Deadline.after(120))).matrix
        for at in range(0, len(texts), EMBED)
    ]
    return np.concatenate(parts)


async def plain(
    embedder: Embedder, told: Sequence[Memory], asked: Sequence[Asked]
) -> dict[str, list[Score]]:
    """Over the texts `date speaker: text` of one conversation, which serve these best."""
    texts = [f"{date_of(one)} {one.speaker}: {one.text}" for one in told]
    ids = [one.id for one in told]
    words = bm25(texts, [one.text for one in asked])
    rows = await vectors(embedder, texts)
    dense = await vectors(embedder, [one.text for one in asked]) @ rows.T
    scores = {"BM25": words, "dense": dense, "reciprocal ranks": by_rank(words, dense)}
    return {
        name: [
            Score.of([ids[at] in one.gold for at in order[:LIMIT]], len(one.gold))
            for one, order in zip(asked, np.argsort(-matrix, axis=1, kind="stable"), strict=True)
        ]
        for name, matrix in scores.items()
    }


# Ours ----------------------------------------------------------------------------------------


async def store(client: MemoryClient, told: Sequence[Memory]) -> None:
    for at in range(0, len(told), BATCH):
        await client.remember(*told[at : at + BATCH])
    while (pending := (await client.stats())["pending"])["place"] or pending["embed"]:
        await client.maintain()


async def ours(
    client: MemoryClient, asked: Sequence[Asked]
) -> tuple[list[Score], dict[str, list[float]]]:
    """(scores, milliseconds by part: `asked` is from the request to the answer in hand)."""
    scores: list[Score] = []
    took_ms: dict[str, list[float]] = {}
    for one in asked:
        began_s = time.perf_counter()
        found = await client.search(Query(text=one.text, user_id=one.user, limit=LIMIT))
        whole_ms = (time.perf_counter() - began_s) * 1000
        for part, ms in {"asked": whole_ms, **found.took_ms}.items():
            took_ms.setdefault(part, []).append(ms)
        assert found.dense
        hits = [item.memory.id in one.gold for item in found.items]
        scores.append(Score.of(hits, len(one.gold)))
    return scores, took_ms


async def case(stores: Stores, one: Asked, *, names: bool) -> Case:
    """The candidates of a question with all that is known of them, names: as names."""
    query = Query(text=one.text, user_id=one.user, limit=LIMIT)
    known = await people.known(stores, [one.user]) if names else ()
    question = Question.of(one.text, known)
    found = await stores.meaning.of([question.text], "query", QUERY_S)
    assert found is not None
    listed = await search.by_words(stores, query, question)
    candidates = await search.gather(stores, query, question, found, listed)
    all_one = Weights(**{field.name: 1.0 for field in fields(Weights)})
    ranked = recall.rank(question, candidates, datetime.now(UTC), all_one)
    return Case(
        group=one.user,
        category=one.category,
        parts=np.array([[each.parts.get(name, 0.0) for name in PARTS] for each in ranked]),
        gold=np.array([each.candidate.id in one.gold for each in ranked]),
        wanted=len(one.gold),
    )


# Tables --------------------------------------------------------------------------------------


def only(*names: str) -> np.ndarray[Any, Any]:
    """The product's weights, those of other parts 0."""
    return np.array([getattr(WEIGHTS, name) if name in names else 0.0 for name in PARTS])


def scored(cases: Sequence[Case], weights: np.ndarray[Any, Any]) -> list[Score]:
    return [Score.of(fitting.hits(one, weights, LIMIT), one.wanted) for one in cases]


def row(name: str, scores: Sequence[Score], categories: Sequence[int]) -> None:
    pairs = list(zip(scores, categories, strict=True))
    by = [r10([score for score, own in pairs if own == one]) for one in sorted(set(categories))]
    cells = "".join(f"{value:>8.3f}" for value in (r10(scores), ndcg(scores), *by))
    print(f"{name:<42}{cells}", flush=True)


def head(title: str, categories: Sequence[int]) -> None:
    own = "".join(f"{f'cat {one}':>8}" for one in sorted(set(categories)))
    print(f"\n{title:<42}{'r@10':>8}{'nDCG@10':>8}{own}")


def r10(scores: Sequence[Score]) -> float:
    return statistics.fmean(one.recall for one in scores)


def ndcg(scores: Sequence[Score]) -> float:
    return statistics.fmean(one.ndcg for one in scores)


def ablation(cases: list[Case], unnamed: list[Case]) -> None:
    categories = [one.category for one in cases]
    found = statistics.fmean(one.gold.sum() / one.wanted for one in cases)
    head(f"what each part adds ({found:.3f} among candidates)", categories)
    row("words and meaning, names as words", scored(unnamed, only("words", "dense")), categories)
    names: tuple[str, ...] = ()
    for title, more in STEPS:
        names += more
        row(title, scored(cases, only(*names)), categories)
    head("what each part is worth: without", categories)
    for title, less in [*STEPS[1:], ("dense", ("dense",)), ("words", ("words",))]:
        left = [name for name in PARTS if name not in less]
        row(
            title.removeprefix("+ ").split(":", maxsplit=1)[0],
            scored(cases, only(*left)),
            categories,
        )
    head("the weights", categories)
    row("as shipped", scored(cases, only(*PARTS)), categories)
    fitted = fitting.fit(cases)
    row("fitted on all of this file", scored(cases, fitted), categories)
    if len({one.group for one in cases}) > 1:
        apart = fitting.held_out(cases)
        scores = [Score.of(fitting.hits(one, own, LIMIT), one.wanted) for one, own in apart]
        row("fitted on the other conversations", scores, [one.category for one, _ in apart])
    print(
        "\nfitted: "
        + " ".join(f"{name} {own:.2f}" for name, own in zip(PARTS, fitted, strict=True))
    )
    for group in dict.fromkeys(one.group for one in cases):
        own = [one for one in cases if one.group == group]
        print(
            f"  {group:<20} as shipped {r10(scored(own, only(*PARTS))):.3f} of {len(own)} questions"
        )


async def run(options: argparse.Namespace, dsn: str, redis_url: str, home: Path) -> None:
    os.environ |= {"AI_INFRA_HOME": str(home), "AI_INFRA_POSTGRES_DSN": dsn}
    os.environ["AI_INFRA_REDIS_URL"] = redis_url
    settings = Settings(home=home)
    settings.prepare()
    record = await Store.open(settings.postgres, "bench")
    await record.migrate()
    bus = await Bus.open(redis_url, "bench")
    data = json.loads(options.data.read_text())
    told = [memories(one) for one in data]
    asked = [questions(one) for one in data]
    every = [one for some in asked for one in some]
    categories = [one.category for one in every]
    async with process(home, "workers", "embed"):
        embedder = Embedder(bus)
        await ready(lambda: embedder.info(Deadline.after(1)))
        async with process(home, "pai"):
            client = MemoryClient(bus)
            await ready(client.stats)
            for some in told:
                await store(client, some)
            mine, took_ms = await ours(client, every)
        rows: dict[str, list[Score]] = {"BM25": [], "dense": [], "reciprocal ranks": []}
        for some, own in zip(told, asked, strict=True):
            for name, scores in (await plain(embedder, some, own)).items():
                rows[name] += scores
        rows["ours, over the bus"] = mine
        turns = sum(len(some) for some in told)
        head(f"{len(data)} conversations, {turns} turns, {len(every)} questions", categories)
        for name, scores in rows.items():
            row(name, scores, categories)
        if not options.quick:
            async with keeper.opened(settings, Rules.load(settings), record, bus) as stores:
                cases = [await case(stores, one, names=True) for one in every]
                unnamed = [await case(stores, one, names=False) for one in every]
            ablation(cases, unnamed)
    await record.close()
    await bus.close()
    print(f"\n{'milliseconds':<12}{'p50':>8}{'p95':>8}")
    for part, values in took_ms.items():
        ordered = sorted(values)
        p50_ms, p95_ms = ordered[len(ordered) // 2], ordered[int(0.95 * (len(ordered) - 1))]
        print(f"{part:<12}{p50_ms:>8.1f}{p95_ms:>8.1f}")
    print()
    print(f"figure recall.bm25_r10 {r10(rows['BM25']):.3f} share")
    print(f"figure recall.dense_r10 {r10(rows['dense']):.3f} share")
    print(f"figure recall.rrf_r10 {r10(rows['reciprocal ranks']):.3f} share")
    print(f"figure recall.ours_r10 {r10(mine):.3f} share")
    print(f"figure recall.ours_ndcg10 {ndcg(mine):.3f} share")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="no ablation")
    options = parser.parse_args()
    log.start("bench", None, "warning")
    with (
        private_postgres() as dsn,
        private_redis() as redis_url,
        tempfile.TemporaryDirectory(prefix="ai-bench-", dir="/tmp") as folder,
    ):
        asyncio.run(run(options, dsn, redis_url, Path(folder) / "home"))


if __name__ == "__main__":
    main()
