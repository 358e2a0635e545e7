"""Hearing and speaking on this machine: Whisper over the bus, Piper and espeak-ng as commands."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec

from base import sound, streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import ModelError, NoAnswerError, NotRunningError
from base.settings import Settings

#: Below this a WAV file has no samples.
HEAD_BYTES = 44
#: Scripts of one language, and what espeak-ng calls it. Latin letters tell none.
SCRIPTS = tuple(
    (re.compile(pattern), voice)
    for pattern, voice in (
        (r"[\u3040-\u30ff]", "ja"),  # before the characters that Chinese has too
        (r"[\u4e00-\u9fff]", "cmn"),
        (r"[\uac00-\ud7af]", "ko"),
        (r"[\u0370-\u03ff]", "el"),
        (r"[іїєґІЇЄҐ]", "uk"),
        (r"[\u0400-\u04ff]", "ru"),
        (r"[\u0590-\u05ff]", "he"),
        (r"[\u0600-\u06ff]", "ar"),
        (r"[\u0900-\u097f]", "hi"),
    )
)


class Whisper:
    """The worker `listen`, here or on another machine."""

    name = "whisper"

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self._settings = settings
        self._bus = bus

    @property
    def title(self) -> str:
        model = self._settings.whisper_model
        return f"Whisper {model.name.removeprefix('whisper-')}" if model else "Whisper"

    async def lacks(self) -> str:
        if self._settings.whisper_model or await self._bus.served(streams.SERVICE_LISTEN):
            return ""
        return "ai-infra voice pull small, then whisper_model in settings.toml"

    async def hear(self, clip: sound.Clip, language: str, deadline: Deadline) -> str:
        payload = {
            "verb": "hear",
            "audio": base64.b64encode(clip.data).decode(),
            "language": language,
            "seconds_s": round(deadline.left_s, 1),
        }
        try:
            found = await self._bus.ask(streams.SERVICE_LISTEN, payload, deadline=deadline)
        except NoAnswerError as error:
            raise NotRunningError(
                "Whisper did not answer in time; see: ai-infra status, and listen.log"
            ) from error
        return str(found["text"])


class Espeak:
    """Robotic, at once, in a hundred languages."""

    name, title, media_type = "espeak", "espeak-ng", "audio/wav"

    def __init__(self, settings: Settings) -> None:
        self._voice = settings.espeak_voice

    @property
    def voice(self) -> str:
        return self._voice

    async def lacks(self) -> str:
        return "" if shutil.which("espeak-ng") else "apt-get install espeak-ng"

    async def speak(self, text: str, language: str, deadline: Deadline) -> AsyncIterator[bytes]:
        found = script(text) or language or self._voice
        line = ["espeak-ng", "--stdin", "--stdout", "-b", "1", "-v"]
        try:
            said = await _output([*line, found], text, deadline)
        except ModelError:
            if found == self._voice:
                raise
            said = await _output([*line, self._voice], text, deadline)  # it lacks the language
        rate_hz = int.from_bytes(said[24:28], "little")
        if said[:4] != b"RIFF" or not rate_hz:
            raise ModelError("espeak-ng gave no sound")
        yield sound.wav(said[HEAD_BYTES:], rate_hz)  # its own head names no length


class Piper:
    """A neural voice of a file; it is loaded anew for each sentence."""

    name, title, media_type = "piper", "Piper", "audio/wav"

    def __init__(self, settings: Settings) -> None:
        self._file = settings.piper_voice

    @property
    def voice(self) -> str:
        return str(self._file)

    async def lacks(self) -> str:
        if not _piper():
            return "install piper (pip install piper-tts), then piper_voice in settings.toml"
        if self._file is None:
            return "piper_voice in settings.toml: a voice's .onnx file"
        missing = [
            one for one in (str(self._file), f"{self._file}.json") if not os.path.isfile(one)
        ]
        return f"piper_voice in settings.toml: there is no {missing[0]}" if missing else ""

    async def speak(self, text: str, language: str, deadline: Deadline) -> AsyncIterator[bytes]:
        try:
            with open(f"{self._file}.json", encoding="utf-8") as file:
                rate_hz = int(json.load(file)["audio"]["sample_rate"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{self._file}.json cannot be read: {error!r}") from error
        line = [*_piper(), "-m", str(self._file), "--output_raw"]
        pcm = await _output(line, " ".join(text.split()), deadline)
        if not pcm:
            raise ModelError("piper gave no sound")
        yield sound.wav(pcm, rate_hz)


def script(text: str) -> str:
    """The language of a script that has only one, as espeak-ng names it; else empty."""
    return next((voice for pattern, voice in SCRIPTS if pattern.search(text)), "")


def _piper() -> list[str]:
    found = shutil.which("piper")
    if found:
        return [found]
    return [sys.executable, "-m", "piper"] if find_spec("piper") else []


async def _output(line: Sequence[str], text: str, deadline: Deadline) -> bytes:
    """What a command writes when it is given `text`. Raises ModelError in words."""
    name = os.path.basename(line[0])
    try:
        process = await asyncio.create_subprocess_exec(
            *line,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise ModelError(f"{name} cannot be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(deadline.left_s):
            out, told = await process.communicate(f"{text}\n".encode())
    except TimeoutError as error:
        raise ModelError(f"{name} did not end in time") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started holds its pipes open
            await process.wait()
    if process.returncode:
        words = told.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise ModelError(f"{name} failed: {words[0][:200]}")
    return out
