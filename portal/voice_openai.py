"""Hearing and speaking by a provider that speaks OpenAI's audio API.

A person waits, so nothing is tried twice here: they are told, and try again themselves. The key
goes to `voice_base_url` alone; a redirect is not followed.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx

from base import log, secrets, sound
from base.bus import Bus
from base.deadline import Deadline
from base.errors import AIError, ModelError, SettingsError
from base.messages import ModelCall, Usage
from base.prices import Models
from base.redact import redact
from base.settings import OPENAI, PLAIN_KEY, Settings
from portal import expense

KEY = "openai-api-key"
SET_KEY = f"ai-infra secrets set {KEY}"
REASON_CHARS = 200

logger = log.get("voice")


class OpenAI:
    """Both an ear and a mouth. What is charged is counted as soon as the provider has said yes."""

    name = "openai"
    media_type = "audio/mpeg"

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self._settings = settings
        self._bus = bus
        self._base = settings.voice_base_url.rstrip("/")

    @property
    def title(self) -> str:
        return "OpenAI" if self._base == OPENAI else str(urlsplit(self._base).hostname)

    @property
    def voice(self) -> str:
        return f"{self._base} {self._settings.speech_model} {self._settings.speech_voice}"

    async def lacks(self) -> str:
        """A server of one's own may want no key."""
        try:
            known = await self._key() or self._base != OPENAI
        except AIError as error:
            return str(error)
        return "" if known else SET_KEY

    async def hear(self, clip: sound.Clip, language: str, deadline: Deadline) -> str:
        model, began_s = self._settings.transcription_model, time.monotonic()
        form = {"model": model, "response_format": "json"}
        form |= {"language": language} if language else {}
        name = f"recording.{clip.kind.name}"
        files = {"file": (name, clip.data, clip.kind.media_type)}
        async with self._asked("transcriptions", deadline, data=form, files=files) as answer:
            await answer.aread()
            usd = self._models().heard_usd(model, clip.seconds_s)
            await self._count("hear", model, usd, began_s)
            try:
                return str(answer.json()["text"])
            except (ValueError, KeyError, TypeError) as error:
                raise ModelError(f"{self.title} answered no text") from error

    async def speak(self, text: str, language: str, deadline: Deadline) -> AsyncIterator[bytes]:
        model, began_s = self._settings.speech_model, time.monotonic()
        body = {
            "model": model,
            "voice": self._settings.speech_voice,
            "input": text,
            "response_format": "mp3",
        }
        async with self._asked("speech", deadline, json=body) as answer:
            if answer.headers.get("content-type", "").startswith(("text/", "application/json")):
                raise ModelError(f"{self.title} answered no sound")
            usd = self._models().spoken_usd(model, len(text))
            await self._count("speak", model, usd, began_s)
            async for piece in answer.aiter_bytes():
                yield piece

    @asynccontextmanager
    async def _asked(
        self, what: str, deadline: Deadline, **body: object
    ) -> AsyncIterator[httpx.Response]:
        """The answer of the provider, unread. Raises ModelError in words."""
        key = await self._key()
        headers = {"authorization": f"Bearer {key}"} if key else {}
        url = f"{self._base}/audio/{what}"
        try:
            async with (
                httpx.AsyncClient(timeout=deadline.left_s) as client,
                client.stream("POST", url, headers=headers, **body) as answer,  # type: ignore[arg-type]
            ):
                if not answer.is_success:
                    await answer.aread()
                    raise ModelError(self._refusal(answer))
                yield answer
        except httpx.TimeoutException as error:
            raise ModelError(f"{self.title} did not answer in time") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ModelError(f"{self.title} cannot be reached: {reason}") from error

    def _models(self) -> Models:
        """The price list as it is now; the shipped one while the home's is wrong."""
        try:
            return Models.load(self._settings)
        except SettingsError:
            return Models.load()

    async def _count(self, purpose: str, model: str, usd: float | None, began_s: float) -> None:
        """A model that has no price costs nothing on a server of one's own; OpenAI's is told."""
        ours = self._base == OPENAI
        if usd is None and ours:
            logger.warning("this voice has no price in models.toml", model=model)
        call = ModelCall(
            id=str(uuid.uuid4()),
            task_id=None,
            agent="voice",
            purpose=purpose,
            provider=self.name if ours else self.title,
            model=model,
            usage=Usage(model_calls=1, cost_usd=usd or 0.0),
            latency_ms=round((time.monotonic() - began_s) * 1000),
        )
        await expense.tell(self._bus, call)

    def _refusal(self, answer: httpx.Response) -> str:
        if answer.status_code in {401, 403}:
            return f"{self.title} does not accept the key; set it again: {SET_KEY}"
        try:
            said = str(answer.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            said = answer.text
        return f"{self.title} refused ({answer.status_code}): {redact(said[:REASON_CHARS])}".rstrip(
            ": "
        )

    async def _key(self) -> str:
        """Empty when there is none. Raises SettingsError when it cannot be had."""
        found = await secrets.of(self._settings).fetch(KEY)
        key = found.get_secret_value() if found else ""
        if key and not PLAIN_KEY.fullmatch(key):
            raise ModelError(f"{KEY} is not one line of plain characters; {SET_KEY}")
        return key
