"""Which numbered SQL files a database still needs: reading, deciding, applying.

A file is `NNNN_name.sql`, numbered from 1 without gaps, and is never edited once it was applied
anywhere: the checksum of every applied file must still match.

A database may be ahead of the program, as after an update that was rolled back: what only added to
it is no hindrance. A file that takes something away says in its first line from which version on
nobody reads it any more, and older programs refuse the database from then on:

    -- contract: 0.4.0
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base import log
from base.deadline import Deadline
from base.errors import AIError, StoreError

if TYPE_CHECKING:
    from base.store import Session

SCHEMA = Path(__file__).with_name("schema")
#: How long one who may not migrate waits for the one who may; and between two looks.
WAIT_S, LOOK_S = 90.0, 0.2
_logger = log.get("migrations")
CONTRACT = re.compile(r"-- contract: (\d+(?:\.\d+)*)\s*")
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file. `checksum` is the SHA-256 of its bytes, in hex; `since`: of its contract."""

    number: int
    name: str
    checksum: str
    sql: str

    @property
    def since(self) -> str | None:
        found = CONTRACT.match(self.sql)
        return found[1] if found else None


def read(folder: Path = SCHEMA) -> tuple[Migration, ...]:
    """The files of `folder`, in order. Raises StoreError on a wrong name or a gap."""
    found: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise StoreError(f"migration {path.name} is not named NNNN_name.sql")
        raw = path.read_bytes()
        checksum = hashlib.sha256(raw).hexdigest()
        number = int(match[1])
        if number != len(found) + 1:
            raise StoreError(f"migration {path.name} should be number {len(found) + 1:04}")
        sql = raw.decode()
        found.append(Migration(number=number, name=path.name, checksum=checksum, sql=sql))
    return tuple(found)


def pending(files: Sequence[Migration], rows: Sequence[dict[str, Any]]) -> tuple[Migration, ...]:
    """What is left to apply; `rows`: of schema_migrations.

    Raises StoreError when an applied file was edited, or a newer version has taken away what this
    program reads.
    """
    applied = {row["number"]: row["checksum"] for row in rows}
    for row in rows:
        since = row.get("since")
        if row["number"] > len(files) and since is not None and number(_own()) < number(since):
            raise StoreError(
                f"the database is at migration {max(applied):04}, newer than this program "
                f"({len(files):04}): install version {since} or a newer one"
            )
    for file in files:
        if applied.get(file.number, file.checksum) != file.checksum:
            raise StoreError(f"migration {file.name} was edited after it was applied: restore it")
    return tuple(file for file in files if file.number not in applied)


def number(version: str) -> tuple[int, ...]:
    """A version as it compares."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:4])


def _own() -> str:
    return metadata.version("ai-infrastructure")


async def may(session: Session) -> bool:
    """Whether this role migrates. On the appliance the portal's alone does."""
    return bool(await session.fetchval("SELECT has_schema_privilege(current_schema(), 'CREATE')"))


async def settled(session: Session, files: Sequence[Migration]) -> None:
    """Wait until the one who may has migrated. Raises StoreError when that does not come."""
    deadline = Deadline.after(WAIT_S)
    while not await _current(session, files):
        if deadline.passed:
            raise StoreError(
                "the database is not at this version, and this account may not migrate it: "
                "start the portal, systemctl start ai-api"
            )
        await asyncio.sleep(LOOK_S)
    # Its lock is held until its grants are made, too.
    await session.execute("SELECT pg_advisory_lock_shared(hashtextextended('migrations', 0))")


async def _current(session: Session, files: Sequence[Migration]) -> bool:
    readable = "SELECT has_table_privilege(to_regclass('schema_migrations'), 'SELECT')"
    if not await session.fetchval(readable):
        return False
    return not pending(files, await session.fetch("SELECT * FROM schema_migrations"))


async def apply(session: Session, files: Sequence[Migration]) -> list[str]:
    """Apply what is pending, each file in a transaction of its own; their names.

    Waits while another process migrates; the lock goes with the session's connection. Raises
    StoreError naming the file that failed: nothing of it stays.
    """
    await session.execute("SELECT pg_advisory_lock(hashtextextended('migrations', 0))")
    await session.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (number INTEGER PRIMARY KEY,"
        " name TEXT NOT NULL, checksum TEXT NOT NULL,"
        " applied_at TIMESTAMPTZ NOT NULL DEFAULT NOW())"
    )
    there = (
        "SELECT TRUE FROM pg_attribute WHERE attname = 'since'"
        " AND attrelid = 'schema_migrations'::regclass"
    )
    if not await session.fetchval(there):  # a look does not wait for a dump, an ALTER would
        await session.execute("ALTER TABLE schema_migrations ADD COLUMN since TEXT")
    todo = pending(files, await session.fetch("SELECT * FROM schema_migrations"))
    for file in todo:
        try:
            async with session.transaction():
                await session.execute(file.sql)
                await session.execute(
                    "INSERT INTO schema_migrations (number, name, checksum, since)"
                    " VALUES ($1, $2, $3, $4)",
                    *(file.number, file.name, file.checksum, file.since),
                )
        except AIError as error:
            raise StoreError(f"migration {file.name} failed and was undone: {error}") from error
        _logger.info("migrated", file=file.name)
    return [file.name for file in todo]
