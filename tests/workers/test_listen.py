"""A Whisper of a folder behind the bus: loaded, given recordings, told apart from other folders."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from base import sound, streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import AIError, InputError, NoAnswerError, SettingsError
from tests import voice_rig
from tests.workers import tiny_whisper
from tests.workers.test_embed_worker import started
from workers import device
from workers.folder import check_whisper
from workers.listen import Spoken, Whisper

pytestmark = pytest.mark.xdist_group("listen")  # one worker

Process = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "whisper-tiny"
    tiny_whisper.save(made)
    return made


@pytest.fixture(scope="module")
def whisper(folder: Path) -> Whisper:
    return Whisper(folder, device.decide("cpu", "fp32", device.facts()))


@pytest.fixture(scope="module")
def worker(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, redis_server: str
) -> Iterator[Process]:
    home = tmp_path_factory.mktemp("home")
    (home / "config").mkdir()
    (home / "config" / "settings.toml").write_text(
        f'whisper_model = "{folder}"\nembed_dtype = "fp32"\n'
    )
    process = started(home, redis_server, "listen")
    yield process
    process.terminate()
    assert process.wait(20) == 0
    assert "heard" not in (home / "logs" / "listen.log").read_text()
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
async def bus(worker: Process, redis_server: str) -> AsyncIterator[Bus]:
    opened = await Bus.open(redis_server, "test")
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def speech() -> bytes:
    return voice_rig.say("Count the words of the file.")


def spoken(samples: np.ndarray, language: str = "", seconds_s: float = 60.0) -> Spoken:
    return Spoken(samples=samples, language=language, deadline=Deadline.after(seconds_s))


async def ask(bus: Bus, data: bytes, **more: object) -> dict[str, object]:
    payload = {"verb": "hear", "audio": base64.b64encode(data).decode(), "seconds_s": 60, **more}
    return await bus.ask(streams.SERVICE_LISTEN, payload, deadline=Deadline.after(60))


async def test_a_recording_of_a_browser_becomes_what_the_model_says_of_its_samples(
    bus: Bus, whisper: Whisper, speech: bytes
) -> None:
    packed = voice_rig.packed(speech, "webm")
    found = await ask(bus, packed, language="de")
    assert found["text"] == whisper.hear(spoken(sound.decode(packed), "de"))
    assert str(found["text"]).isalpha()
    assert found["model"] == "whisper-tiny"
    assert found["seconds_s"] == pytest.approx(len(sound.decode(speech)) / sound.RATE_HZ, abs=0.1)
    info = await bus.ask(streams.SERVICE_LISTEN, {"verb": "info"}, deadline=Deadline.after(10))
    assert (info["ready"], info["languages"], info["dtype"]) == (True, ["de", "en"], "fp32")


async def test_what_cannot_be_heard_is_said(bus: Bus, speech: bytes) -> None:
    for data, more, said in (
        (b"no recording", {}, "no recording that can be read"),
        (speech, {"language": "xx"}, "knows no language 'xx'"),
        (speech, {"audio": "%"}, "no base64"),
        (speech, {"seconds_s": None}, "how long the asker waits"),
        (speech, {"verb": "sing"}, "no verb 'sing'"),
    ):
        with pytest.raises(InputError, match=said):
            await ask(bus, data, **more)
    with pytest.raises(NoAnswerError, match="not written down in time"):
        await ask(bus, speech, seconds_s=-1)


def test_silence_is_nothing_and_a_minute_is_heard_to_its_end(
    whisper: Whisper, speech: bytes
) -> None:
    assert whisper.hear(spoken(np.zeros(sound.RATE_HZ, dtype=np.float32))) == ""
    once = sound.decode(speech)
    short = whisper.hear(spoken(once))
    long = whisper.hear(spoken(np.tile(once, 31 * sound.RATE_HZ // len(once) + 1)))
    assert long
    assert short
    with pytest.raises(NoAnswerError):
        whisper.hear(spoken(once, seconds_s=-1))


def test_bf16_hears_too(folder: Path, speech: bytes) -> None:
    half = Whisper(folder, device.decide("cpu", "bf16", device.facts()))
    assert half.hear(spoken(sound.decode(speech))).isalpha()


def test_a_folder_that_is_no_whisper_is_named(tmp_path: Path, folder: Path) -> None:
    here = device.decide("cpu", "fp32", device.facts())
    for config, said in ((None, "no config.json"), ({"model_type": "bert"}, "holds a 'bert'")):
        other = tmp_path / said.split()[-1].strip("'")
        other.mkdir()
        if config:
            (other / "config.json").write_text(json.dumps(config))
        with pytest.raises(SettingsError, match=said):
            check_whisper(other)
    torn = tmp_path / "torn"
    torn.mkdir()
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        (torn / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(SettingsError, match=r"no model\.safetensors"):
        Whisper(torn, here)
    (torn / "model.safetensors").write_bytes(b"torn" * 100)
    with pytest.raises(AIError, match="cannot be loaded"):
        Whisper(torn, here)
