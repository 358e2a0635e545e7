"""From a memory to what the hot index and the warm store hold of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from pai import words
from pai.cards import fingerprint
from pai.question import traits
from pai.shapes import Collection, Memory
from pai.warm import Floats, Point

DENSE, WORDS = "dense", "words"
#: What a payload has beside the fields of a memory.
_BESIDE = frozenset({
    "tier", "utility_score", "support", "hash", "extracted_at", "updated_at",
    "stems", "asks", "tells_time",
})  # fmt: skip
#: What a payload leaves out: fields that say nothing.
_DEFAULTS = Memory(user_id="-", text="-").model_dump(
    mode="json", exclude={"id", "user_id", "text", "created_at"}
)


def said(memory: Memory) -> str:
    """The text that is embedded: who said it comes first, and of a learning when it applies."""
    return f"{memory.speaker}: {told(memory)}" if memory.speaker else told(memory)


def told(memory: Memory) -> str:
    """The text whose words count. Not the speaker: a question's names are compared with him."""
    return f"{memory.applies_when}\n{memory.text}" if memory.applies_when else memory.text


def point(
    memory: Memory, vector: Floats | None, *, model: str = "", card: Mapping[str, Any] | None = None
) -> Point:
    """With words always, with the dense vector when there is one."""
    stems = words.stems(told(memory))
    return Point(
        id=memory.id,
        payload=payload(memory, card, None if memory.applies_when else len(stems)),
        dense={} if vector is None else {DENSE: vector},
        sparse={WORDS: words.weigh(stems)},
        model=model if vector is not None else "",
    )


def payload(
    memory: Memory, card: Mapping[str, Any] | None, stems: int | None = None
) -> dict[str, Any]:
    """The memory with its times in UTC, the seed plan's fields by their names, and what its text
    is like, `stems` being how many it has if that is known.
    """
    like = traits(memory.text, stems)
    # leaving defaults out afterwards is twice as fast as exclude_defaults
    whole = memory.model_dump(mode="json")
    found = {
        name: value
        for name, value in whole.items()
        if name not in _DEFAULTS or value != _DEFAULTS[name]
    }
    found |= {
        "id": memory.id,
        "collection": memory.collection.value,
        "kind": memory.kind,
        "agent": memory.agent,
        "tainted": memory.tainted,
        "created_at": memory.created_at.astimezone(UTC).isoformat(),
        "hash": fingerprint(memory),
        "stems": like.stems,
        "asks": like.asks,
        "tells_time": like.tells_time,
    }
    if card is not None:
        found |= {
            "tier": card["tier"],
            "utility_score": round(card["utility"], 4),
            "support": card["support"],
        }
    if memory.collection is Collection.LEARNINGS:
        found["extracted_at"] = found["created_at"]
    if memory.collection is Collection.KNOWLEDGE:
        found["updated_at"] = found["created_at"]
    return found


def memory_of(found: Mapping[str, Any]) -> Memory:
    """The memory in a payload."""
    return Memory.model_validate(
        {name: value for name, value in found.items() if name not in _BESIDE}
    )
