"""The compiled graph: when it takes over, and that nothing which fails is in the way."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from base.settings import Settings, load
from tests.workers.test_embed_encoder import SMALL, tiny
from workers import device, folder, graph, takeover
from workers.batch import Core
from workers.device import Facts
from workers.encoder_bert import Bert
from workers.takeover import take_over

pytestmark = pytest.mark.xdist_group("transformers")  # one worker loads them

BF16 = device.decide("cpu", "bf16", Facts(cuda=False, cuda_bf16=False, cpu_bf16=True, cores=2))
CAN = torch.cpu._is_amx_tile_supported() and graph.compiler() is not None
IDS = [np.array([2, 4, 5, 6, 7, 3], dtype=np.int64)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wide = SMALL | {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
    path = tmp_path_factory.mktemp("models") / "m"
    return tiny(path, transformers.BertConfig(**wide), transformers.BertModel)


@pytest.fixture
def bert(model: Path) -> Bert:
    return Bert(folder.read(str(model)), BF16)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "SETTLED_S", 0.0)


@pytest.fixture
async def core() -> AsyncIterator[Core]:
    made = Core(BF16)
    task = asyncio.create_task(made.run(), name="core")
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def settings(tmp_path: Path, model: Path) -> Settings:
    return load(home=tmp_path, embed_model=str(model), embed_compile="auto")


@pytest.fixture
def trying(settings: Settings, bert: Bert, core: Core, model: Path) -> Callable[..., object]:
    recipe = folder.read(str(model))

    async def go(**other: object) -> None:
        await take_over(settings.model_copy(update=other), recipe, bert, core, BF16)

    return go


def kept(settings: Settings, model: Path, suffix: str) -> Path:
    return settings.home / "cache/graphs" / f"{graph.key(folder.read(str(model)))}{suffix}"


def there(settings: Settings, model: Path) -> Path:
    path = kept(settings, model, ".pt2")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"built")
    return path


@pytest.mark.skipif(not CAN, reason="needs AMX and a C++ compiler")
async def test_it_is_built_takes_over_and_is_there_for_the_next(
    settings: Settings, bert: Bert, model: Path, trying: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with torch.inference_mode():
        eager = bert.forward(IDS, [6], None)[:6].float()
    await trying()
    assert kept(settings, model, ".pt2").is_file()
    assert bert.graph is not None
    (found,) = bert.states(IDS)
    assert torch.nn.functional.cosine_similarity(found.float(), eager).min() >= 0.9995
    bert.graph = None
    monkeypatch.setenv("CXX", "no-such-compiler")
    await trying()
    assert bert.graph is not None


@pytest.mark.parametrize(
    ("factor", "gain", "taken"), [(1, 1e9, True), (1, 0, False), (-1, 1e9, False)]
)
async def test_it_must_compute_the_same_in_less_time(
    factor: int, gain: float, taken: bool, settings: Settings, bert: Bert, model: Path,
    trying: Callable[..., object], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    net = graph.Net(bert)
    there(settings, model)
    monkeypatch.setattr(graph, "load", lambda *_: lambda *rows: factor * net(*rows))
    monkeypatch.setattr(takeover, "GAIN", gain)
    await trying()
    assert (bert.graph is not None) is taken
    assert not kept(settings, model, ".trial").exists()


def test_it_takes_short_texts_alone(bert: Bert) -> None:
    asked = list[int]()

    def run(words: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        asked.append(len(words))
        return words + places

    bert.graph = run
    short, single = np.zeros(40, dtype=np.int64), np.zeros(1, dtype=np.int64)
    for ids in ([short], [short, short], [single], [short[:2]]):
        bert.states(ids)
    assert asked == [40, 2]


async def test_builds_that_fail_end(
    settings: Settings, model: Path, bert: Bert, trying: Callable[..., object]
) -> None:
    for _ in range(takeover.TRIES + 1):
        await trying(embed_model="/nowhere/at/all")
    assert kept(settings, model, ".tries").read_bytes() == b"." * takeover.TRIES
    assert bert.graph is None


async def test_without_a_compiler_nothing_is_tried(
    settings: Settings, trying: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    await trying()
    assert not (settings.home / "cache").exists()


async def test_off_is_off(
    settings: Settings, bert: Bert, model: Path, trying: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    there(settings, model)
    monkeypatch.setattr(graph, "load", lambda *_: pytest.fail("loaded"))
    await trying(embed_compile="off")
    assert bert.graph is None


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
async def test_a_worker_that_stops_ends_the_build_and_it_was_no_try(
    settings: Settings, model: Path, trying: Callable[..., object]
) -> None:
    task = asyncio.ensure_future(trying())  # type: ignore[arg-type]
    tries = kept(settings, model, ".tries")
    async with asyncio.timeout(20):
        while not (tries.exists() and tries.read_bytes()):
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert tries.read_bytes() == b""


async def test_what_is_damaged_or_ended_its_process_is_built_anew(
    settings: Settings, bert: Bert, model: Path, trying: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("CXX", "no-such-compiler")
    path = there(settings, model)
    await trying()
    assert not path.exists()
    path.write_bytes(b"built")
    monkeypatch.setattr(graph, "load", lambda *_: pytest.fail("loaded again"))
    kept(settings, model, ".trial").touch()
    await trying()
    assert not path.exists()
    assert not kept(settings, model, ".trial").exists()
    assert bert.graph is None
