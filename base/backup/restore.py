"""Restoring: everything is fetched and checked first, then put in place at once, and what was
there before is kept aside. A restore that fails or is cut off is undone.

    fetch ─▶ check ─▶ stop ─▶ load the dump beside ─▶ note ─▶ swap the database, move the folders
                                                         └─ a fault from here on: all of it back
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from base.backup import moves, record, rules, running, sites, staging
from base.backup.create import CERTIFICATES, ETC, STAGE, alone
from base.backup.database import answering
from base.backup.moves import Move
from base.backup.restic import Restic
from base.backup.staging import Manifest, Say
from base.backup.wire import clear
from base.errors import AIError, BackupError, ConflictError
from base.messages import Wire
from base.settings import Settings

PARTS = ("database", "vectors", "memory", "configuration", "certificates", "sites")
MEMORY = ("MEMORY", "TELOS", "attachments", "workspaces")
CONFIGURATION = ("config", "hooks", "secrets")
#: Tells the keeper to look through its stores once: see pai/rebuild.py.
MARK = "restored"
#: Folders whose contents are replaced one by one, and what lies in them for it.
ONE_BY_ONE = (ETC, CERTIFICATES, sites.NGINX, sites.RECORD, sites.WWW)
NEW, BEFORE = ".new-", ".before-"
#: What nginx reads.
SERVED = (ETC, CERTIFICATES, sites.NGINX)


class Note(Wire):
    """A restore under way, in `restore/note.json`: how to undo it."""

    stamp: str
    snapshot: str
    moves: tuple[Move, ...]
    database: bool
    was_running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """aside: where what was there before is; database_aside: its database's name now, None: there
    was none. notes: what is not as it was for another reason.
    """

    snapshot: str
    manifest: Manifest
    parts: tuple[str, ...]
    aside: Path
    database_aside: str | None
    notes: tuple[str, ...]
    took_s: float


def folder(settings: Settings) -> Path:
    """Where snapshots are fetched to: on the file system that they go to."""
    return settings.home / "restore"


async def restore(
    settings: Settings,
    say: Say,
    *,
    snapshot: str = "latest",
    parts: Sequence[str] = PARTS,
    source: Restic | None = None,
    start: bool | None = None,
    environment: Mapping[str, str] | None = None,
) -> Restored:
    """source None: the configured repository. start None: as it was; environment: for starting.

    Raises BackupError; then everything is as it was before.
    """
    begun_s = time.monotonic()
    wanted = tuple(part for part in PARTS if part in parts)
    restic = source or Restic.of(settings, rules.load(settings))
    with alone(settings):
        unbroken(settings)
        found = await restic.find(snapshot)
        place = folder(settings)
        begun = record.Restore(
            begun_at=datetime.now(UTC), snapshot=found.id, of=found.at, parts=wanted
        )
        with record.restoring(settings, begun) as (kept, ended):

            async def told(step: str) -> None:
                kept(step)
                await say(step)

            shutil.rmtree(place, ignore_errors=True)
            try:
                place.mkdir(mode=0o700, parents=True)
                await told(f"fetching {found.id} of {found.at:%Y-%m-%d %H:%M} from {restic.place}")
                manifest = await _fetch(settings, restic, found.id, wanted)
                done, database, notes = await _put(
                    settings, told, found.id, manifest, wanted, start, environment
                )
            except OSError as error:
                raise BackupError(f"{error.filename or place}: {error.strerror}") from error
            finally:
                if not _note(settings).exists():
                    shutil.rmtree(place, ignore_errors=True)
            aside = settings.home / "aside" / done
            ended({"aside": str(aside), "database_aside": database, "notes": tuple(notes)})
    return Restored(
        snapshot=found.id,
        manifest=manifest,
        parts=wanted,
        aside=aside,
        database_aside=database,
        notes=tuple(notes),
        took_s=round(time.monotonic() - begun_s, 1),
    )


def unbroken(settings: Settings) -> None:
    """Raises ConflictError when a restore was cut off here."""
    if _note(settings).exists():
        raise ConflictError("a restore was cut off here; first: ai-infra backup restore --undo")


async def undo(settings: Settings, say: Say) -> bool:
    """Put back what a restore that was cut off had moved; False: none was. Raises BackupError."""
    with alone(settings):
        try:
            note = Note.model_validate_json(_note(settings).read_bytes())
        except FileNotFoundError:
            return False
        except (OSError, ValidationError) as error:
            raise BackupError(f"{_note(settings)} cannot be read: {error}") from error
        await _undo(settings, say, note)
        if note.was_running:
            await running.start(settings)
        record.undone(settings)
    return True


# Inside ----------------------------------------------------------------------------------------


def _note(settings: Settings) -> Path:
    return folder(settings) / "note.json"


async def _fetch(
    settings: Settings, restic: Restic, snapshot: str, parts: Sequence[str]
) -> Manifest:
    """Into `folder`, and the dump is what the manifest says. Raises BackupError."""
    place = folder(settings)
    await restic.restore(snapshot, place, [f"/{STAGE}/{staging.MANIFEST}"])
    manifest = staging.read(place / STAGE)
    wanted = []
    if "database" in parts:
        wanted += [f"/{STAGE}", "/MEMORY/Work/archive"]
    if "vectors" in parts:
        wanted.append(f"/{STAGE}/{staging.VECTORS}")
    if "memory" in parts:
        wanted += [f"/{name}" for name in MEMORY] + list(manifest.outside.values())
    if "configuration" in parts:
        wanted += [f"/{name}" for name in CONFIGURATION] + [str(ETC)]
    if "certificates" in parts:
        wanted.append(str(CERTIFICATES))
    if "sites" in parts and settings.broker:
        wanted += [str(path) for path in (sites.NGINX, sites.WWW, sites.RECORD)]
    await restic.restore(snapshot, place, wanted)
    staging.known(manifest)
    if "database" in parts:
        dump = place / STAGE / staging.DUMP
        if not dump.is_file() or staging.digest(dump) != manifest.dump_sha256:
            raise BackupError("the database's dump in the snapshot is not what was written")
    return manifest


async def _put(
    settings: Settings,
    say: Say,
    snapshot: str,
    manifest: Manifest,
    parts: tuple[str, ...],
    start: bool | None,
    environment: Mapping[str, str] | None,
) -> tuple[str, str | None, list[str]]:
    """The stamp under which things are aside, the name of the database that was, and notes."""
    was_running = await running.runs(settings)
    if was_running:
        await say("stopping")
        await running.stop(settings)
    stamp = f"{datetime.now(UTC):%Y%m%d_%H%M%S}"
    planned = _plan(settings, manifest, parts, settings.home / "aside" / stamp)
    note = Note(
        stamp=stamp,
        snapshot=snapshot,
        moves=tuple(planned),
        database="database" in parts,
        was_running=was_running,
    )
    kept, notes = None, list[str]()
    try:
        async with contextlib.AsyncExitStack() as held:
            if note.database:
                database = await held.enter_async_context(answering(settings))
                await say("loading the database")
                new = f"{database.name}_new_{stamp}"
                await database.load(folder(settings) / STAGE / staging.DUMP, new, manifest.access)
            _note(settings).write_text(note.model_dump_json(), encoding="utf-8")
            await say("putting in place")
            if note.database:
                kept = await database.swap(new, f"{database.name}_before_{stamp}")
        if note.database and settings.redis_url is not None:
            await clear(settings)
        moves.ahead(planned)
        mark = settings.home / "data" / "qdrant" / MARK
        if "database" in parts:
            mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            mark.touch(mode=0o644)
        notes += await _serve(settings, say, planned)
        if was_running if start is None else start:
            await say("starting")
            await running.start(settings, environment)
    except (AIError, OSError):
        if _note(settings).exists():
            await _undo(settings, say, note)
        _sweep(stamp)
        if was_running:
            await running.start(settings)
        raise
    _note(settings).unlink()
    _sweep(stamp)
    return stamp, kept, notes


def _sweep(stamp: str) -> None:
    """What was laid ready and was not wanted."""
    for at in ONE_BY_ONE:
        shutil.rmtree(at / f"{NEW}{stamp}", ignore_errors=True)


async def _serve(settings: Settings, say: Say, moved: Sequence[Move]) -> list[str]:
    """nginx serves what has come; why it does not, in words. What is restored stays: an nginx that
    is stopped, or whose owner's file is wrong, says nothing against it.
    """
    ours = (Path(move.at) for move in moved)
    if not settings.broker or not any(at.parent in SERVED for at in ours):
        return []
    await say("telling nginx")
    try:
        return await running.serve(settings)
    except BackupError as error:
        return [f"nginx does not serve it yet: {error}"]


def _plan(
    settings: Settings, manifest: Manifest, parts: tuple[str, ...], aside: Path
) -> list[Move]:
    """What goes where, in an order in which no move needs what a later one brings."""
    place, home, stamp = folder(settings), settings.home, aside.name
    archive, kept = place / STAGE / staging.ARCHIVE, settings.memory / "Work" / "archive"
    fetched = place / "MEMORY" / "Work" / "archive"
    if "database" not in parts and "memory" in parts:
        archive = kept  # the archive goes with the database, which says what of it counts
    found: list[Move] = []
    if "memory" in parts:
        if archive.is_dir() and (place / "MEMORY").is_dir():
            shutil.rmtree(fetched, ignore_errors=True)
            shutil.copytree(archive, fetched)
        for name in MEMORY:
            new = place / (manifest.outside.get(name, "").lstrip("/") or name)
            at = settings.workspaces if name == "workspaces" else home / name
            found += _move(at, new, aside, home)
    elif "database" in parts:
        found += _move(kept, archive if archive.is_dir() else fetched, aside, home)
    if "configuration" in parts:
        keys = [rules.load(settings).key(settings), rules.load(settings).s3(settings)]
        for name in CONFIGURATION:
            found += _move(home / name, _with_keys(place / name, home / name, keys), aside, home)
        etc = place / str(ETC).lstrip("/")
        if settings.broker:
            found += _each(ETC, _with_keys(etc, ETC, keys), stamp)
    if "certificates" in parts and settings.broker:
        found += _each(CERTIFICATES, place / str(CERTIFICATES).lstrip("/"), stamp)
    if "sites" in parts and settings.broker:
        nginx, files, record = (
            place / str(at).lstrip("/") for at in (sites.NGINX, sites.WWW, sites.RECORD)
        )
        found += _each(sites.NGINX, nginx, stamp)
        found += _each(sites.WWW, files, stamp, lambda name: not (files / name).exists())
        found += _each(sites.RECORD, record, stamp, sites.RUNNING.__contains__)
    if "database" in parts:
        found += _move(home / "audit", place / STAGE / staging.AUDIT, aside, home)
        if settings.redis_url is None:  # what waits on the wire is of the database before
            found.append(moves.plan(home / "data" / "redis", None, aside / "data" / "redis"))
    if "vectors" in parts and settings.qdrant_url is None:
        new = place / STAGE / staging.VECTORS
        new.mkdir(mode=0o700, exist_ok=True)  # empty: they are made again from the cards
        found += _move(home / "data" / "qdrant", new, aside, home)
    return found


def _move(at: Path, new: Path, aside: Path, home: Path) -> list[Move]:
    """None when the snapshot has nothing for it. What lies outside stays on its file system."""
    if not new.is_dir():
        return []
    _own(new, at if at.exists() else home)
    if at.is_relative_to(home):
        return [moves.plan(at, new, aside / at.relative_to(home))]
    beside = at.with_name(f"{at.name}.new-{aside.name}")
    beside.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    shutil.move(new, beside)
    return [moves.plan(at, beside, at.with_name(f"{at.name}.before-{aside.name}"))]


def _each(
    at: Path, new: Path, stamp: str, stays: Callable[[str], bool] = lambda name: False
) -> list[Move]:
    """What is in a folder, each by itself: the folder may be where something is mounted. stays:
    which names of it are nothing to us.
    """
    if not new.is_dir():
        return []
    beside, aside = at / f"{NEW}{stamp}", at / f"{BEFORE}{stamp}"
    at.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copytree(new, beside, symlinks=True)
    _own_as(beside, new)
    names = {path.name for path in (*at.iterdir(), *beside.iterdir())}
    return [
        moves.plan(
            at / name, beside / name if os.path.lexists(beside / name) else None, aside / name
        )
        for name in sorted(names)
        if not name.startswith((NEW, BEFORE)) and not stays(name)
    ]


def _own_as(new: Path, like: Path) -> None:
    """Each file belongs to whom its twin belongs to: a copy by root does not see to that."""
    for path in (like, *like.rglob("*")):
        owner = path.lstat()
        twin = new / path.relative_to(like)
        os.chown(twin, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _own(new: Path, like: Path) -> None:
    """What root made for the restore belongs to whom it replaces; the rest came with its owner."""
    owner = like.stat()
    if new.name in {staging.AUDIT, staging.ARCHIVE, staging.VECTORS} and owner.st_uid:
        for path in (new, *new.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _with_keys(new: Path, now: Path, keys: Sequence[Path]) -> Path:
    """The fetched folder, with the backup's own keys, which are in no backup."""
    for key in keys:
        if new.is_dir() and key.parent == now and key.is_file():
            shutil.copy2(key, new / key.name)
    return new


async def _undo(settings: Settings, say: Say, note: Note) -> None:
    await say("undoing the restore")
    with contextlib.suppress(BackupError):
        await running.stop(settings)
    moves.back(note.moves)
    _sweep(note.stamp)
    await _serve(settings, say, note.moves)
    if note.database:
        async with answering(settings) as database:
            before = f"{database.name}_before_{note.stamp}"
            new = f"{database.name}_new_{note.stamp}"
            if await database.exists(before):
                await database.swap(before, f"{database.name}_undone_{note.stamp}")
                await database.drop(f"{database.name}_undone_{note.stamp}")
            await database.drop(new)
    _note(settings).unlink(missing_ok=True)
    shutil.rmtree(folder(settings), ignore_errors=True)
