"""`ai-infra memory import|export`: a PAI folder in and out, without loss."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from base import streams
from base.bus import Bus
from base.errors import AIError
from base.plural import counted
from base.settings import Settings
from base.terminal import neutral
from pai import passport, telos
from pai.client import MemoryClient, told
from pai.shapes import Collection, Memory, Signal, Told
from portal.auth import ADMIN_ID
from portal.cli_client import settings, show, stop
from portal.cli_keeper import keeper

BATCH = 100
FAULTS_SHOWN = 10
SOURCE = "cli"


def bring(folder: Path, *, dry_run: bool, goals: bool, as_json: bool) -> None:
    """Take in a PAI folder. goals: its TELOS even where the owner has goals already."""
    config = settings()
    plan = _done(lambda: passport.read(folder, ADMIN_ID))
    said: dict[str, Any] = {
        "memories": len(plan.memories),
        "ratings": len(plan.signals),
        "guessed_moods_left_out": len(plan.implicit),
        "files": len(plan.files),
        "left": list(plan.left),
        "faults": [str(fault) for fault in plan.faults],
        "goals": [],
    }
    if not dry_run:
        said["kept_in"] = str(_done(lambda: passport.keep(plan, config.memory)))
        said["here_already"] = keeper(lambda bus: _remember(bus, plan))
        said["goals"] = _done(lambda: _adopt(config, plan.telos, goals))
    if as_json:
        show(said, True)
        return
    done = "would take in" if dry_run else "took in"
    typer.echo(
        f"{done} {counted(said['memories'], 'memory', 'memories')} and "
        f"{counted(said['ratings'], 'rating')}"
    )
    if said.get("here_already"):
        typer.echo(f"{said['here_already']:,} of them were remembered here already, and are once")
    if said["goals"]:
        typer.echo(f"goals taken over: {', '.join(said['goals'])}")
    elif plan.telos and not dry_run:
        typer.echo("you have goals already; to take over its: --goals (yours are kept beside)")
    if plan.left:
        typer.echo(f"not taken, for it is no memory: {neutral(', '.join(plan.left))}")
    for fault in said["faults"][:FAULTS_SHOWN]:
        typer.echo(f"not understood, but kept: {neutral(fault)}", err=True)
    if len(plan.faults) > FAULTS_SHOWN:
        typer.echo(f"… and {len(plan.faults) - FAULTS_SHOWN} more: --json", err=True)


def take_along(folder: Path, *, as_json: bool) -> None:
    """Write everything that is remembered of the owner as a PAI folder."""
    config = settings()
    memories, signals = keeper(_everything)
    learned = [one for one in memories if one.collection is Collection.LEARNINGS]
    done = _done(
        lambda: passport.write(
            folder,
            user_id=ADMIN_ID,
            memories=[one for one in memories if one.collection is not Collection.LEARNINGS],
            learnings=learned,
            signals=signals,
            telos=_goals(config),
            work=_work(config),
            originals=passport.kept(config.memory, ADMIN_ID),
        )
    )
    said = {
        "folder": str(folder),
        "memories": len(memories),
        "written": len(done.written),
        "appended": len(done.appended),
        "unchanged": len(done.unchanged),
        "backed_up": dict(done.backed_up),
        "superseded": list(done.superseded),
    }
    if as_json:
        show(said, True)
        return
    typer.echo(
        f"{counted(len(memories), 'memory', 'memories')}: "
        f"{counted(len(done.written), 'file')} written, "
        f"{len(done.appended)} added to, {len(done.unchanged)} as they were, in {folder}"
    )
    for path, backup in done.backed_up.items():
        typer.echo(f"{neutral(path)} was another; it is now {neutral(str(backup))}")


async def _remember(bus: Bus, plan: passport.Imported) -> int:
    """How many are of this installation's own export and still here: they stay what they are."""
    client = MemoryClient(bus)
    here = {one.id for one in (await _everything(bus))[0]} if plan.first else set()
    new = [one for one in plan.memories if plan.first.get(one.id) not in here]
    for first in range(0, len(new), BATCH):
        await client.remember(*new[first : first + BATCH])
    signals = [Told(verb="signal", user_id=ADMIN_ID, signal=one) for one in plan.signals]
    for first in range(0, len(signals), BATCH):
        batch = signals[first : first + BATCH]
        await bus.publish(streams.MEMORY, *(told(SOURCE, one) for one in batch))
    return len(plan.memories) - len(new)


async def _everything(bus: Bus) -> tuple[list[Memory], list[Signal]]:
    memories: list[Memory] = []
    signals: list[Signal] = []
    after: str | None = None
    while True:
        some, rated, after = await MemoryClient(bus).export(ADMIN_ID, after)
        memories += some
        signals += rated
        if after is None:
            return memories, signals


def _adopt(config: Settings, topics: Mapping[str, str], anyway: bool) -> list[str]:
    """Which of our goals are now those of the folder: all, unless the owner has some already."""
    found = passport.goals(topics)
    place = telos.folder(config)
    raw, _ = telos.read(place)
    if not found or (telos.compose(raw).text and not anyway):
        return []
    passport.adopt(found, place)
    return sorted(found)


def _goals(config: Settings) -> dict[str, str]:
    raw, _ = telos.read(telos.folder(config))
    return {name: text.decode("utf-8", "replace") for name, text in raw.items()}


def _work(config: Settings) -> dict[str, Path]:
    """PRD.md of the owner's own tasks, by the name of the task's folder."""
    found = {}
    for page in sorted(config.work.glob("*/PRD.md")):
        try:
            with (page.parent / "journal.jsonl").open(encoding="utf-8") as journal:
                whose = json.loads(journal.readline())["order"]["user_id"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # nobody knows whose it is
        if whose == ADMIN_ID:
            found[page.parent.name] = page
    return found


def _done(do: Any) -> Any:
    """What `do` gives; an error of ours or of the disk is one line and exit 2."""
    try:
        return do()
    except AIError as error:
        stop(str(error), 2)
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}", 2)
