"""What filters and ranking need of a memory, small enough to have all memories' at hand.

Made of a payload, wherever that is kept; what a payload does not have is as if it said nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pai.question import Traits, traits

#: The fields that stand here as they do in the payload, so that a filter can be checked on them.
CHECKED = frozenset({"user_id", "agent", "kind", "conversation_id", "tainted"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """series: its conversation or document; seq: its place there. at_s: when it was said, in Unix
    seconds.
    """

    user_id: Any
    agent: Any
    kind: Any
    conversation_id: Any
    tainted: Any
    speaker: str
    series: str | None
    seq: int | None
    at_s: float
    traits: Traits

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Brief:
        at = payload.get("created_at")
        conversation_id = _one(payload.get("conversation_id"))
        return cls(
            user_id=_one(payload.get("user_id")),
            agent=_one(payload.get("agent")),
            kind=_one(payload.get("kind")),
            conversation_id=conversation_id,
            tainted=payload.get("tainted"),
            speaker=_one(payload.get("speaker", "")),
            series=conversation_id or _one(payload.get("file")) or None,
            seq=payload.get("seq"),
            at_s=datetime.fromisoformat(at).timestamp() if at else 0.0,
            traits=_traits(payload),
        )

    @property
    def place(self) -> tuple[str, int] | None:
        """(series, number in it), None for what stands alone."""
        return (self.series, self.seq) if self.series and self.seq is not None else None

    def value(self, key: str) -> Any:
        """Of one of `CHECKED`."""
        return getattr(self, key)


def _traits(payload: Mapping[str, Any]) -> Traits:
    """As stored with it; of what was stored when they were not yet, those of its text."""
    stems = payload.get("stems")
    if stems is None:
        return traits(str(payload.get("text", "")))
    return Traits.of(int(stems), bool(payload["asks"]), bool(payload["tells_time"]))


def _one(value: Any) -> Any:
    """Equal strings as one: thousands of memories share them."""
    return sys.intern(value) if type(value) is str else value
