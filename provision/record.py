"""What the broker keeps of what it does, on its own disk: nothing is lost when Redis is away, and
a start knows what the one before it left in the middle.

    journal.jsonl   a line when a verb begins to change something, one when it has ended
    audit/          an event a file, until Redis has it
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from base import log, streams
from base.audit import AuditEvent, message
from base.bus import Bus
from base.errors import BusError, ConflictError, StoreError
from base.plural import counted

NAME = "broker"
AGAIN_S = 1.0
#: With so many events waiting for Redis no order is taken any more.
WAITING_MAX = 10_000
#: So many interrupted verbs are told of.
INTERRUPTED_MAX = 20

logger = log.get(NAME)


class Journal:
    """Which verb is under way. One process holds it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal.jsonl"
        self.interrupted: list[dict[str, Any]] = []

    def open(self) -> list[dict[str, Any]]:
        """What the last process left in the middle, told only once; older ones are kept in
        `interrupted`. Raises StoreError when it cannot be read.
        """
        begun: dict[str, dict[str, Any]] = {}
        for line in self._lines():
            if "begun" in line:
                begun[line["begun"]] = line
            elif "told" in line:
                self.interrupted.append(line["told"])
            else:
                begun.pop(line.get("ended", ""), None)
        fresh = list(begun.values())
        self.interrupted = [*self.interrupted, *fresh][-INTERRUPTED_MAX:]
        beside = self._path.with_suffix(".new")
        beside.write_text("".join(_line({"told": one}) for one in self.interrupted))
        _synced(beside)
        beside.replace(self._path)
        _synced(self._path.parent)
        return fresh

    def begin(self, run: str, verb: str, about: str, who: str) -> None:
        """On the disk before it begins."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._append({"begun": run, "verb": verb, "about": about, "who": who, "at": at})

    def end(self, run: str) -> None:
        self._append({"ended": run})

    def _append(self, line: dict[str, Any]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as out:
                out.write(_line(line))
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise StoreError(f"the journal cannot be written: {error}") from error

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"the journal cannot be read: {error}") from error
        for line in text.splitlines():
            try:
                found = json.loads(line)
            except ValueError:  # the line that was being written when the power went
                logger.warning("journal line dropped", line=line[:100])
                continue
            if isinstance(found, dict):
                yield found


class Trail:
    """Audit events on their way to Redis. `run` for as long as the broker lives."""

    def __init__(self, folder: Path, bus: Bus) -> None:
        self._folder = folder / "audit"
        self._bus = bus
        self._news = asyncio.Event()
        self._number = 0
        self._waiting = 0

    def open(self) -> None:
        """Make the folder and count what was left in it."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for half in self._folder.glob("*.new"):
            half.unlink()
        left = self._left()
        self._waiting = len(left)
        self._number = int(left[-1].stem.partition("-")[0]) if left else 0
        self._news.set()

    def check(self) -> None:
        """Raises ConflictError when nothing more can be written down."""
        if self._waiting >= WAITING_MAX:
            raise ConflictError(
                f"{counted(self._waiting, 'event waits', 'events wait')} for Redis to be written "
                "down: nothing is done before"
            )

    async def before(self, event: AuditEvent) -> None:
        """Redis has it. Raises BusError: then what it tells of must not be done."""
        await self._bus.publish(streams.AUDIT, message(event, NAME))

    def after(self, event: AuditEvent) -> None:
        """On the disk, and on its way. Raises StoreError when the disk does not take it."""
        self._number += 1
        path = self._folder / f"{self._number:012d}-{event.id}.json"
        beside = path.with_suffix(".new")
        try:
            beside.write_text(event.model_dump_json(), encoding="utf-8")
            _synced(beside)
            beside.replace(path)
        except OSError as error:
            raise StoreError(f"the audit event cannot be kept: {error}") from error
        self._waiting += 1
        self._news.set()

    async def run(self) -> None:
        """Bring to Redis what waits, in order, however long it is away."""
        while True:
            await self._news.wait()
            self._news.clear()
            for path in self._left():
                await self._bring(path)

    async def flush(self) -> None:
        """What waits now, once: at the end."""
        for path in self._left():
            try:
                await self._once(path)
            except BusError as error:
                logger.warning("audit waits for the next start", error=str(error))
                return

    async def _bring(self, path: Path) -> None:
        while True:
            try:
                return await self._once(path)
            except BusError as error:
                logger.warning("audit waits for redis", error=str(error))
                await asyncio.sleep(AGAIN_S)

    async def _once(self, path: Path) -> None:
        try:
            event = AuditEvent.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return
        except ValidationError as error:
            logger.error("audit event cannot be read", path=str(path), error=str(error)[:200])
            path.rename(path.with_suffix(".bad"))
        else:
            await self._bus.publish(streams.AUDIT, message(event, NAME))
            path.unlink(missing_ok=True)
        self._waiting = max(0, self._waiting - 1)

    def _left(self) -> list[Path]:
        return sorted(self._folder.glob("*.json"))


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n"


def _synced(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
