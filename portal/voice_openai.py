"""Hearing and speaking by a provider that speaks OpenAI's audio API.

A person waits, so nothing is tried twice here: they are told, and try again themselves. The key
goes to `voice_base_url` alone; a redirect is not followed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx

from base import secrets, sound
from base.deadline import Deadline
from base.errors import AIError, ModelError
from base.redact import redact
from base.settings import OPENAI, PLAIN_KEY, Settings

KEY = "openai-api-key"
SET_KEY = f"ai-infra secrets set {KEY}"
REASON_CHARS = 200


class OpenAI:
    """Both an ear and a mouth."""

    name = "openai"
    media_type = "audio/mpeg"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
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
        form = {"model": self._settings.transcription_model, "response_format": "json"}
        form |= {"language": language} if language else {}
        name = f"recording.{clip.kind.name}"
        files = {"file": (name, clip.data, clip.kind.media_type)}
        async with self._asked("transcriptions", deadline, data=form, files=files) as answer:
            await answer.aread()
            try:
                return str(answer.json()["text"])
            except (ValueError, KeyError, TypeError) as error:
                raise ModelError(f"{self.title} answered no text") from error

    async def speak(self, text: str, language: str, deadline: Deadline) -> AsyncIterator[bytes]:
        body = {
            "model": self._settings.speech_model,
            "voice": self._settings.speech_voice,
            "input": text,
            "response_format": "mp3",
        }
        async with self._asked("speech", deadline, json=body) as answer:
            if answer.headers.get("content-type", "").startswith(("text/", "application/json")):
                raise ModelError(f"{self.title} answered no sound")
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
