"""The worker as a process: over the bus, through the cache, alone and shared."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from base import streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import BusError, InputError
from pai.embed import Embedder
from workers.embed import TEXTS_MAX
from workers.vectors_cache import KEEP_S, Cache

pytestmark = pytest.mark.xdist_group("embed")  # one worker

ROOT = Path(__file__).parent.parent.parent
Process = subprocess.Popen[bytes]


def started(home: Path, redis: str, *services: str) -> Process:
    """A worker that has said READY for each of its services."""
    env = os.environ | {"AI_INFRA_HOME": str(home), "AI_INFRA_REDIS_URL": redis}
    worker = subprocess.Popen(
        [sys.executable, "-m", "workers", *services], cwd=ROOT, env=env, stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    for service in services:
        line = worker.stdout.readline().decode()
        assert line.startswith(f"READY {service} "), line
    return worker


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def worker(home: Path, redis_server: str) -> Iterator[Process]:
    process = started(home, redis_server, "embed", "score")
    yield process
    process.terminate()
    assert process.wait(20) == 0
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
async def bus(redis_server: str) -> AsyncIterator[Bus]:
    opened = await Bus.open(redis_server, "test")
    yield opened
    await opened.close()


@pytest.fixture
def embedder(worker: Process, bus: Bus) -> Embedder:
    return Embedder(bus)


async def misses(embedder: Embedder) -> int:
    return int((await embedder.info())["cache"]["misses"])


async def test_vectors_have_length_one_and_near_texts_are_near(embedder: Embedder) -> None:
    texts = ["the disk is full", "there is no space left on the disk", "she sings in a choir"]
    found = await embedder.embed(texts)
    assert found.model.startswith("minilm-")
    assert found.matrix.shape == (3, 384)
    assert np.allclose(np.linalg.norm(found.matrix, axis=1), 1, atol=1e-5)
    near, far = found.matrix[0] @ found.matrix[1], found.matrix[0] @ found.matrix[2]
    assert near > far + 0.3


async def test_info_says_what_the_seam_says(embedder: Embedder) -> None:
    info = await embedder.info()
    assert {"model", "dim", "max_tokens", "device", "dtype", "ready", "cache"} <= info.keys()
    assert (info["dim"], info["max_tokens"], info["ready"]) == (384, 256, True)
    assert isinstance(info["tokens_per_s"], float)
    assert isinstance(info["batch"], float)


async def test_a_text_is_computed_once_also_in_part_of_a_request(
    embedder: Embedder, bus: Bus
) -> None:
    first = await embedder.embed(["once", "upon"])
    before = await misses(embedder)
    again = await embedder.embed(["a time", "upon", "once", "a time"], "bulk")
    assert await misses(embedder) == before + 1
    assert np.array_equal(again.matrix[2], first.matrix[0])
    assert np.array_equal(again.matrix[1], first.matrix[1])
    assert np.array_equal(again.matrix[0], again.matrix[3])
    key = Cache(bus, first.model, 384).key("once")
    raw, ttl_s = await bus.call(("GET", key), ("TTL", key))
    assert raw == first.matrix[0].tobytes()
    assert KEEP_S - 60 < ttl_s <= KEEP_S
    assert key.startswith(f"embedding:{first.model}:")


async def test_what_is_damaged_in_the_cache_is_computed_anew(embedder: Embedder, bus: Bus) -> None:
    first = await embedder.embed(["damaged"])
    await bus.call(("SET", Cache(bus, first.model, 384).key("damaged"), b"xyz"))
    assert np.allclose((await embedder.embed(["damaged"])).matrix, first.matrix, atol=1e-5)


async def test_many_callers_share_batches_and_each_gets_its_own(embedder: Embedder) -> None:
    texts = [f"caller number {n} says {'so ' * (n % 7)}" for n in range(48)]
    found = await asyncio.gather(*[embedder.embed([text]) for text in texts])
    assert (await embedder.info())["batch"] > 1
    together = await embedder.embed([f"{text}!" for text in texts], "bulk")
    alone = await embedder.embed([f"{texts[5]}!"])
    assert (together.matrix[5] * alone.matrix[0]).sum() > 0.9995
    assert len({one.matrix.tobytes() for one in found}) == 48


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"verb": "embed", "texts": []}, "0 texts"),
        ({"verb": "embed", "texts": ["x"] * (TEXTS_MAX + 1)}, "513 texts"),
        ({"verb": "embed", "texts": "one"}, "list of strings"),
        ({"verb": "embed", "texts": [1]}, "list of strings"),
        ({"verb": "embed", "texts": ["x"], "priority": "now"}, "neither query nor bulk"),
        ({"verb": "forget"}, "no verb 'forget'"),
    ],
)
async def test_a_request_that_cannot_be_is_refused(
    embedder: Embedder, bus: Bus, asked: dict[str, object], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        await bus.ask(streams.SERVICE_EMBED, asked, deadline=Deadline.after(10))


async def test_odd_texts_are_texts(embedder: Embedder) -> None:
    odd = ["", " ", "\x00", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🎉", "x " * 10_000]
    found = await embedder.embed(odd)
    assert np.isfinite(found.matrix).all()
    assert (await embedder.info())["texts_cut"] >= 1


async def test_no_texts_are_refused_before_they_are_asked(embedder: Embedder) -> None:
    with pytest.raises(InputError, match="no texts"):
        await embedder.embed([])


async def test_a_long_list_is_asked_for_in_parts(embedder: Embedder) -> None:
    texts = [f"{n % 9}" for n in range(TEXTS_MAX + 88)]
    found = await embedder.embed(texts, "bulk")
    assert found.matrix.shape == (TEXTS_MAX + 88, 384)
    assert np.array_equal(found.matrix[0], found.matrix[-(len(texts) % 9)])


async def test_the_other_service_of_the_process_answers(worker: Process, bus: Bus) -> None:
    row = base64.b64encode(np.eye(2, 3, dtype="<f4").tobytes()).decode()
    query = base64.b64encode(np.eye(1, 3, dtype="<f4").tobytes()).decode()
    asked = {"verb": "topk", "name": "t", "matrix": row, "dim": 3, "query": query, "k": 1}
    found = await bus.ask(streams.SERVICE_SCORE, asked, deadline=Deadline.after(10))
    assert found["ids"] == [0]


async def test_trouble_with_redis_is_no_trouble_of_the_request(bus: Bus) -> None:
    cache = Cache(bus, "m", 2)
    await bus.close()
    with pytest.raises(BusError):
        await bus.call(("PING",))
    assert await cache.find(["a", "b"]) == {}
    assert (cache.hits, cache.misses) == (0, 2)
    cache.keep({"a": np.zeros(2, dtype=np.float32)})


async def test_two_workers_share_the_stream_and_one_may_die(
    home: Path, redis_server: str, embedder: Embedder
) -> None:
    second = started(home, redis_server, "embed")
    workers, number = set[str](), 0
    async with asyncio.timeout(30):
        while len(workers) < 2:
            number += 1
            infos = [embedder.info() for _ in range(4)]
            texts = [embedder.embed([f"shared {number} {n}"]) for n in range(8)]
            told = await asyncio.gather(*infos)
            await asyncio.gather(*texts)
            workers |= {one["worker"] for one in told}
    second.send_signal(signal.SIGKILL)
    second.wait(10)
    assert second.stdout is not None
    second.stdout.close()
    for n in range(12):
        assert (await embedder.embed([f"alone again {n}"])).matrix.shape == (1, 384)


async def test_one_that_is_told_to_stop_while_it_computes_ends_well(
    home: Path, redis_server: str, bus: Bus, embedder: Embedder
) -> None:
    second = started(home, redis_server, "embed")
    texts = [f"{n} {'so ' * 150}" for n in range(64)]
    asked = [
        asyncio.create_task(embedder.embed([f"{at} {text}" for text in texts], "bulk"))
        for at in range(4)
    ]
    await asyncio.sleep(0.3)  # its compute threads are in native code
    second.terminate()
    assert await asyncio.to_thread(second.wait, 20) == 0
    assert second.stdout is not None
    second.stdout.close()
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
