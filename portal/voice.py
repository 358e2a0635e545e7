"""Voice: which provider hears and which speaks, and what they give.

An `Ear` turns a recording into text, a `Mouth` one sentence into sound. `auto` takes the first
that is set up, by what is set and not by what answers just now: a broken one is told, not
quietly replaced by one that sends the sound elsewhere. The browser's own are the last.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from base import log, sound
from base.bus import Bus
from base.deadline import Deadline
from base.errors import ConflictError, ModelError
from base.messages import Wire
from base.settings import Settings
from portal.recordings import Recordings
from portal.shapes import SENTENCE_CHARS
from portal.voice_local import Espeak, Piper, Whisper
from portal.voice_openai import OpenAI

#: A recording is at most five minutes; a CPU needs about as long for it with a large Whisper.
HEAR_S = 300.0
SPEAK_S = 30.0
CACHE_BYTES = 16_000_000
BROWSER, OFF, AUTO = "browser", "off", "auto"
TURNED_OFF = "it is turned off: {setting} in settings.toml is off"

logger = log.get("voice")


class Ear(Protocol):
    """Hears. `title`: for people. `lacks`: what to do before it can; empty when nothing."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...

    async def lacks(self) -> str: ...

    async def hear(self, clip: sound.Clip, language: str, deadline: Deadline) -> str:
        """Raises ModelError, NotRunningError, InputError in words. `language` may be empty."""
        ...


class Mouth(Protocol):
    """Speaks. `voice`: what must be the same for a sentence to sound the same."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def media_type(self) -> str: ...
    @property
    def voice(self) -> str: ...

    async def lacks(self) -> str: ...

    def speak(self, text: str, language: str, deadline: Deadline) -> AsyncIterator[bytes]:
        """A file of `media_type` in pieces. Raises ModelError in words, most at the first."""
        ...


class Offer(Wire):
    """Who does it. `ready`: the server can, or leaves it to the browser (`provider` browser).
    `note`: what to set, in words; empty when there is nothing to say.
    """

    provider: str
    title: str
    ready: bool
    note: str


class Offers(Wire):
    """`longest_s`, `largest_bytes`: of a recording. `sentence_chars`: of one text to speak."""

    speech_to_text: Offer
    text_to_speech: Offer
    longest_s: float = sound.LONGEST_S
    largest_bytes: int = sound.LARGEST_BYTES
    sentence_chars: int = SENTENCE_CHARS


class Heard(Wire):
    """`ms`: how long the provider took; `seconds_s`: how long the recording is."""

    text: str
    provider: str
    title: str
    ms: int
    seconds_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """A sentence as sound; `pieces` can be taken once."""

    media_type: str
    pieces: AsyncIterator[bytes]


P = TypeVar("P", Ear, Mouth)


class Voice:
    """One a portal. Opens nothing before it is asked."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        openai = OpenAI(settings, bus)
        ears: tuple[Ear, ...] = (openai, Whisper(settings, bus))
        mouths: tuple[Mouth, ...] = (openai, Piper(settings), Espeak(settings))
        self._settings = settings
        self._ears = {one.name: one for one in ears}
        self._mouths = {one.name: one for one in mouths}
        self._spoken = Cache(CACHE_BYTES)
        self.recordings = Recordings()

    async def offers(self) -> Offers:
        settings = self._settings
        _, hears = await _chosen(self._ears, settings.speech_to_text, "speech_to_text")
        _, speaks = await _chosen(self._mouths, settings.text_to_speech, "text_to_speech")
        return Offers(speech_to_text=hears, text_to_speech=speaks)

    async def hear(self, data: bytes, language: str = "") -> Heard:
        """Raises InputError for what is no recording, ConflictError when nothing here can hear,
        ModelError or NotRunningError when the provider failed.
        """
        ear, offer = await _chosen(self._ears, self._settings.speech_to_text, "speech_to_text")
        clip = await asyncio.to_thread(sound.clip, data)
        if ear is None or not offer.ready:
            raise ConflictError(f"nothing here can hear: {offer.note}")
        began_s = time.monotonic()
        text = (await ear.hear(clip, language, Deadline.after(HEAR_S))).strip()
        took_ms = round((time.monotonic() - began_s) * 1000)
        logger.info(
            "heard", provider=ear.name, duration_ms=took_ms, seconds_s=round(clip.seconds_s, 1)
        )
        return Heard(
            text=text,
            provider=ear.name,
            title=ear.title,
            ms=took_ms,
            seconds_s=round(clip.seconds_s, 2),
        )

    async def speak(self, text: str, language: str = "") -> Speech:
        """Returns when its first piece is there, so that what fails at once is told in words.

        Raises ConflictError when nothing here can speak, ModelError when the provider failed.
        """
        mouth, offer = await _chosen(self._mouths, self._settings.text_to_speech, "text_to_speech")
        if mouth is None or not offer.ready:
            raise ConflictError(f"nothing here can speak: {offer.note}")
        key = (mouth.name, mouth.voice, language, text)
        if (kept := self._spoken.get(key)) is not None:
            return Speech(media_type=sound.spoken_type(kept, mouth.media_type), pieces=_from(kept))
        pieces = mouth.speak(text, language, Deadline.after(SPEAK_S))
        first = await anext(pieces, None)
        if first is None:
            raise ModelError(f"{mouth.title} gave no sound")
        media_type = sound.spoken_type(first, mouth.media_type)
        return Speech(media_type=media_type, pieces=self._kept(key, first, pieces))

    async def _kept(
        self, key: tuple[str, ...], first: bytes, rest: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """The pieces as they come; the whole is kept when it came to its end."""
        said = bytearray(first)
        yield first
        async for piece in rest:
            said += piece
            yield piece
        self._spoken.put(key, bytes(said))


class Cache:
    """Sentences as sound, at most so many bytes; what was not wanted for longest goes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._held: OrderedDict[tuple[str, ...], bytes] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> bytes | None:
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: tuple[str, ...], data: bytes) -> None:
        self._bytes += len(data) - len(self._held.pop(key, b""))
        self._held[key] = data
        while self._bytes > self._most_bytes:
            _, gone = self._held.popitem(last=False)
            self._bytes -= len(gone)


async def _chosen(known: Mapping[str, P], choice: str, setting: str) -> tuple[P | None, Offer]:
    """Who does it by this choice; None: nobody here."""
    if choice == OFF:
        note = TURNED_OFF.format(setting=setting)
        return None, Offer(provider=OFF, title="off", ready=False, note=note)
    if choice not in {AUTO, BROWSER}:
        one = known[choice]
        lack = await one.lacks()
        note = f"{setting} is {choice}, and it is not set up: {lack}" if lack else ""
        return one, Offer(provider=one.name, title=one.title, ready=not lack, note=note)
    lacks = []
    for one in known.values() if choice == AUTO else ():
        if not (lack := await one.lacks()):
            return one, Offer(provider=one.name, title=one.title, ready=True, note="")
        lacks.append(f"{one.title}: {lack}")
    note = "only the browser's own is set up"
    note += f"; for another, one of: {'; '.join(lacks)}" if lacks else ""
    return None, Offer(provider=BROWSER, title="this browser's own", ready=True, note=note)


async def _from(data: bytes) -> AsyncIterator[bytes]:
    yield data
