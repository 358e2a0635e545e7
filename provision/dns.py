"""DNS records at Cloudflare: set, removed and undone, each change kept before it is made.

The history is one file of JSON lines in the broker's state: what was there before, what after. A
change whose end is not in it ended in the middle: nobody knows which of the two holds.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel

from base.errors import ConflictError, InputError, NotFoundError
from base.verbs import By
from base.verbs_outside import DnsRemove, DnsSet, record_name
from provision.box import Box
from provision.cloudflare import PAGE, Cloudflare, Zone, opened
from provision.dns_records import Change, Record, alike, difference, read, remaining, wanted
from provision.verb import Request, Tell, Verb


class Entry(BaseModel, frozen=True):
    """One line. state: begun, then done or refused; undoes: the change that it took back."""

    id: str
    at: AwareDatetime
    state: Literal["begun", "done", "refused"] = "begun"
    zone: str
    name: str
    type: str
    before: tuple[Record, ...]
    after: tuple[Record, ...]
    by: str
    undoes: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A change that is ready to be made. undoes: the change that it takes back."""

    zone: Zone
    name: str
    type: str
    before: tuple[Record, ...]
    after: tuple[Record, ...]
    undoes: str | None = None

    @property
    def change(self) -> Change:
        return difference(self.before, self.after)


class Dns:
    """Reads and changes through `cloud`; the history is the box's."""

    def __init__(self, box: Box, cloud: Cloudflare) -> None:
        self._box = box
        self._cloud = cloud

    async def records(
        self, zone: Zone, *, type: str | None = None, name: str | None = None
    ) -> list[Record]:
        narrowed: dict[str, Any] = {"type": type} if type else {}
        narrowed |= {"name": {"exact": name}} if name else {}
        found = await self._cloud.pages(
            lambda: self._cloud.client.dns.records.list(zone_id=zone.id, per_page=PAGE, **narrowed),
            f"records of {zone.name}",
        )
        return [read(one) for one in found]

    async def setting(self, asked: DnsSet) -> Intent:
        """What would be done. Raises ConflictError when another record stands against it."""
        zone = await self._cloud.zone(asked.zone)
        name = record_name(asked.name, asked.zone)
        have = await self.records(zone, name=name)
        want = wanted(asked, have)
        return _intent(zone, name, asked.type, have, want)

    async def removing(self, asked: DnsRemove) -> Intent:
        zone = await self._cloud.zone(asked.zone)
        name = record_name(asked.name, asked.zone)
        have = await self.records(zone, name=name, type=asked.type)
        return _intent(zone, name, asked.type, have, remaining(asked, have))

    async def undoing(self, change: str | None) -> Intent:
        """Raises NotFoundError for no such change, ConflictError when the records are no longer
        what it made of them.
        """
        entry = self._to_undo(change)
        zone = await self._cloud.zone(entry.zone)
        have = await self.records(zone, name=entry.name, type=entry.type)
        if alike(have, entry.before):
            raise ConflictError(f"{entry.id}: the records are as they were before it already")
        if not alike(have, entry.after):
            now = "; ".join(map(str, have)) or "none"
            raise ConflictError(
                f"{entry.type} {entry.name} was changed since {entry.id} (now: {now}); set it by "
                "hand: " + ("; ".join(map(str, entry.before)) or "none") + " was there before"
            )
        made = _intent(zone, entry.name, entry.type, have, entry.before)
        return Intent(**{**_fields(made), "undoes": entry.id})

    async def make(self, intent: Intent, by: By) -> Entry | None:
        """Carry it out, all or nothing. None: there was nothing to do."""
        change = intent.change
        if not change:
            return None
        who = by.agent or by.user_id or by.role
        entry = Entry(
            id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
            at=datetime.now(UTC),
            zone=intent.zone.name,
            name=intent.name,
            type=intent.type,
            before=intent.before,
            after=intent.after,
            by=who,
            undoes=intent.undoes,
        )
        self._keep(entry)
        try:
            await self._cloud.ask(
                lambda: self._cloud.client.dns.records.batch(
                    zone_id=intent.zone.id,
                    deletes=[{"id": one.id} for one in change.deletes],
                    patches=[{"id": old.id, **_sent(new)} for old, new in change.patches],
                    posts=[_sent(one) for one in change.posts],
                ),
                f"{intent.type} {intent.name}",
                again=False,
            )
        except InputError:
            self._keep(entry.model_copy(update={"state": "refused"}))
            raise
        done = entry.model_copy(update={"state": "done"})
        self._keep(done)
        return done

    def _to_undo(self, change: str | None) -> Entry:
        all_of_them = history(self._box, None)
        undone = {one.undoes for one in all_of_them if one.state == "done"}
        for entry in all_of_them:
            if change is None and (entry.undoes or entry.id in undone):
                continue
            if change in {None, entry.id} and entry.state != "refused":
                return entry
        raise NotFoundError(
            f"no change {change} of a record" if change else "no change of a record to be undone"
        )

    def _keep(self, entry: Entry) -> None:
        path = self._box.state / "dns" / "history.jsonl"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(entry.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())


def history(box: Box, zone: str | None) -> list[Entry]:
    """Newest first; each change once, with its last state."""
    try:
        lines = (box.state / "dns" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found: dict[str, Entry] = {}
    for line in lines:
        try:
            entry = Entry.model_validate_json(line)
        except ValueError:  # the last line of a crash
            continue
        found[entry.id] = entry
    return [one for one in reversed(found.values()) if zone in {None, one.zone}]


def _intent(
    zone: Zone, name: str, kind: str, have: Sequence[Record], want: Sequence[Record]
) -> Intent:
    before = tuple(record for record in have if record.type == kind)
    return Intent(zone=zone, name=name, type=kind, before=before, after=tuple(want))


def _fields(intent: Intent) -> dict[str, Any]:
    return {name: getattr(intent, name) for name in Intent.__dataclass_fields__}


def _sent(record: Record) -> dict[str, Any]:
    """The record as Cloudflare takes it."""
    content = record.content
    if record.type == "TXT" and not content.startswith('"'):
        escaped = content.replace("\\", "\\\\").replace('"', '\\"')
        content = " ".join(f'"{escaped[at : at + 250]}"' for at in range(0, len(escaped), 250))
    sent = {
        "type": record.type,
        "name": record.name,
        "content": content,
        "ttl": record.ttl_s,
        "comment": record.comment,
        "priority": record.priority,
        "proxied": record.proxied if record.type in {"A", "AAAA", "CNAME"} else None,
    }
    return {key: value for key, value in sent.items() if value is not None}


def shown(record: Record) -> dict[str, Any]:
    return asdict(record)


def steps(intent: Intent) -> list[str]:
    return intent.change.words() or [f"nothing: {intent.type} {intent.name} is so already"]


def answer(intent: Intent, entry: Entry | None) -> dict[str, Any]:
    """change: what `dns.undo` takes back; None: nothing was to be done."""
    return {
        "zone": intent.zone.name,
        "change": entry.id if entry else None,
        "steps": steps(intent),
        "records": [str(record) for record in intent.after],
    }


def changing(
    name: str, request: type[Request], intend: Callable[[Dns, Request], Awaitable[Intent]]
) -> Verb[Request]:
    """The verb that makes the change which `intend` finds is to be made."""

    async def plan(asked: Request, box: Box) -> list[str]:
        async with opened(box) as cloud:
            return steps(await intend(Dns(box, cloud), asked))

    async def run(asked: Request, box: Box, by: By, tell: Tell) -> dict[str, Any]:
        async with opened(box, tell) as cloud:
            dns = Dns(box, cloud)
            intent = await intend(dns, asked)
            for step in steps(intent):
                await tell(step)
            return answer(intent, await dns.make(intent, by))

    return Verb(name=name, request=request, approval="admin", plan=plan, run=run)
