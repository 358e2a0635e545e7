"""The record of changes to the sites: what, by whom, why, the difference, how it ended.

One file a change. `pending` is the change that is being made; it outlives a killed broker, so
that the next one knows what was not proved.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from base.errors import NotFoundError
from provision.disk import write
from provision.spec import Spec, dump, load

KEPT_MAX = 1_000
State = Literal["pending", "done", "rolled back"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """before, after: the domain's site, None where there was none. notes: what else is to be
    known, such as a site that was set aside. rollback_ms: from the decision to go back until
    nginx served the old configuration again; None where there was no way back to go.
    """

    id: str
    at: datetime
    verb: str
    domain: str
    who: str
    why: str
    before: Spec | None
    after: Spec | None
    old: str | None
    new: str
    diff: str
    state: State = "pending"
    notes: tuple[str, ...] = ()
    took_ms: int = 0
    rollback_ms: int | None = None


def new_id(at: datetime | None = None) -> str:
    """Sorts by time; also the name of a generation."""
    return f"{(at or datetime.now(UTC)):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"


class Changes:
    """The folder of the record."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "changes"
        self._pending = state / "pending.json"

    def begin(self, change: Change) -> None:
        write(self._pending, _json(change), mode=0o600)

    def pending(self) -> Change | None:
        return _read(self._pending) if self._pending.exists() else None

    def end(self, change: Change) -> Change:
        """Recorded first, then no longer pending: killed in between, it is only recorded."""
        write(self._folder / f"{change.id}.json", _json(change), mode=0o600)
        self._pending.unlink(missing_ok=True)
        for old in sorted(self._folder.glob("*.json"))[:-KEPT_MAX]:
            old.unlink()
        return change

    def recorded(self, change_id: str) -> bool:
        return (self._folder / f"{change_id}.json").exists()

    def all(self) -> Iterator[Change]:
        """The newest first."""
        for path in sorted(self._folder.glob("*.json"), reverse=True):
            yield _read(path)

    def one(self, change_id: str) -> Change:
        """Raises NotFoundError."""
        for change in self.all():
            if change.id == change_id:
                return change
        raise NotFoundError(f"there is no change {change_id!r}; nginx.history lists them")


def shown(change: Change) -> dict[str, Any]:
    """For people, programs and the record: JSON values."""
    found = {name: getattr(change, name) for name in Change.__dataclass_fields__}
    found["at"] = change.at.isoformat()
    for side in ("before", "after"):
        spec: Spec | None = found[side]
        found[side] = dump(spec) if spec is not None else None
    return found


def _json(change: Change) -> bytes:
    return json.dumps(shown(change), indent=1).encode()


def _read(path: Path) -> Change:
    raw = json.loads(path.read_text())
    raw["at"] = datetime.fromisoformat(raw["at"])
    raw["notes"] = tuple(raw["notes"])
    for side in ("before", "after"):
        raw[side] = load(raw[side]) if raw[side] is not None else None
    return Change(**raw)
