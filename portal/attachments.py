"""Files that people send with messages: taken, kept by what is in them, given back to their owner.

A row is written when a file comes and gets its message when that is sent; what no message took
within a day is removed. Nothing here is ever unpacked, run or served as a page.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from base import modes
from base.attachments import place
from base.errors import InputError, NotFoundError
from portal import sniff
from portal.auth import Caller
from portal.desk import Desk
from portal.limits import within
from portal.talk import File, identity
from portal.trail import event

UNUSED_S = 86_400


async def take(desk: Desk, caller: Caller, name: str, body: AsyncIterator[bytes]) -> File:
    """Keep a file for a message to come. Raises InputError for one that is too large, or that no
    model can be given, and TooManyError.
    """
    limits = desk.limiter.rates.uploads
    await within(desk.limiter, "uploads.files", caller.user_id, "too many files")
    name = sniff.named(name)
    data = await _read(body, limits.file_bytes, name)
    found = sniff.sort(data, name)
    most = {"image": limits.image_bytes, "text": limits.text_bytes}.get(found.kind)
    if most is not None and len(data) > most:
        raise InputError(f"{name} has {len(data):,} bytes; {found.kind}s may have {most:,}")
    await _tidy(desk, caller)
    taken = await desk.store.fetchval(
        "SELECT COALESCE(SUM(size_bytes), 0) FROM attachments WHERE user_id = $1", caller.user_id
    )
    if int(taken) + len(data) > limits.person_bytes:
        raise InputError(f"your files take {int(taken):,} bytes of {limits.person_bytes:,}")
    digest = hashlib.sha256(data).hexdigest()
    path = f"{caller.user_id}/{digest}"
    await asyncio.to_thread(_write, place(desk.settings.attachments, path), data)
    made = File(
        id=str(uuid.uuid4()),
        name=name,
        kind=found.kind,
        media_type=found.media_type,
        size_bytes=len(data),
    )
    await desk.store.execute(
        "INSERT INTO attachments (id, user_id, filename, mime_type, kind, size_bytes, sha256,"
        " storage_path) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        *(made.id, caller.user_id, name, found.media_type, found.kind, len(data), digest, path),
    )
    desk.tell(event("action", "write", f"attachments/{made.id}", caller=caller, sha256=digest))
    return made


async def give(desk: Desk, caller: Caller, attachment_id: str) -> tuple[File, Path]:
    """The file and where it lies. Raises NotFoundError for what is not the caller's."""
    row = await desk.store.fetchrow(
        "SELECT id, filename AS name, kind, mime_type AS media_type, size_bytes, storage_path"
        " FROM attachments WHERE id = $1 AND user_id = $2",
        *(identity(attachment_id, "attachment"), caller.user_id),
    )
    if row is None:
        raise NotFoundError(f"no attachment {attachment_id}")
    path = place(desk.settings.attachments, row.pop("storage_path"))
    if not path.is_file():
        raise NotFoundError(f"the file of attachment {attachment_id} is gone")
    return File(**row), path


async def drop(desk: Desk, caller: Caller, attachment_id: str) -> None:
    """Take back a file that no message has. Raises NotFoundError."""
    rows = await desk.store.fetch(
        "DELETE FROM attachments WHERE id = $1 AND user_id = $2 AND message_id IS NULL"
        " RETURNING storage_path",
        *(identity(attachment_id, "attachment"), caller.user_id),
    )
    if not rows:
        raise NotFoundError(f"no attachment {attachment_id} that waits for its message")
    await _unlink(desk, [row["storage_path"] for row in rows])


async def _read(body: AsyncIterator[bytes], most: int, name: str) -> bytes:
    parts: list[bytes] = []
    got_bytes = 0
    async for part in body:
        got_bytes += len(part)
        if got_bytes > most:
            raise InputError(f"{name} is larger than {most:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all; the same bytes again change nothing."""
    if path.exists():
        return
    path.parent.mkdir(mode=modes.FOLDER, parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, modes.FILE)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


async def _tidy(desk: Desk, caller: Caller) -> None:
    rows = await desk.store.fetch(
        "DELETE FROM attachments WHERE user_id = $1 AND message_id IS NULL"
        " AND created_at < NOW() - make_interval(secs => $2) RETURNING storage_path",
        *(caller.user_id, UNUSED_S),
    )
    await _unlink(desk, [row["storage_path"] for row in rows])


async def _unlink(desk: Desk, paths: list[str]) -> None:
    """Remove the files that no row names any more."""
    for path in set(paths):
        if not await desk.store.fetchval(
            "SELECT TRUE FROM attachments WHERE storage_path = $1 LIMIT 1", path
        ):
            with contextlib.suppress(FileNotFoundError):
                place(desk.settings.attachments, path).unlink()
