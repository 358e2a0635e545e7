"""A question to the model, and its answer as it arrives, event by event.

A `Draft` becomes a `Reply` only when the provider said that it is complete (`message_stop` with
a stop reason) and every tool call in it is whole; everything else raises `CutError`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from base.messages import Usage

#: Stop reasons that end a reply at a limit, perhaps in the middle of a tool call.
LIMIT_REASONS = frozenset({"max_tokens", "model_context_window_exceeded"})
#: Rough size of a token in text, used only where a provider left a count out.
CHARS_PER_TOKEN = 4
#: What the API takes back of each kind of block; other fields are output only.
KEEP = {
    "text": ("type", "text", "citations"),
    "tool_use": ("type", "id", "name", "input"),
    "thinking": ("type", "thinking", "signature"),
}
GROWS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


class CutError(Exception):
    """The stream ended or broke before the reply was complete; the attempt failed."""


class StreamError(Exception):
    """The provider reported an error inside the stream; `kind` is its type."""

    def __init__(self, kind: str, message: str, code: str | None) -> None:
        self.kind = kind
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One model call. `system` and `tools` are the stable prefix, cached by the provider.

    `task_id` None: the call belongs to no task. `force_tool` names the tool that must be called.
    Say so in the messages too: a model that always thinks cannot be forced, and the call may lack.
    """

    agent: str
    purpose: str
    task_id: str | None
    model: str
    system: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)
    force_tool: str | None = None
    max_tokens: int = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A whole tool call: `input` is what the model sent, not checked against any schema."""

    id: str
    name: str
    input: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A complete reply. `content` goes back to the API as the assistant's turn as it is.

    stop_reason `max_tokens` (or `model_context_window_exceeded`): `text` is what there was and
    `tool_calls` is empty, for the last may be half a call. `usage` sums every attempt it took.
    """

    content: list[dict[str, Any]]
    text: str
    tool_calls: tuple[ToolCall, ...]
    stop_reason: str
    usage: Usage
    model: str


class Draft:
    """Collects the events of one stream. `take` them all, then `finish`."""

    def __init__(self) -> None:
        self.started = False
        self.model = ""
        self.counts: dict[str, int | None] = {}
        self.written_chars = 0
        self._blocks: dict[int, dict[str, Any]] = {}
        self._json: dict[int, list[str]] = {}
        self._closed: set[int] = set()
        self._stop_reason: str | None = None
        self._stopped = False

    def take(self, data: str) -> str:
        """Add one event's JSON; returns the piece of visible text in it ("" when none).

        Raises CutError when it is malformed, StreamError when it reports an error.
        """
        try:
            event = json.loads(data)
            return self._take(event)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CutError(f"the stream was malformed ({type(error).__name__})") from error

    def _take(self, event: dict[str, Any]) -> str:
        match event["type"]:
            case "message_start":
                self.started = True
                self.model = event["message"].get("model") or ""
                self._count(event["message"].get("usage"))
            case "content_block_start":
                self._blocks[event["index"]] = dict(event["content_block"])
                return str(event["content_block"].get("text") or "")
            case "content_block_delta":
                return self._grow(event["index"], event["delta"])
            case "content_block_stop":
                self._close(event["index"])
            case "message_delta":
                self._stop_reason = event["delta"].get("stop_reason") or self._stop_reason
                self._count(event.get("usage"))
            case "message_stop":
                self._stopped = True
            case "error":
                told = event["error"]
                raise StreamError(
                    str(told.get("type")),
                    str(told.get("message")),
                    (told.get("details") or {}).get("error_code"),
                )
        return ""

    def _grow(self, index: int, delta: dict[str, Any]) -> str:
        block, kind = self._blocks[index], delta["type"]
        if kind == "input_json_delta":
            self._json.setdefault(index, []).append(delta["partial_json"])
            self.written_chars += len(delta["partial_json"])
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        elif kind in GROWS:
            piece = delta[GROWS[kind]]
            block[GROWS[kind]] = (block.get(GROWS[kind]) or "") + piece
            self.written_chars += len(piece)
            return piece if kind == "text_delta" else ""
        return ""

    def _close(self, index: int) -> None:
        self._closed.add(index)
        if index in self._json and (written := "".join(self._json[index]).strip()):
            try:
                self._blocks[index]["input"] = json.loads(written)
            except ValueError:
                self._closed.discard(index)

    def _count(self, usage: dict[str, Any] | None) -> None:
        """Counts are running totals: a later one overwrites, an absent one leaves the earlier."""
        for key, value in (usage or {}).items():
            if isinstance(value, int):
                self.counts[key] = value

    @property
    def complete(self) -> bool:
        """Whether the provider ended the reply, so that its counts are final."""
        return self.started and self._stopped and self._stop_reason is not None

    def finish(self) -> tuple[list[dict[str, Any]], tuple[ToolCall, ...], str]:
        """The content, the tool calls and the stop reason of a complete reply; else CutError."""
        if not self.complete or self._stop_reason is None:
            raise CutError("the stream was cut before the reply was complete")
        limited = self._stop_reason in LIMIT_REASONS
        content: list[dict[str, Any]] = []
        calls: list[ToolCall] = []
        for index, block in sorted(self._blocks.items()):
            kind = block.get("type")
            if kind == "text" and not str(block.get("text") or "").strip():
                continue  # the API does not take blank text back
            if kind == "tool_use":
                if limited:
                    continue
                calls.append(self._call(index, block))
            keep = KEEP.get(str(kind), tuple(block))
            content.append({key: block[key] for key in keep if block.get(key) is not None})
        if self._stop_reason == "tool_use" and not calls:
            raise CutError("the reply announced a tool call and held none")
        return content, tuple(calls), self._stop_reason

    def _call(self, index: int, block: dict[str, Any]) -> ToolCall:
        given, name, call_id = block.get("input"), block.get("name"), block.get("id")
        whole = isinstance(given, dict) and isinstance(name, str) and isinstance(call_id, str)
        if index not in self._closed or not whole:
            raise CutError("a tool call in the reply was malformed")
        return ToolCall(id=str(call_id), name=str(name), input=dict(given or {}))
