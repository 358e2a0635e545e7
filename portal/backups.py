"""Backups for admins: what there is, one made now, checked, restored.

On the appliance root does it, by the broker's verbs. In local mode the command does, as a process
of its own; only a restore is left to the person, for it stops the portal. What became of a restore
is read from `restore.json` of the home: it exchanges the portal and its database.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, Field

from base.backup import create as making
from base.backup import plan as planning
from base.backup import record, rules
from base.backup.command import run
from base.backup.record import Last, Proof, Restore
from base.backup.rules import Keep
from base.backup.schedule import Timer
from base.errors import (
    BackupError,
    ConflictError,
    InputError,
    LocalModeError,
    NotFoundError,
    NotRunningError,
    SettingsError,
)
from base.messages import Wire
from base.verbs import BackupVerify, Nothing
from portal import broker
from portal.auth import Caller, admin_only
from portal.desk import Desk
from portal.shapes import PARTS, SERVER, RestoreBackup
from portal.trail import event
from portal.underway import Kind, Tell, Work

ROOT = Path(__file__).resolve().parent.parent
#: As long as the broker gives its verbs, and a turn before.
WORK_S = 7 * 3600.0
RESTORE_S = 4 * 3600.0


class Snapshot(Wire):
    """version: of the product that made it. size_bytes: what it holds, None: not known. counts:
    rows of its database by name; empty: an older version made it.
    """

    id: str
    at: AwareDatetime
    host: str
    version: str
    size_bytes: int | None = None
    counts: dict[str, int] = Field(default_factory=dict)


class Progress(Wire):
    """What is done now and what became of the last: work: began in this portal since it started;
    last: the last backup; verified, drilled: the last check and drill; restored: the last restore,
    without `ended_at` while it goes on, or after it was cut off.
    """

    work: Work | None
    last: Last | None
    verified: Proof | None
    drilled: Proof | None
    restored: Restore | None


class Backups(Wire):
    """place: where they go; key: the file that opens them, of which a copy belongs elsewhere.
    keep: how many stay; timers: when they are made and checked by themselves, in local mode never.
    busy: a backup or restore is at work, whoever began it. snapshots: newest first.
    """

    local: bool
    place: str
    key: str
    keep: Keep
    workspaces: bool
    timers: list[Timer]
    busy: bool
    snapshots: list[Snapshot]
    progress: Progress


class Planned(Wire):
    """What a restore would do, step by step; nothing was. command: what does it where the portal
    cannot, in local mode.
    """

    snapshot: str
    plan: list[str]
    command: str | None


async def backups(desk: Desk, caller: Caller) -> Backups:
    """All of them, from the repository itself. Raises ForbiddenError, ConflictError for what has to
    be set up first, NotRunningError when the repository cannot be read.
    """
    now = await progress(desk, caller)  # asked after, it may tell of an end that the list misses
    if desk.settings.broker is None:
        told = await _local(desk)
    else:
        told = (await broker.ask(desk, caller, "backup.list", Nothing())).result
    found = [Snapshot.model_validate(one) for one in told.pop("snapshots")]
    return Backups.model_validate(
        {
            **told,
            "local": desk.settings.broker is None,
            "snapshots": sorted(found, key=lambda one: one.at, reverse=True),
            "progress": now,
        }
    )


async def progress(desk: Desk, caller: Caller) -> Progress:
    """Quick: files of the home alone."""
    admin_only(caller)
    return await asyncio.to_thread(_progress, desk)


async def create(desk: Desk, caller: Caller, *, key: str | None = None) -> Work:
    """Have one made. Raises ConflictError while something goes on."""
    admin_only(caller)

    async def do() -> dict[str, Any]:
        async def work(tell: Tell) -> None:
            if desk.settings.broker is None:
                return await _command(desk, caller, tell, "create")
            await broker.ask(desk, caller, "backup.run", Nothing(), tell=tell, limit_s=WORK_S)
            return None

        return _begin(desk, "backup", work)

    return Work.model_validate(await desk.once(caller, key, {"backup": "create"}, do))


async def verify(desk: Desk, caller: Caller, *, quick: bool) -> Work:
    """Have the repository checked; `quick`: the lists, not every byte."""
    admin_only(caller)
    asked = BackupVerify(whole=not quick)

    async def work(tell: Tell) -> None:
        if desk.settings.broker is None:
            await tell("reading the lists" if quick else "reading every byte")
            return await _command(desk, caller, tell, "verify", *(["--quick"] if quick else []))
        await broker.ask(desk, caller, "backup.verify", asked, tell=tell, limit_s=WORK_S)
        return None

    return Work.model_validate(_begin(desk, "verify", work))


async def planned(desk: Desk, caller: Caller, snapshot: str, parts: list[str]) -> Planned:
    """What restoring it would do. Raises NotFoundError, ConflictError for what cannot be."""
    admin_only(caller)
    if desk.settings.broker is None:
        try:
            steps = (await planning.plan(desk.settings, snapshot, parts)).steps
        except SettingsError as error:
            raise ConflictError(str(error)) from error
        except BackupError as error:
            raise NotRunningError(str(error)) from error
        return Planned(snapshot=snapshot, plan=list(steps), command=command(desk, snapshot, parts))
    asked = broker.shaped("backup.restore", {"snapshot": snapshot, "parts": parts})
    said = await broker.ask(desk, caller, "backup.restore", asked, dry_run=True)
    return Planned(snapshot=snapshot, plan=list(said.plan), command=None)


async def restore(desk: Desk, caller: Caller, snapshot: str, body: RestoreBackup) -> Work:
    """Have it put in place, which stops this portal and starts it again. Raises InputError unless
    `confirm` names the snapshot, LocalModeError with the command in local mode.
    """
    admin_only(caller)
    if body.confirm != snapshot:
        raise InputError(f"confirm: write {snapshot}, the snapshot that takes the place of all")
    if desk.settings.broker is None:
        raise LocalModeError(
            "a restore stops the portal, so in local mode it cannot be done from here; in a "
            f"terminal: {command(desk, snapshot, list(body.parts))}"
        )
    await planned(desk, caller, snapshot, list(body.parts))
    asked = broker.shaped("backup.restore", {"snapshot": snapshot, "parts": body.parts})

    async def work(tell: Tell) -> None:
        await broker.ask(desk, caller, "backup.restore", asked, tell=tell, limit_s=RESTORE_S)

    return Work.model_validate(_begin(desk, "restore", work, snapshot))


def command(desk: Desk, snapshot: str, parts: list[str]) -> str:
    """The line for a terminal."""
    home = desk.settings.home
    before = "" if home == Path("~/.ai-infra").expanduser() else f"AI_INFRA_HOME={home} "
    some = set(PARTS) - set(SERVER) - set(parts)
    only = "".join(f" --part {one}" for one in parts) if some else ""
    return f"{before}ai-infra backup restore {snapshot}{only}"


# Inside ----------------------------------------------------------------------------------------


def _begin(desk: Desk, kind: Kind, work: Any, about: str | None = None) -> dict[str, Any]:
    return desk.underway.begin(kind, work, about).model_dump(mode="json")


def _progress(desk: Desk) -> Progress:
    proofs = record.proofs(desk.settings)
    return Progress(
        work=desk.underway.now,
        last=record.last(desk.settings),
        verified=proofs.verified,
        drilled=proofs.drilled,
        restored=record.restored(desk.settings),
    )


async def _local(desk: Desk) -> dict[str, Any]:
    """As the verb backup.list tells it. A repository that is not there yet has no snapshots."""
    settings = desk.settings
    try:
        found = rules.load(settings)
        known = await making.snapshots(settings)
    except NotFoundError:
        known = []
    except SettingsError as error:
        raise ConflictError("; ".join(error.faults)) from error
    except BackupError as error:
        raise NotRunningError(str(error)) from error
    return {
        "snapshots": [
            {
                **asdict(one),
                "at": one.at.astimezone(UTC),
            }
            for one in known
        ],
        "place": found.place(settings),
        "key": str(found.key(settings)),
        "keep": found.keep.model_dump(),
        "workspaces": found.workspaces,
        "timers": [],
        "busy": making.busy(settings),
    }


async def _command(desk: Desk, caller: Caller, tell: Tell, *words: str) -> None:
    """`ai-infra backup …` as a process of its own: a long one must not hold the portal up. Its
    steps are lines of its standard error, each with the time in front.
    """

    async def heard(line: str) -> None:
        stamp, gap, step = line.partition("  ")
        if gap and len(stamp) == len("00:00:00"):
            await tell(step)

    line = [sys.executable, "-m", "portal.cli", "backup", *words]
    own: Mapping[str, str] = {**os.environ, "AI_INFRA_HOME": str(desk.settings.home)}
    what = event("action", "execute", f"backup/{words[0]}", caller=caller, risk="medium")
    async with desk.written(what):
        done = await run(line, deadline_s=WORK_S, environment=own, cwd=ROOT, heard=heard)
        if done.code:
            raise BackupError(done.words.removeprefix("ai-infra: "))
