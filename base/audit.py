"""What is written down: one event of the audit log, in the seed plan's words.

Anybody makes an `AuditEvent` and publishes `message(event, source)` on `streams.AUDIT`; only the
supervisor's `audit_writer` writes the table. `details` never holds prompt text, file contents or
secrets: redact before you make the event.
"""

from __future__ import annotations

import ipaddress
import math
import uuid
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field, IPvAnyAddress, field_validator, model_validator

from base.messages import Message, Type, Wire

TEXT_MAX_CHARS = 2_000
DETAILS_MAX_CHARS = 8_000
DETAILS_MAX_ITEMS = 100
DETAILS_MAX_DEPTH = 6
#: Beyond it JSON readers disagree about integers.
INTEGER_MAX = 2**53
TARGET = "audit"

_LIMITS = {"actor_id": 100, "resource_path": TEXT_MAX_CHARS}

EventType = Literal["auth", "access", "action", "escalation", "error"]
ActorType = Literal["user", "agent", "system"]
ResourceType = Literal["file", "endpoint", "service", "command"]
Action = Literal["read", "write", "execute", "delete", "login", "logout", "escalate"]
OutcomeWord = Literal["success", "failure", "denied"]
Risk = Literal["low", "medium", "high", "critical"]


class AuditEvent(Wire):
    """One thing that happened. `id` makes it one row however often it is delivered.

    Text is made storable and clipped, so that no content makes an event unwritable: NUL and half
    surrogate pairs become U+FFFD, long text ends in "… [clipped, N characters]", numbers that
    JSON readers disagree about become text.
    """

    id: uuid.UUID = Field(default_factory=uuid.uuid4)
    timestamp: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    event_type: EventType
    actor_type: ActorType
    actor_id: str
    actor_ip: IPvAnyAddress | None = None
    resource_type: ResourceType | None = None
    resource_path: str | None = None
    action: Action
    outcome: OutcomeWord
    details: dict[str, Any] = Field(default_factory=dict)
    risk_level: Risk = "low"

    @model_validator(mode="before")
    @classmethod
    def _clipped(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {
            key: text(value, _LIMITS[key]) if key in _LIMITS and isinstance(value, str) else value
            for key, value in data.items()
        }

    @field_validator("actor_ip", mode="before")
    @classmethod
    def _address(cls, value: Any) -> Any:
        """What is no address (a socket's peer, a zone) is left out, or its zone is."""
        if not isinstance(value, str):
            return value
        try:
            return ipaddress.ip_address(value.partition("%")[0])
        except ValueError:
            return None

    @field_validator("details", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return details(value) if isinstance(value, dict) else value


def message(event: AuditEvent, source: str) -> Message:
    """The event as it travels on `streams.AUDIT`. Its id is the event's."""
    return Message(
        id=str(event.id),
        source=source,
        target=TARGET,
        type=Type.LEARN,
        payload=event.model_dump(mode="json"),
    )


def text(value: str, limit: int = TEXT_MAX_CHARS) -> str:
    """`value` as PostgreSQL can hold it, in at most `limit` characters."""
    kept = value if len(value) <= limit else value[:limit]
    kept = (
        kept.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )
    if len(value) <= limit:
        return kept
    mark = f"… [clipped, {len(value)} characters]"
    return kept[: max(0, limit - len(mark))] + mark


def details(value: dict[Any, Any]) -> dict[str, Any]:
    """`value` as JSON that PostgreSQL gives back exactly as it was, and of bounded length."""
    return _Budget(DETAILS_MAX_CHARS).mapping(value, 0)


class _Budget:
    """Characters that are left for one event's details."""

    def __init__(self, left_chars: int) -> None:
        self._left_chars = left_chars

    def mapping(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        most = _most(len(value))
        for index, (key, one) in enumerate(value.items()):
            if index >= most or self._left_chars <= 0:
                found["clipped"] = f"{len(value) - index} more"
                break
            found[self._text(str(key), 200)] = self._plain(one, depth + 1)
        return found

    def _plain(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value, TEXT_MAX_CHARS)
        if isinstance(value, int | float):
            self._left_chars -= 8
            return number(value)
        if depth > DETAILS_MAX_DEPTH:
            return "[clipped: too deep]"
        if isinstance(value, dict):
            return self.mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._listed(list(value), depth)
        return self._text(str(value), TEXT_MAX_CHARS)

    def _listed(self, value: list[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        most = _most(len(value))
        for index, one in enumerate(value):
            if index >= most or self._left_chars <= 0:
                return [*found, f"[clipped: {len(value) - index} more]"]
            found.append(self._plain(one, depth + 1))
        return found

    def _text(self, value: str, limit: int) -> str:
        kept = text(value, max(0, min(limit, self._left_chars)) or 40)
        self._left_chars -= len(kept) + 2
        return kept


def _most(count: int) -> int:
    """How many of `count` are kept, so that with the mark it is never more than the limit."""
    return count if count <= DETAILS_MAX_ITEMS else DETAILS_MAX_ITEMS - 1


def number(value: float) -> int | float | str:
    """A number that is the same after any trip through JSON and numeric, else its text."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return repr(value)
        if not value.is_integer():
            return float(value)
    if abs(value) > INTEGER_MAX:
        return text(f"{value:.17g}" if isinstance(value, float) else hex(value), 80)
    return int(value)
