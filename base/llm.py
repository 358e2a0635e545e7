"""The model: one question, one complete answer. The only module that knows the anthropic SDK.

This is the one owner of retry for model calls; the SDK's own is off. The SDK is imported at the
first call, or ahead of it by `warm`.
"""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from base import lean, log, metrics, secrets
from base.attempt import AttemptError, asked_wait_s, judge, pause_s
from base.deadline import Deadline
from base.errors import ModelError, SettingsError
from base.messages import UNPAID_PROVIDER, ModelCall, Usage
from base.prices import Models
from base.redact import redact
from base.reply import (
    CHARS_PER_TOKEN,
    LIMIT_REASONS,
    Ask,
    CutError,
    Draft,
    Reply,
    StreamError,
    ToolCall,
)
from base.settings import Settings

if TYPE_CHECKING:
    import anthropic

__all__ = ["LLM", "Ask", "Reply", "ToolCall"]

OnText = Callable[[str, int], Awaitable[None]]
OnCall = Callable[[ModelCall], Awaitable[None]]

ATTEMPTS = 5
BACKOFF_S = 2.0
CONNECT_S = 10.0
UNAUTHENTICATED = 401
NO_KEY = "no-key"
EPHEMERAL = {"type": "ephemeral"}

logger = log.get("llm")


class LLM:
    """Asks the model. One object a process; safe to use from many tasks at once.

    `on_call` gets a record of every attempt that consumed tokens, also of one that failed or
    was cancelled; what it raises comes out of `reply`.
    """

    def __init__(
        self,
        settings: Settings,
        models: Models,
        *,
        on_call: OnCall,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        self._settings = settings
        self._models = models
        self._on_call = on_call
        self._backoff_s = backoff_s
        self._client: anthropic.AsyncAnthropic | None = None
        self._unknown: set[str] = set()
        host = urlsplit(settings.model_url or "").hostname
        self._provider = UNPAID_PROVIDER if settings.rehearsal else host or "anthropic"

    async def warm(self) -> None:
        """Import the SDK in a thread, so that the first call does not wait. Twice is safe."""
        await asyncio.to_thread(_sdk)
        await self._key()
        self._open()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def reply(self, ask: Ask, *, on_text: OnText | None = None, deadline: Deadline) -> Reply:
        """The complete answer to `ask`; `on_text(piece, attempt)` gets its text as it streams.

        `attempt` starts at 1 and rises when a failed stream is started anew. At most five
        attempts, none after `deadline`. Raises SpendLimitError for a spend cap, ModelError when
        the provider refused for good, when retries or time are used up, or when a forced tool's
        call did not fit into `max_tokens`.
        """
        if self._client is None:
            await self.warm()
        spent = Usage()

        async def record(call: ModelCall) -> None:
            nonlocal spent
            spent += call.usage
            await self._on_call(call)

        reason = "no time was left"
        for attempt in range(1, ATTEMPTS + 1):
            if deadline.passed:
                raise ModelError(f"no answer from the model before the deadline: {reason}")
            try:
                reply = await self._attempt(ask, attempt, on_text, record, deadline)
                return replace(reply, usage=spent)
            except AttemptError as error:
                if not error.again:
                    raise ModelError(str(error)) from error.__cause__
                reason = str(error)
                wait_s = pause_s(attempt, error.wait_s, self._backoff_s)
                logger.warning(
                    "model call failed",
                    task_id=ask.task_id,
                    agent=ask.agent,
                    purpose=ask.purpose,
                    attempt=attempt,
                    reason=reason,
                    wait_ms=round(wait_s * 1000),
                )
                if attempt == ATTEMPTS:
                    raise ModelError(
                        f"the model failed {ATTEMPTS} times; last: {reason}"
                    ) from error
                if wait_s >= deadline.left_s:
                    raise ModelError(
                        f"no answer from the model before the deadline: {reason}; "
                        f"the next try would be in {wait_s:.0f} s"
                    ) from error
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _attempt(
        self, ask: Ask, attempt: int, on_text: OnText | None, record: OnCall, deadline: Deadline
    ) -> Reply:
        """One attempt; whatever it consumed is recorded, however it ends."""
        sdk = _sdk()
        draft = Draft()
        began = time.monotonic()
        limit_s = min(deadline.left_s, self._settings.model_timeout_s)
        try:
            async with asyncio.timeout(limit_s) as limit:
                await self._stream(ask, draft, attempt, on_text)
            content, calls, stop_reason = draft.finish()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise AttemptError(f"no complete answer within {limit_s:.0f} s") from error
        except CutError as error:
            raise AttemptError(str(error)) from error
        except StreamError as error:
            raise judge(None, error.kind, error.code, redact(str(error)), None) from error
        except sdk.APIStatusError as error:
            told = redact(error.api_message or f"HTTP status {error.status_code}")
            if error.status_code == UNAUTHENTICATED and await self._rotated():
                raise AttemptError(f"{told}; the key was changed", wait_s=0.0) from error
            wait_s = asked_wait_s(error.response.headers)
            raise judge(error.status_code, error.type, error.error_code, told, wait_s) from error
        except sdk.APITimeoutError as error:
            raise AttemptError("the model did not respond in time") from error
        except sdk.APIConnectionError as error:
            raise AttemptError(f"cannot reach the model at {self._where}") from error
        except sdk.TransportError as error:
            silent = isinstance(error, sdk.ReadTimeout)
            told = f"the stream fell silent for {self._settings.model_silence_s:g} s"
            raise AttemptError(told if silent else "the stream was cut") from error
        finally:
            if draft.started:
                latency_ms = round((time.monotonic() - began) * 1000)
                call = self._call(ask, draft, latency_ms)
                _measure(call)
                await record(call)
        if ask.force_tool and stop_reason in LIMIT_REASONS:
            raise ModelError(
                f"the model's call of {ask.force_tool} did not fit into {ask.max_tokens} tokens"
            )
        return Reply(
            content=content,
            text="".join(block["text"] for block in content if block["type"] == "text"),
            tool_calls=calls,
            stop_reason=stop_reason,
            usage=call.usage,
            model=draft.model or ask.model,
        )

    async def _stream(self, ask: Ask, draft: Draft, attempt: int, on_text: OnText | None) -> None:
        sdk, client = _sdk(), self._open()
        client.api_key = await self._key()
        known = self._models.find(ask.model)
        max_tokens = min(ask.max_tokens, known.output_max_tokens) if known else ask.max_tokens
        async with client.messages.with_streaming_response.create(
            **_request(ask, forced=known is None or known.forced_tools),
            max_tokens=max_tokens,
            stream=True,
        ) as response:
            async for event in sdk.raw_events(response.http_response):
                if event.data and event.event != "ping":
                    piece = draft.take(event.data)
                    if piece and on_text is not None:
                        await on_text(piece, attempt)

    def _call(self, ask: Ask, draft: Draft, latency_ms: int) -> ModelCall:
        """The record of one attempt. A count that the provider left out is an error in the log
        and is estimated from the text, never zero."""
        counts = draft.counts
        input_tokens, output_tokens = counts.get("input_tokens"), counts.get("output_tokens")
        if input_tokens is None or output_tokens is None:
            logger.error("usage was missing", task_id=ask.task_id, model=ask.model)
        if input_tokens is None:
            input_tokens = 1 + len(f"{ask.system}{ask.tools}{ask.messages}") // CHARS_PER_TOKEN
        if output_tokens is None or not draft.complete:
            output_tokens = max(output_tokens or 0, 1 + draft.written_chars // CHARS_PER_TOKEN)
        usage = Usage(
            model_calls=1,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cache_read_tokens=counts.get("cache_read_input_tokens") or 0,
            cache_write_tokens=counts.get("cache_creation_input_tokens") or 0,
        )
        usage = usage.model_copy(update={"cost_usd": self._models.cost(ask.model, usage)})
        if self._models.find(ask.model) is None and ask.model not in self._unknown:
            self._unknown.add(ask.model)
            logger.warning("model has no price, took the dearest", model=ask.model)
        return ModelCall(
            id=str(uuid.uuid4()),
            task_id=ask.task_id,
            agent=ask.agent,
            purpose=ask.purpose,
            provider=self._provider,
            model=ask.model,
            usage=usage,
            latency_ms=latency_ms,
        )

    async def _key(self) -> str:
        """The key as it is now: one that was rotated counts from the next attempt on.

        Raises ModelError when the key that there was is gone or cannot be had.
        """
        try:
            key = await asyncio.to_thread(getattr, self._settings, "api_key")
        except SettingsError as error:
            raise ModelError(f"no API key: {error}") from error
        if key is None and self._settings.model_url is None:
            raise ModelError("the API key is gone; run: ai-infra secrets set anthropic-api-key")
        return str(key.get_secret_value()) if key else NO_KEY

    async def _rotated(self) -> bool:
        """After the provider refused the key: whether there is another by now."""
        used = self._open().api_key
        await asyncio.to_thread(secrets.of(self._settings).refresh, secrets.ANTHROPIC_API_KEY)
        return await self._key() not in {used, NO_KEY}

    def _open(self) -> anthropic.AsyncAnthropic:
        if self._client is None:
            silence_s = self._settings.model_silence_s
            self._client = _sdk().AsyncAnthropic(
                api_key=NO_KEY,
                base_url=self._settings.model_url,
                max_retries=0,
                timeout=_sdk().Timeout(silence_s, connect=min(CONNECT_S, silence_s)),
            )
        return self._client

    @property
    def _where(self) -> str:
        return self._settings.model_url or "the provider's address"


def _measure(call: ModelCall) -> None:
    labels = (call.provider, call.model)
    usage = call.usage
    metrics.llm_tokens_total.labels(*labels, "input").inc(usage.tokens - usage.output_tokens)
    metrics.llm_tokens_total.labels(*labels, "output").inc(usage.output_tokens)
    metrics.llm_cost_dollars_total.labels(*labels).inc(usage.cost_usd)
    metrics.llm_request_duration_seconds.labels(*labels).observe(call.latency_ms / 1000)


def _request(ask: Ask, *, forced: bool) -> dict[str, Any]:
    """The request's body without `max_tokens`; the caller's lists are not touched.

    `forced`: whether the model takes a forced tool; else the caller's words must ask for it.

    Cache breakpoints: end of the tools, end of the system prompt, end of the last turn.
    """
    body: dict[str, Any] = {
        "model": ask.model,
        "messages": [*ask.messages[:-1], *(_marked(turn) for turn in ask.messages[-1:])],
        "metadata": {"user_id": f"{ask.task_id or '-'}/{ask.agent}/{ask.purpose}"},
    }
    if ask.system:
        body["system"] = [{"type": "text", "text": ask.system, "cache_control": EPHEMERAL}]
    if ask.tools:
        body["tools"] = [*ask.tools[:-1], {**ask.tools[-1], "cache_control": EPHEMERAL}]
    if ask.force_tool and forced:
        body["tool_choice"] = {"type": "tool", "name": ask.force_tool}
    return body


def _marked(turn: dict[str, Any]) -> dict[str, Any]:
    content = turn["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    if blocks and blocks[-1].get("text") != "":
        blocks[-1] = {**blocks[-1], "cache_control": EPHEMERAL}
    return {**turn, "content": blocks}


@functools.cache
def _sdk() -> SimpleNamespace:
    """What we use of the SDK. Imported leanly: 0.7 s and 29 MB instead of 2 s and 60 MB."""
    lean.install("anthropic")
    with lean.without("aiohttp"):  # the SDK's optional second transport: never used, 9 MB
        import anyio._backends._asyncio
        import httpcore2
        import httpx2
        from anthropic import _exceptions
        from anthropic._client import AsyncAnthropic
        from anthropic._streaming import AsyncStream
        from anthropic.resources.messages.messages import AsyncMessages

        _ = anyio, httpcore2, AsyncMessages  # else the first call would load them
    return SimpleNamespace(
        AsyncAnthropic=AsyncAnthropic,
        raw_events=AsyncStream.raw_events,
        Timeout=httpx2.Timeout,
        TransportError=httpx2.TransportError,
        ReadTimeout=httpx2.ReadTimeout,
        APIStatusError=_exceptions.APIStatusError,
        APIConnectionError=_exceptions.APIConnectionError,
        APITimeoutError=_exceptions.APITimeoutError,
    )
