"""Top-k and duplicates are what brute force finds, ties and edges included."""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from base import streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import InputError, NotFoundError
from base.settings import Settings
from workers import score
from workers.batch import Core
from workers.device import choose
from workers.jobs import duplicates, payload, topk, vectors
from workers.jobs.bench import Bench

Rows = NDArray[np.float32]


def rows(count: int, dim: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def b64(matrix: Rows) -> str:
    return base64.b64encode(np.ascontiguousarray(matrix, dtype="<f4").tobytes()).decode()


def cosines(matrix: Rows, query: Rows) -> NDArray[np.float64]:
    left = matrix.astype(np.float64)
    left /= np.maximum(np.linalg.norm(left, axis=1, keepdims=True), 1e-300)
    right = query.astype(np.float64)
    return left @ (right / max(np.linalg.norm(right), 1e-300))


async def embed(texts: Sequence[str]) -> Rows:
    """A word is a direction: the same text has the same vector."""
    return np.stack([rows(1, 16, seed=zlib.crc32(one.encode()))[0] for one in texts])


@pytest.fixture
async def core() -> AsyncIterator[Core]:
    core = Core(choose("cpu", "fp32"))
    running = asyncio.create_task(core.run(), name="core")
    yield core
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def bench(core: Core) -> Bench:
    return Bench(core=core, device=choose("cpu", "fp32"), settings=Settings(), embed=embed)


def test_a_unit_row_survives_large_small_and_no_numbers() -> None:
    given = np.array([[3e30, 4e30], [3e-30, 4e-30], [0, 0]], dtype=np.float32)
    found = vectors.unit(torch.from_numpy(given)).numpy()
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.6, 0.8], [0, 0]], rtol=1e-6)


async def test_concurrent_queries_find_what_brute_force_finds(bench: Bench) -> None:
    job, matrix, queries = topk.Topk(bench), rows(3000, 64), rows(40, 64, seed=1)
    first = {"name": "m", "k": 1, "query": b64(queries[:1]), "matrix": b64(matrix), "dim": 64}
    await job.answer(first)
    ks = [1 + 7 * at for at in range(len(queries))]
    asked = [
        job.answer({"name": "m", "k": k, "query": b64(one[None])})
        for k, one in zip(ks, queries, strict=True)
    ]
    answers = await asyncio.gather(*asked)
    for k, query, answer in zip(ks, queries, answers, strict=True):
        all_scores = cosines(matrix, query)
        best = np.argsort(-all_scores, kind="stable")[:k]
        assert answer["ids"] == best.tolist()
        np.testing.assert_allclose(answer["scores"], all_scores[best], atol=1e-6)
    assert job._work.batches < len(queries)  # they shared products


async def test_queries_of_one_moment_against_two_matrices_are_told_apart(bench: Bench) -> None:
    job, one, two = topk.Topk(bench), rows(20, 8), rows(30, 8, seed=1)
    for name, matrix in (("one", one), ("two", two)):
        first = {"name": name, "k": 1, "query": b64(one[:1]), "matrix": b64(matrix), "dim": 8}
        await job.answer(first)
    before = job._work.batches
    asked = [
        job.answer({"name": name, "k": 1, "query": b64(matrix[at : at + 1])})
        for at in range(20)
        for name, matrix in (("one", one), ("two", two))
    ]
    answers = await asyncio.gather(*asked)
    assert [answer["ids"] for answer in answers] == [[at // 2] for at in range(40)]
    assert job._work.batches - before < 40


@pytest.mark.parametrize("k", [1, 3, 10, 25, 50, 60])
async def test_among_equals_the_lower_row_goes_first(bench: Bench, k: int) -> None:
    job, few = topk.Topk(bench), rows(7, 24)
    matrix = np.concatenate([few[np.arange(50) % 5], few[5:]])  # each of five stands ten times
    answer = await job.answer(
        {"name": "m", "k": k, "query": b64(few[2:3]), "matrix": b64(matrix), "dim": 24}
    )
    all_scores = np.round(cosines(matrix, few[2]), 9)
    assert answer["ids"] == np.argsort(-all_scores, kind="stable")[:k].tolist()
    assert len(answer["ids"]) == min(k, 52)


async def test_a_row_without_length_scores_nothing(bench: Bench) -> None:
    matrix = np.array([[0, 0], [-1, 0], [1, 0]], dtype=np.float32)
    given = {"name": "m", "k": 9, "query": b64(matrix[2:]), "matrix": b64(matrix), "dim": 2}
    assert await topk.Topk(bench).answer(given) == {"ids": [2, 0, 1], "scores": [1.0, 0.0, -1.0]}


async def test_a_text_is_embedded_first(bench: Bench) -> None:
    job, matrix = topk.Topk(bench), await embed(["one", "two", "three"])
    given = {"name": "m", "k": 1, "text": "two", "matrix": b64(matrix), "dim": 16}
    assert (await job.answer(given))["ids"] == [1]
    with pytest.raises(InputError, match="texts have 16 dimensions, the matrix has 8"):
        await job.answer({**given, "matrix": b64(rows(4, 8)), "dim": 8})


async def test_a_matrix_sent_again_takes_the_place_of_the_old(bench: Bench) -> None:
    job, matrix = topk.Topk(bench), rows(9, 4)
    given = {"name": "m", "k": 1, "query": b64(matrix[:1]), "matrix": b64(matrix), "dim": 4}
    assert (await job.answer(given))["ids"] == [0]
    assert (await job.answer({**given, "matrix": b64(matrix[::-1])}))["ids"] == [8]
    assert job.info() == {"ready": True, "matrices": 1, "resident_bytes": 9 * 4 * 4}


def test_the_least_recently_used_matrix_leaves() -> None:
    held = topk.Residents(count_max=3, bytes_max=100)
    one = torch.zeros(2, 5)  # 40 bytes
    held.put("a", one)
    held.put("b", one)
    held.get("a")
    held.put("c", one)
    assert (len(held), held.size_bytes) == (2, 80)
    held.get("a")
    with pytest.raises(NotFoundError, match="no matrix 'b' is resident: send it along"):
        held.get("b")
    with pytest.raises(InputError, match="larger than 100 bytes"):
        held.put("d", torch.zeros(9, 5))
    small = topk.Residents(count_max=2)
    for name in "xyz":
        small.put(name, one)
    assert len(small) == 2
    with pytest.raises(NotFoundError):
        small.get("x")


GOOD: dict[str, Any] = {
    "name": "m", "k": 1, "query": b64(rows(1, 4)), "matrix": b64(rows(3, 4)), "dim": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": ""}, "name must be a text"),
        ({"name": "n" * 201}, "name has 201 characters"),
        ({"k": 0}, "k must be a whole number from 1 to 10,000"),
        ({"k": True}, "k must be"),
        ({"k": 1.0}, "k must be"),
        ({"query": "no base64!"}, "query is not base64"),
        ({"query": 7}, "query must be base64"),
        ({"query": ""}, "query has 0 bytes"),
        ({"query": b64(rows(1, 5))}, "the query has 5 dimensions, the matrix has 4"),
        ({"query": b64(np.array([[1, 2, 3, np.nan]], dtype=np.float32))}, "not finite"),
        ({"text": "and a text"}, "either a query or a text"),
        ({"dim": 5}, "no number of rows of 5 float32"),
        ({"dim": -1}, "dim must be"),
        ({"dim": None}, "dim must be"),
        ({"matrix": b64(np.full((1, 4), np.inf, dtype=np.float32))}, "matrix holds a number"),
        ({"matrix": []}, "matrix must be base64"),
    ],
)
async def test_what_cannot_be_asked_is_said(bench: Bench, change: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        await topk.Topk(bench).answer({**GOOD, **change})


async def test_an_unknown_matrix_is_told_apart(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="no matrix 'other' is resident"):
        await topk.Topk(bench).answer({"name": "other", "k": 1, "query": GOOD["query"]})


async def test_a_matrix_above_the_limit_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MATRIX_BYTES", 30)
    with pytest.raises(InputError, match="matrix is larger than"):
        payload.matrix(GOOD)


# Duplicates -----------------------------------------------------------------------------------


def brute_pairs(matrix: Rows, at: float) -> list[tuple[int, int]]:
    scores = np.stack([cosines(matrix, one) for one in matrix])
    return [
        (i, j) for i in range(len(matrix)) for j in range(i + 1, len(matrix)) if scores[i, j] >= at
    ]


@pytest.mark.parametrize("at", [0.2, 0.5, 0.95, 1.0])
async def test_pairs_are_those_of_brute_force_across_blocks(
    bench: Bench, at: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "BLOCK_ROWS", 37)
    monkeypatch.setattr(vectors, "COLUMNS", 51)
    matrix = rows(300, 12)
    matrix[250] = matrix[3]
    matrix[251] = 8 * matrix[250]
    matrix[252] = matrix[3] + 0.02
    found = await duplicates.Duplicates(bench).answer({"matrix": b64(matrix), "dim": 12, "at": at})
    pairs = [(i, j) for i, j, _ in found["pairs"]]
    assert pairs == sorted(pairs)
    assert pairs == brute_pairs(matrix, at - 1e-6)
    assert {(3, 250), (3, 251), (250, 251)} <= set(pairs)
    for i, j, similarity in found["pairs"]:
        assert similarity == pytest.approx(cosines(matrix, matrix[i])[j], abs=1e-6)


async def test_texts_are_embedded_and_one_has_no_pair(bench: Bench) -> None:
    job = duplicates.Duplicates(bench)
    found = await job.answer({"texts": ["same", "other", "same"]})
    assert [one[:2] for one in found["pairs"]] == [[0, 2]]
    assert await job.answer({"texts": ["alone"]}) == {"pairs": []}


async def test_too_many_pairs_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "PAIRS_MAX", 50)
    same = b64(np.ones((40, 3), dtype=np.float32))
    with pytest.raises(InputError, match="more than 50 pairs"):
        await duplicates.Duplicates(bench).answer({"matrix": same, "dim": 3})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "either texts or a matrix"),
        ({"texts": ["a"], "matrix": ""}, "either texts or a matrix"),
        ({"texts": []}, "1 to 10,000 texts, not 0"),
        ({"texts": "a"}, "a list of texts"),
        ({"texts": ["a", 1]}, "a list of texts"),
        ({"texts": ["a" * 20_001]}, "20,001 characters"),
        ({"texts": ["a"], "at": 0}, "at must be a number above 0"),
        ({"texts": ["a"], "at": 1.1}, "at must be"),
        ({"texts": ["a"], "at": "0.9"}, "at must be"),
        ({"texts": ["a"], "at": float("nan")}, "at must be"),
    ],
)
async def test_duplicates_of_nonsense_are_refused(bench: Bench, given: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        await duplicates.Duplicates(bench).answer(given)


async def test_a_query_does_not_wait_for_all_blocks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "BLOCK_ROWS", 8)
    job, look = duplicates.Duplicates(bench), topk.Topk(bench)
    await look.answer(GOOD)
    long = asyncio.create_task(job.answer({"matrix": b64(rows(800, 8)), "dim": 8}), name="long")
    await asyncio.sleep(0)
    while job._work.batches < 3:
        await asyncio.sleep(0)
    await look.answer({"name": "m", "k": 1, "query": GOOD["query"]})
    assert job._work.batches < 50
    await long


# The service ----------------------------------------------------------------------------------


async def test_jobs_are_listed_and_others_refused(core: Core) -> None:
    served = score.Score(core, choose("cpu", "fp32"), Settings(), embed)
    jobs = (await served.answer({"verb": "info"}))["jobs"]
    assert list(jobs) == ["topk", "rerank", "sentiment", "duplicates"]
    assert [one["ready"] for one in jobs.values()] == [True, False, True, True]
    for verb in ("dance", None, ["topk"]):
        with pytest.raises(InputError, match=r"no job .*; there are: info, topk"):
            await served.answer({"verb": verb})


async def test_jobs_are_done_over_the_bus(redis_url: str, core: Core) -> None:
    bus, asker = await Bus.open(redis_url, "score"), await Bus.open(redis_url, "asker")

    async def vectors_of(given: dict[str, Any]) -> dict[str, Any]:
        found = await embed(given["texts"])
        return {"model": "m", "dim": 16, "vectors": b64(found)}

    served = score.Score(core, choose("cpu", "fp32"), Settings(), score.embed_over(bus))
    running = [
        asyncio.create_task(bus.serve(streams.SERVICE_EMBED, vectors_of), name="embed"),
        asyncio.create_task(bus.serve(streams.SERVICE_SCORE, served.answer), name="score"),
    ]

    async def ask(**given: Any) -> dict[str, Any]:
        return await asker.ask(streams.SERVICE_SCORE, given, deadline=Deadline.after(30))

    texts = [f"text {at}" for at in range(600)] + ["text 7"]  # more than one request of embed
    assert [one[:2] for one in (await ask(verb="duplicates", texts=texts, at=1))["pairs"]] == [
        [7, 600]
    ]
    given = {"name": "m", "k": 2, "matrix": b64(await embed(["a", "b"])), "dim": 16}
    assert (await ask(verb="topk", text="b", **given))["ids"] == [1, 0]
    with pytest.raises(NotFoundError, match="no matrix 'n' is resident"):
        await ask(verb="topk", name="n", k=1, text="b")
    with pytest.raises(InputError, match="k must be a whole number"):
        await ask(verb="topk", name="m", k=0, text="b")
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await asker.close()
    await bus.close()
