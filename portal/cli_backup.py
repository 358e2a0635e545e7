"""`ai-infra backup`: make, list, check and restore backups, and prove that they can be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from base import log
from base.backup import create as making
from base.backup import plan as planning
from base.backup import restore as restoring
from base.errors import AIError, InputError, NotFoundError
from base.plural import counted
from base.terminal import neutral
from portal.cli_client import EXIT_FAILED, EXIT_USAGE, settings, show, stop
from portal.cli_domains import planned

if TYPE_CHECKING:
    from base.settings import Settings
    from base.verbs import Ask

app = typer.Typer(
    no_args_is_help=True, help="Backups: create, list, verify, restore, drill. See backup.toml."
)
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
VERB_S = 6 * 3600.0
T = TypeVar("T")
Say = Callable[[str], Awaitable[None]]


@app.command()
def create(as_json: AsJson = False) -> None:
    """Back everything up now. Safe while the agents work."""
    config = settings()
    if _by_broker(config):
        from base.verbs import Nothing

        _verb(config, "backup.run", Nothing(), as_json)
        return
    made = _done(making.create(config, _say(as_json)))
    told = {
        "snapshot": made.snapshot,
        "repository": made.place,
        "took_s": made.took_s,
        "key": str(made.key),
        "counts": made.manifest.counts,
        "vectors": made.manifest.vectors,
        "notes": list(made.manifest.notes),
    }
    if as_json:
        show(told, True)
        return
    typer.echo(f"backup {made.snapshot} in {made.place}, {made.took_s:g} s")
    for note in made.manifest.notes:
        typer.echo(f"note: {neutral(note)}")
    if made.first:
        typer.echo(f"KEEP A COPY of {made.key} somewhere else: without it no backup can be read")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """What there is, oldest first."""
    config = settings()
    if _by_broker(config):
        from base.verbs import Nothing

        _verb(config, "backup.list", Nothing(), as_json)
        return
    try:
        found = asyncio.run(making.snapshots(config))
    except NotFoundError:
        found = []
    except AIError as error:
        stop(str(error), EXIT_FAILED)
    rows = [
        {
            **asdict(one),
            "at": one.at.astimezone(UTC),
            "held": planning.held(one.counts),
        }
        for one in found
    ]
    columns = (
        ("id", "ID"), ("at", "MADE"), ("host", "ON"), ("version", "VERSION"),
        ("size_bytes", "BYTES"), ("held", "HOLDS"),
    )  # fmt: skip
    show(rows, as_json, columns)


@app.command()
def verify(
    quick: Annotated[bool, typer.Option("--quick", help="The lists only, not every byte.")] = False,
    as_json: AsJson = False,
) -> None:
    """Whether the repository is sound. Exit 1 names what is damaged."""
    config = settings()
    if _by_broker(config):
        from base.verbs import BackupVerify

        _verb(config, "backup.verify", BackupVerify(whole=not quick), as_json)
        return
    newest = _done(making.verify(config, whole=not quick))
    told = {"ok": True, "newest": newest, "whole": not quick}
    show(told, True) if as_json else typer.echo(f"sound; the newest is {newest}")


@app.command()
def restore(
    snapshot: Annotated[str, typer.Argument(help="Its id; see: ai-infra backup list.")] = "latest",
    part: Annotated[
        list[str] | None,
        typer.Option(help=f"Only this: {', '.join(restoring.PARTS)}; may be given more than once."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Start it afterwards.")] = True,
    undo: Annotated[
        bool, typer.Option("--undo", help="Put back what a restore that was cut off moved.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of what is there, which is kept aside. Running tasks stop."""
    config = settings()
    parts = tuple(part or restoring.PARTS)
    if unknown := [one for one in parts if one not in restoring.PARTS]:
        stop(f"no part {unknown[0]!r}; there are: {', '.join(restoring.PARTS)}", EXIT_USAGE)
    if undo:
        _root(config)
        said = _done(restoring.undo(config, _say(as_json)))
        typer.echo("put back as it was" if said else "no restore was cut off here")
        return None
    if dry_run and not _by_broker(config):
        steps = _done(planning.plan(config, snapshot, parts)).steps
        return planned({"plan": list(steps)}, as_json)
    if not yes and not dry_run:
        typer.confirm(
            f"Everything is stopped, and {', '.join(parts)} of {config.home} become what "
            f"{snapshot} says. Go on?",
            abort=True,
        )
    if _by_broker(config):
        from base.verbs import BackupRestore

        asked = BackupRestore.model_validate({"snapshot": snapshot, "parts": parts})
        return _verb(config, "backup.restore", asked, as_json, dry_run=dry_run)
    if config.broker is None:
        config.prepare()
    done = _done(
        restoring.restore(
            config,
            _say(as_json),
            snapshot=snapshot,
            parts=parts,
            start=None if start else False,
        )
    )
    _done(_written(config, done))
    told = {
        "snapshot": done.snapshot,
        "of": done.manifest.at.isoformat(),
        "parts": list(done.parts),
        "aside": str(done.aside),
        "database_aside": done.database_aside,
        "counts": done.manifest.counts,
        "notes": list(done.notes),
        "took_s": done.took_s,
    }
    if as_json:
        show(told, True)
        return None
    typer.echo(
        f"restored {done.snapshot} of {done.manifest.at:%Y-%m-%d %H:%M} UTC, {done.took_s:g} s"
    )
    typer.echo(f"what was there before: {done.aside}")
    if done.database_aside:
        typer.echo(f"its database: {done.database_aside}")
    for note in done.notes:
        typer.echo(f"note: {neutral(note)}")
    return None


@app.command()
def drill(
    snapshot: Annotated[str, typer.Argument(help="Its id.")] = "latest", as_json: AsJson = False
) -> None:
    """Restore into an installation of its own, do a task there, remove it. Exit 1: it failed."""
    from portal import drill as drilling

    config = settings()
    _root(config)
    done = _done(drilling.drill(config, _say(as_json), snapshot))
    if as_json:
        show(done.model_dump(mode="json"), True)
    else:
        word = "works" if done.ok else f"FAILED: {done.problem}"
        typer.echo(
            f"{done.snapshot} {word}; ready after {done.ready_s:g} s, {done.took_s:g} s in all"
        )
        typer.echo(
            f"task {done.task}; {counted(done.memories, 'memory', 'memories')}, "
            f"found {done.recalled} of {done.asked}"
            + (f"; {counted(done.sites, 'site')}" if done.sites else "")
        )
    if not done.ok:
        raise typer.Exit(EXIT_FAILED)


# Inside ----------------------------------------------------------------------------------------


def _by_broker(config: Settings) -> bool:
    """On the appliance root does it, and others ask the root broker to."""
    return config.broker is not None and os.geteuid() != 0


def _root(config: Settings) -> None:
    if _by_broker(config):
        stop("on the appliance this is root's: sudo ai-infra backup …", EXIT_FAILED)


def _verb(
    config: Settings, verb: str, request: Ask, as_json: bool, *, dry_run: bool = False
) -> None:
    from base import broker
    from base.deadline import Deadline
    from base.verbs import By

    async def asked() -> Any:
        return await broker.call(
            config.broker,
            verb,
            request,
            by=By(role="admin"),
            dry_run=dry_run,
            deadline=Deadline.after(VERB_S),
            tell=_say(as_json),
        )

    said = _done(asked())
    if dry_run:
        return planned({"plan": list(said.plan)}, as_json)
    return (
        show(said.result, True)
        if as_json
        else typer.echo(
            neutral("\n".join(f"{name}: {value}" for name, value in said.result.items()))
        )
    )


async def _written(config: Settings, done: restoring.Restored) -> None:
    """A row of the audit log, for when the supervisor runs; without Redis it is left out."""
    from base import streams
    from base.audit import AuditEvent, message
    from base.bus import Bus

    if config.redis_url is None and not config.redis_socket.exists():
        return
    event = AuditEvent(
        event_type="action",
        actor_type="user",
        actor_id="local",
        resource_type="service",
        resource_path=f"backup/{done.snapshot}",
        action="write",
        outcome="success",
        details={"parts": list(done.parts), "of": done.manifest.at.isoformat()},
        risk_level="critical",
    )
    bus = await Bus.open(config.redis, "backup")
    try:
        await bus.publish(streams.AUDIT, message(event, "backup"))
    finally:
        await bus.close()


def _say(as_json: bool) -> Say:
    async def say(text: str) -> None:
        stamp = f"{datetime.now(UTC):%H:%M:%S}"
        typer.echo(neutral(f"{stamp}  {text}"), err=True) if not as_json else None

    return say


def _done(work: Coroutine[Any, Any, T]) -> T:
    log.start("backup", None, "critical")  # each fault is told once, by `stop`
    try:
        return asyncio.run(work)
    except InputError as error:
        stop(str(error), EXIT_USAGE)
    except AIError as error:
        stop(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
