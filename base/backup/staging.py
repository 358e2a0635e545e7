"""What a backup holds that is no file as it lies: the dump, the keeper's copy, a manifest.

The order makes it one moment: signed heads first, then the keeper holds still while its vectors
and archive are copied and the database's moment is named; it goes on, and that moment is dumped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, ValidationError

from base import migrations, streams
from base.backup.database import Access, Database
from base.bus import Bus
from base.deadline import Deadline
from base.errors import AIError, BackupError
from base.messages import Wire
from base.settings import Settings

Say = Callable[[str], Awaitable[None]]
#: For copying a full warm store on a slow disk.
HOLD_S = 120.0
DUMP, MANIFEST, VECTORS, ARCHIVE, AUDIT = (
    "database.dump",
    "manifest.json",
    "vectors",
    "archive",
    "audit",
)
COUNTS = """SELECT json_build_object('tasks', (SELECT count(*) FROM tasks),
 'messages', (SELECT count(*) FROM messages), 'memories', (SELECT count(*) FROM memory),
 'users', (SELECT count(*) FROM users),
 'schema', (SELECT max(number) FROM schema_migrations))"""


class Manifest(Wire):
    """vectors: copied, or "cards": made again from the cards after a restore; why, in `notes`.

    outside: folders of the home that lie elsewhere, by name. counts: rows of the dump's moment.
    access: None where the dump says all that can be said again.
    """

    format: int = 1
    at: AwareDatetime
    version: str
    home: str
    outside: dict[str, str]
    dump_sha256: str
    dump_bytes: int
    counts: dict[str, int]
    vectors: str
    notes: tuple[str, ...] = ()
    access: Access | None = None


def folder(settings: Settings) -> Path:
    return settings.home / "data" / "stage"


def keepers(settings: Settings) -> Path:
    """Where the keeper lays its copy: within its own folder, which is all that it may write."""
    return settings.home / "data" / "qdrant" / "copy"


@contextlib.asynccontextmanager
async def staged(settings: Settings, database: Database, say: Say) -> AsyncIterator[Manifest]:
    """The stage, filled, for as long as the block lasts. Raises BackupError, also when full."""
    place = folder(settings)
    clear(settings)
    try:
        with _full(place):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            yield await _fill(settings, database, place, say)
    finally:
        clear(settings)


def clear(settings: Settings) -> None:
    """Remove what a backup that was killed left. Safe twice."""
    shutil.rmtree(folder(settings), ignore_errors=True)
    shutil.rmtree(keepers(settings), ignore_errors=True)


def version() -> str:
    """Of the product that runs."""
    return metadata.version("ai-infrastructure")


def known(found: Manifest) -> None:
    """Raises BackupError for one of a newer version, whose database is not understood here."""
    if found.counts.get("schema", 0) > len(migrations.read()):
        raise BackupError(
            f"the snapshot is of version {found.version}, newer than this one: update first"
        )


def read(place: Path) -> Manifest:
    """The manifest of a restored stage. Raises BackupError."""
    try:
        return parsed((place / MANIFEST).read_bytes())
    except OSError as error:
        raise BackupError(f"the snapshot has no manifest that can be read: {error}") from error


def parsed(raw: bytes) -> Manifest:
    """A manifest as it was written. Raises BackupError."""
    try:
        found = Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise BackupError(f"the snapshot has no manifest that can be read: {error}") from error
    if found.format != 1:
        raise BackupError(f"the snapshot has format {found.format}, made by a newer version")
    return found


def digest(place: Path) -> str:
    """SHA-256 of a file, in hex. Raises OSError."""
    with place.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _fill(settings: Settings, database: Database, place: Path, say: Say) -> Manifest:
    notes: list[str] = []
    if (settings.home / "audit").is_dir():
        shutil.copytree(settings.home / "audit", place / AUDIT)
    async with contextlib.AsyncExitStack() as held:
        vectors = await _hold(settings, held, notes)
        await say("naming the moment")
        async with database.exported() as moment:
            await held.aclose()  # the keeper goes on
            await say("dumping the database")
            counts = json.loads(await database.sql_at(moment, COUNTS))
            await database.dump(place / DUMP, moment)
        access = await database.access()
    copied = keepers(settings)
    for name in (VECTORS, ARCHIVE):
        if (copied / name).is_dir():
            (copied / name).rename(place / name)
    outside = {}
    if not settings.workspaces.is_relative_to(settings.home):
        outside["workspaces"] = str(settings.workspaces)
    found = Manifest(
        at=datetime.now(UTC),
        version=version(),
        home=str(settings.home),
        outside=outside,
        dump_sha256=digest(place / DUMP),
        dump_bytes=(place / DUMP).stat().st_size,
        counts=counts,
        vectors=vectors,
        notes=tuple(notes),
        access=access,
    )
    (place / MANIFEST).write_text(found.model_dump_json(indent=1), encoding="utf-8")
    return found


async def _hold(settings: Settings, held: contextlib.AsyncExitStack, notes: list[str]) -> str:
    """Have the keeper copy its stores and hold still until `held` is closed; "cards" when nobody
    can: then memory is made again from the cards, and files are as they lie.
    """
    try:
        if settings.redis_url is None and not settings.redis_socket.exists():
            raise BackupError("nothing runs")
        bus = await Bus.open(settings.redis, "backup")
        held.push_async_callback(bus.close)

        async def ask(verb: str) -> dict[str, Any]:
            deadline = Deadline.after(HOLD_S)
            return await bus.ask(streams.SERVICE_MEMORY, {"verb": verb}, deadline=deadline)

        said = await ask("hold")
        held.push_async_callback(ask, "release")
    except AIError as error:
        notes.append(f"the keeper was not asked ({error}): vectors are made again from the cards")
        return "cards"
    if not said["copied"]:
        notes.append("vectors are in a Qdrant server; they are made again from the cards")
    return "copied" if said["copied"] else "cards"


@contextlib.contextmanager
def _full(place: Path) -> Any:
    """A full disk in plain words. Raises BackupError."""
    try:
        yield
    except OSError as error:
        raise BackupError(f"{error.filename or place}: {error.strerror}") from error
