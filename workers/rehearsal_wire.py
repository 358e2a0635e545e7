"""The Messages API as the rehearsal model speaks it: refusing a bad request, counting tokens,
and a turn as a message or as the events of a stream.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from base import attachments
from workers.rehearsal_script import Call

CHARS_PER_TOKEN = 4
#: As the provider has it: shorter prefixes are not cached, and unused ones are forgotten.
CACHE_MIN_TOKENS = 1024
CACHE_TTL_S = 300.0
CACHE_PREFIXES = 4096
CACHE_LOOKBACK_BLOCKS = 20
CACHE_BREAKPOINTS = 4
#: The provider refuses a forced tool choice with these models.
NEVER_FORCED = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1")
PIECE_CHARS = 24
REQUEST_MAX_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What the model says. `usage` None leaves the counts out, as a broken provider would."""

    model: str
    lane: str
    say: str
    calls: tuple[Call, ...]
    stop_reason: str
    usage: dict[str, int] | None

    def blocks(self) -> list[dict[str, Any]]:
        """Tool ids carry the lane, so that a later request tells which turns were whose."""
        said = [{"type": "text", "text": self.say}] if self.say else []
        return said + [
            {
                "type": "tool_use",
                "id": f"toolu_{self.lane}_{uuid.uuid4().hex[:16]}",
                "name": call.tool,
                "input": call.input,
            }
            for call in self.calls
        ]


def message(turn: Turn) -> dict[str, Any]:
    """The whole reply, as without streaming."""
    whole = _shell(turn) | {"content": turn.blocks(), "stop_reason": turn.stop_reason}
    return whole | ({"usage": turn.usage} if turn.usage is not None else {})


def events(turn: Turn) -> Iterator[tuple[str, dict[str, Any]]]:
    """The reply as a stream's events. A turn that ends at `max_tokens` stops in mid-call."""
    start = _shell(turn) | {"content": [], "stop_reason": None}
    if turn.usage is not None:
        start["usage"] = turn.usage | {"output_tokens": 1}
    yield "message_start", {"message": start}
    for index, block in enumerate(turn.blocks()):
        if block["type"] == "text":
            yield "content_block_start", {"index": index, "content_block": block | {"text": ""}}
            deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
        else:
            yield "content_block_start", {"index": index, "content_block": block | {"input": {}}}
            written = json.dumps(block["input"], ensure_ascii=False)
            if turn.stop_reason == "max_tokens":
                written = written[: len(written) // 2]
            deltas = [
                {"type": "input_json_delta", "partial_json": piece} for piece in _pieces(written)
            ]
        for delta in deltas:
            yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    end: dict[str, Any] = {"delta": {"stop_reason": turn.stop_reason, "stop_sequence": None}}
    if turn.usage is not None:
        end["usage"] = {"output_tokens": turn.usage["output_tokens"]}
    yield "message_delta", end
    yield "message_stop", {}


def encode(name: str, data: dict[str, Any]) -> bytes:
    """One event as it goes over the wire."""
    body = json.dumps({"type": name, **data}, ensure_ascii=False)
    return f"event: {name}\ndata: {body}\n\n".encode()


def tokens(value: Any) -> int:
    """A plausible count: four characters a token."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return -(-len(text) // CHARS_PER_TOKEN)


class Cache:
    """Which prefixes were marked for caching lately, so that cached shares are counted truly.

    Bounded: the least recently used prefix leaves, and one unused for five minutes is gone.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def count(self, body: dict[str, Any]) -> dict[str, int]:
        """The input counts of a request, as `usage` has them; remembers its prefixes."""
        digest = hashlib.sha256(str(body["model"]).encode())
        total, marks, prefixes = 0, [], []
        for block in _in_order(body):
            bare = {key: value for key, value in block.items() if key != "cache_control"}
            digest.update(json.dumps(bare, sort_keys=True).encode())
            (light,), files_tokens = attachments.weighed([{"content": [bare]}])
            total += tokens(light["content"][0]) + files_tokens
            prefixes.append((digest.digest(), total))
            if block.get("cache_control"):
                marks.append(len(prefixes) - 1)
        now = time.monotonic()
        read = max((self._longest(prefixes, mark, now) for mark in marks), default=0)
        cached = [prefixes[mark] for mark in marks if prefixes[mark][1] >= CACHE_MIN_TOKENS]
        for key, _ in cached:
            self._seen[key] = now
            self._seen.move_to_end(key)
        while len(self._seen) > CACHE_PREFIXES:
            self._seen.popitem(last=False)
        written = max((size for _, size in cached), default=read) - read
        return {
            "input_tokens": total - read - written,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
        }

    def _longest(self, prefixes: list[tuple[bytes, int]], mark: int, now: float) -> int:
        """Tokens of the longest known prefix within the provider's look-back from `mark`."""
        for key, size in reversed(prefixes[max(0, mark - CACHE_LOOKBACK_BLOCKS) : mark + 1]):
            if now - self._seen.get(key, -CACHE_TTL_S) < CACHE_TTL_S:
                self._seen[key] = now
                return size
        return 0


def refusal(body: Any) -> str | None:
    """Why the provider would refuse this request with status 400; None when it would not."""
    if not isinstance(body, dict):
        return "the body is not a JSON object"
    for key, kind in (("model", str), ("max_tokens", int), ("messages", list)):
        if not isinstance(body.get(key), kind):
            return f"{key}: field required"
    if not body["messages"]:
        return "messages: at least one message is required"
    offered = {tool.get("name") for tool in body.get("tools") or []}
    choice = body.get("tool_choice") or {}
    if choice.get("type") == "tool" and choice.get("name") not in offered:
        return f"tool_choice: tool {choice.get('name')!r} not found in tools"
    if choice.get("type") in {"tool", "any"} and str(body["model"]).startswith(NEVER_FORCED):
        return 'tool_choice: type "tool" and "any" are not supported for this model.'
    marked = sum(bool(block.get("cache_control")) for block in _in_order(body))
    if marked > CACHE_BREAKPOINTS:
        return f"a maximum of {CACHE_BREAKPOINTS} blocks with cache_control, found {marked}"
    open_calls: set[str] = set()
    for number, turn in enumerate(body["messages"]):
        if turn.get("role") not in {"user", "assistant"}:
            return f"messages.{number}.role: must be user or assistant"
        parts = blocks(turn)
        answered = {str(b.get("tool_use_id")) for b in parts if b.get("type") == "tool_result"}
        if missing := open_calls - answered:
            return f"messages.{number}: tool_use without tool_result: {', '.join(sorted(missing))}"
        if strange := answered - open_calls:
            return f"messages.{number}: tool_result without tool_use: {', '.join(sorted(strange))}"
        if any(b.get("type") == "text" and not str(b.get("text")).strip() for b in parts):
            return f"messages.{number}: text content blocks must contain non-whitespace text"
        if not parts:
            return f"messages.{number}: content must not be empty"
        open_calls = {str(b["id"]) for b in parts if b.get("type") == "tool_use"}
    if open_calls:
        return f"tool_use without tool_result: {', '.join(sorted(open_calls))}"
    return None


def blocks(turn: dict[str, Any]) -> list[dict[str, Any]]:
    """A turn's content as blocks."""
    content = turn.get("content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def files(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The images and documents that came with the request, each with what proves its bytes."""
    found = []
    for turn in body["messages"]:
        for block in blocks(turn):
            source = block.get("source")
            if block.get("type") not in {"image", "document"} or not isinstance(source, dict):
                continue
            plain = source.get("type") == "text"
            data = str(source.get("data") or "")
            raw = data.encode() if plain else base64.b64decode(data)
            found.append(
                {
                    "type": block["type"],
                    "name": block.get("title") or "",
                    "media_type": source.get("media_type"),
                    "size_bytes": len(raw),
                    "sha256": hashlib.sha256(raw).hexdigest(),
                }
            )
    return found


def system_text(body: dict[str, Any]) -> str:
    system = body.get("system") or ""
    return system if isinstance(system, str) else "\n".join(b.get("text", "") for b in system)


def _in_order(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All blocks in the order in which the provider caches them."""
    yield from body.get("tools") or []
    system = body.get("system") or []
    yield from [{"type": "text", "text": system}] if isinstance(system, str) else system
    if body.get("tool_choice"):
        yield {"tool_choice": body["tool_choice"]}
    for turn in body["messages"]:
        for block in blocks(turn):
            yield {"role": turn.get("role"), **block}


def _pieces(text: str) -> list[str]:
    return [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)]


def _shell(turn: Turn) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": turn.model,
        "stop_sequence": None,
    }
