"""Files that a person sent with a message, as the model is given them.

They lie under the state root by what is in them, `<user id>/<sha256>`, and never change. Orders
and journals carry references; the bytes are read when a request to the model is made.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from base.messages import Attached

#: What one image counts for at most, whatever its size; a page of a PDF likewise, with its text.
IMAGE_TOKENS = 1_600
PAGE_TOKENS = 3_000
#: What one request carries: the provider takes 32 MB, and base64 adds a third.
SENT_MAX_BYTES = 20_000_000
SENT_MAX = 20
CACHED_FILES = 24

_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_PATH = re.compile(r"[0-9a-f-]{36}/[0-9a-f]{64}")


def place(root: Path, path: str) -> Path:
    """Where a stored file lies. Raises ValueError for a path that we did not make."""
    if not _PATH.fullmatch(path):
        raise ValueError(f"{path!r} is no stored file")
    return root / path


def fitting(found: Sequence[Attached]) -> tuple[Attached, ...]:
    """The last ones that one request can carry, in order; the same bytes once."""
    kept: list[Attached] = []
    left_bytes = SENT_MAX_BYTES
    for one in reversed(found):
        if one.path in {known.path for known in kept}:
            continue
        if one.size_bytes > left_bytes or len(kept) == SENT_MAX:
            break
        left_bytes -= one.size_bytes
        kept.append(one)
    return tuple(reversed(kept))


def blocks(root: Path, found: Iterable[Attached]) -> list[dict[str, Any]]:
    """The files as blocks of a message, each after a line that names it."""
    made: list[dict[str, Any]] = []
    for one in found:
        made += _blocks(root, one)
    return made


def _blocks(root: Path, one: Attached) -> list[dict[str, Any]]:
    try:
        data = _read(str(place(root, one.path)))
    except (OSError, ValueError):
        return [_said(f"[attachment {one.name}: the file is no longer there]")]
    if one.kind == "text":
        text = data.decode("utf-8-sig", "replace")
        if not text.strip():
            return [_said(f"[attachment {one.name}: the file is empty]")]
        source = {"type": "text", "media_type": "text/plain", "data": text}
        return [{"type": "document", "source": source, "title": one.name}]
    source = {
        "type": "base64",
        "media_type": one.media_type,
        "data": base64.b64encode(data).decode(),
    }
    if one.kind == "pdf":
        return [{"type": "document", "source": source, "title": one.name}]
    return [_said(f"[attachment {one.name}]"), {"type": "image", "source": source}]


def weighed(messages: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The messages without the bytes of files, and what those count for in tokens."""
    tokens = 0
    bare: list[dict[str, Any]] = []
    for message in messages:
        content = message.get("content")
        if not isinstance(content, list):
            bare.append(message)
            continue
        kept = []
        for block in content:
            count = _tokens(block)
            tokens += count
            kept.append({"type": block["type"]} if count else block)
        bare.append({**message, "content": kept})
    return bare, tokens


def _tokens(block: dict[str, Any]) -> int:
    source = block.get("source") or {}
    if source.get("type") != "base64":
        return 0
    if block.get("type") == "image":
        return IMAGE_TOKENS
    return _pages(str(source.get("data") or "")) * PAGE_TOKENS


@lru_cache(maxsize=CACHED_FILES)
def _pages(data: str) -> int:
    """How many pages a PDF says it has, at least one; compressed ones do not say it openly."""
    raw = base64.b64decode(data)
    return max(1, len(_PAGE.findall(raw)), len(raw) // 200_000)


@lru_cache(maxsize=CACHED_FILES)
def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
