"""Who hears and who speaks, by settings; the providers of this machine; what is kept of speech."""

from __future__ import annotations

import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from base import secrets_files, sound, streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import ConflictError, ModelError, NotRunningError
from base.settings import Settings
from portal import voice_local
from portal.voice import Cache, Voice
from portal.voice_local import Espeak, Piper, script
from tests import voice_rig
from tests.conftest import need

TONE = Path(__file__).resolve().parents[1] / "data" / "voice" / "tone.onnx"


@pytest_asyncio.fixture(loop_scope="session")
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    opened = await Bus.open(redis_url, "test")
    yield opened
    await opened.close()


def made(home: Path, bus: Bus, *, key: bool = False, **given: Any) -> Voice:
    settings = Settings(home=home, **given)
    settings.prepare()
    if key:
        secrets_files.put(settings.secrets, "openai-api-key", "sk-test-0123456789")
    return Voice(settings, bus)


#: (settings, a key is there, espeak-ng is there) -> who hears and who speaks.
CHOICES: tuple[tuple[dict[str, Any], bool, bool, tuple[str, str]], ...] = (
    ({}, False, False, ("browser", "browser")),
    ({}, False, True, ("browser", "espeak")),
    ({}, True, True, ("openai", "openai")),
    ({"whisper_model": "/models/whisper-small"}, False, True, ("whisper", "espeak")),
    ({"whisper_model": "/models/whisper-small"}, True, True, ("openai", "openai")),
    ({"voice_base_url": "http://127.0.0.1:9/v1"}, False, True, ("openai", "openai")),
    ({"speech_to_text": "browser", "text_to_speech": "browser"}, True, True, ("browser",) * 2),
    ({"speech_to_text": "off", "text_to_speech": "off"}, True, True, ("off", "off")),
    ({"text_to_speech": "espeak"}, True, True, ("openai", "espeak")),
    ({"speech_to_text": "whisper"}, True, True, ("whisper", "openai")),
)


@pytest.mark.parametrize(("given", "key", "espeak", "chosen"), CHOICES)
async def test_the_first_that_is_set_up_does_it(
    tmp_path: Path,
    bus: Bus,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, Any],
    key: bool,
    espeak: bool,
    chosen: tuple[str, str],
) -> None:
    there = {"espeak-ng"} if espeak else set()
    monkeypatch.setattr(
        voice_local.shutil, "which", lambda name: f"/bin/{name}" if name in there else None
    )
    offers = await made(tmp_path, bus, key=key, **given).offers()
    assert (offers.speech_to_text.provider, offers.text_to_speech.provider) == chosen


async def test_what_is_not_set_up_says_what_to_set(tmp_path: Path, bus: Bus) -> None:
    voice = made(tmp_path, bus, speech_to_text="whisper", text_to_speech="piper")
    offers = await voice.offers()
    assert not offers.speech_to_text.ready
    assert "speech_to_text is whisper, and it is not set up: ai-infra voice pull small" in (
        offers.speech_to_text.note
    )
    assert "pip install piper-tts" in offers.text_to_speech.note or "piper_voice" in (
        offers.text_to_speech.note
    )
    wav = voice_rig.say("Hello")
    with pytest.raises(ConflictError, match="nothing here can hear: speech_to_text is whisper"):
        await voice.hear(wav)
    with pytest.raises(ConflictError, match="nothing here can speak"):
        await voice.speak("Hello")
    off = made(tmp_path, bus, speech_to_text="off", text_to_speech="off")
    with pytest.raises(ConflictError, match="it is turned off: speech_to_text"):
        await off.hear(wav)


async def test_whisper_is_asked_over_the_bus_wherever_it_runs(tmp_path: Path, bus: Bus) -> None:
    import asyncio
    import base64

    asked: list[dict[str, Any]] = []

    async def answer(payload: dict[str, Any]) -> dict[str, Any]:
        asked.append(payload)
        return {"text": " What was said. "}

    wav = voice_rig.say("Hello there")
    serving = asyncio.create_task(bus.serve(streams.SERVICE_LISTEN, answer), name="listen")
    while not await bus.served(streams.SERVICE_LISTEN):
        await asyncio.sleep(0.02)
    voice = made(tmp_path, bus)
    heard = await voice.hear(wav, "en")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert (heard.text, heard.provider) == ("What was said.", "whisper")
    assert base64.b64decode(asked[0]["audio"]) == wav
    assert asked[0]["language"] == "en"
    assert 0 < asked[0]["seconds_s"] <= 300


async def test_a_whisper_that_is_away_is_said_and_nobody_else_is_asked(
    tmp_path: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.voice.HEAR_S", 0.2)
    voice = made(tmp_path, bus, whisper_model=tmp_path / "whisper-small")
    assert (await voice.offers()).speech_to_text.title == "Whisper small"
    with pytest.raises(NotRunningError, match="Whisper did not answer in time; see: ai-infra"):
        await voice.hear(voice_rig.say("Hello"))


async def spoken(mouth: Espeak | Piper, text: str, language: str = "") -> bytes:
    return b"".join([piece async for piece in mouth.speak(text, language, Deadline.after(20))])


async def test_espeak_speaks_the_sentence_in_the_language_of_its_letters(tmp_path: Path) -> None:
    mouth = Espeak(Settings(home=tmp_path))
    wav = await spoken(mouth, "-v $(id) `Hello` <b>there</b>.\nAnd more.")
    assert len(wav) == int.from_bytes(wav[4:8], "little") + 8
    assert 1 < sound.measure_s(wav) < 8
    same = sound.decode(voice_rig.say("Count the words."))
    assert voice_rig.likeness(sound.decode(await spoken(mouth, "Count the words.")), same) > 0.99
    german = Espeak(Settings(home=tmp_path, espeak_voice="de"))
    word = "Wörter zählen"
    assert await spoken(german, word) == await spoken(mouth, word, "de")
    assert await spoken(german, word) != await spoken(mouth, word)
    assert await spoken(mouth, word, "xq") == await spoken(mouth, word)  # no such language
    assert np.abs(sound.decode(await spoken(mouth, "Привет"))).max() > 0.1


async def test_piper_speaks_with_the_voice_of_a_file(tmp_path: Path) -> None:
    """The real program with a voice that hums a tone for each sound of a word."""
    need("piper")
    mouth = Piper(Settings(home=tmp_path, piper_voice=TONE))
    assert await mouth.lacks() == ""
    short = sound.decode(await spoken(mouth, "Yes."))
    long = sound.decode(await spoken(mouth, "Yes, and\nthen -m something longer; more."))
    assert 0.3 < len(short) / sound.RATE_HZ < 2
    assert len(long) > 3 * len(short)
    assert np.abs(short).max() > 0.3
    missing = Piper(Settings(home=tmp_path, piper_voice=tmp_path / "no.onnx"))
    assert await missing.lacks() == f"piper_voice in settings.toml: there is no {tmp_path}/no.onnx"
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no voice")
    (tmp_path / "broken.onnx.json").write_bytes(TONE.with_name("tone.onnx.json").read_bytes())
    with pytest.raises(ModelError, match="piper failed: "):
        await spoken(Piper(Settings(home=tmp_path, piper_voice=broken)), "Yes.")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Hello", ""), ("Größe", ""), ("Привет", "ru"), ("Привіт", "uk"), ("你好", "cmn"),
        ("こんにちは", "ja"), ("日本語です", "ja"), ("안녕", "ko"), ("γεια", "el"), ("שלום", "he"),
        ("سلام", "ar"), ("नमस्ते", "hi"),
    ],
)  # fmt: skip
def test_letters_tell_a_language_where_only_one_has_them(text: str, language: str) -> None:
    assert script(text) == language


async def test_a_command_that_fails_or_hangs_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "espeak-ng"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    mouth = Espeak(Settings(home=tmp_path))
    began_s = time.monotonic()
    for body, said in (
        ("echo broken voice >&2; exit 3", "espeak-ng failed: broken voice"),
        ("cat > /dev/null; echo no sound", "espeak-ng gave no sound"),
        ("sleep 30", "espeak-ng did not end in time"),
    ):
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(stat.S_IRWXU)
        with pytest.raises(ModelError, match=said):
            async for _ in mouth.speak("Hello", "", Deadline.after(1.0)):
                pass
    assert time.monotonic() - began_s < 20  # what the program itself started is ended, too


async def test_a_sentence_is_made_once(tmp_path: Path, bus: Bus) -> None:
    counted = tmp_path / "count"
    voice = made(tmp_path, bus, text_to_speech="espeak")
    mouth = voice._mouths["espeak"]
    make = mouth.speak

    async def counting(text: str, language: str, deadline: Deadline) -> AsyncIterator[bytes]:
        counted.write_text(counted.read_text() + "x" if counted.exists() else "x")
        async for piece in make(text, language, deadline):
            yield piece

    mouth.speak = counting  # type: ignore[method-assign]
    found = []
    for text in ("Hello.", "Hello.", "Other.", "Hello."):
        speech = await voice.speak(text)
        assert speech.media_type == "audio/wav"
        found.append(b"".join([piece async for piece in speech.pieces]))
    assert found[0] == found[1] == found[3] != found[2]
    assert counted.read_text() == "xx"


def test_the_cache_lets_go_of_what_was_not_wanted_for_longest() -> None:
    cache = Cache(10)
    for name in ("a", "b"):
        cache.put((name,), b"12345")
    assert cache.get(("a",)) == b"12345"
    cache.put(("c",), b"123")
    assert (cache.get(("a",)), cache.get(("b",)), cache.get(("c",))) == (b"12345", None, b"123")
    cache.put(("d",), bytes(11))
    assert cache.get(("d",)) is None
    assert cache.get(("a",)) is None
