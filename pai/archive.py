"""Folders of ended tasks: after their time they move into `tasks-YYYY-MM.jsonl.gz`."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from base import log
from base.messages import Status
from pai import record
from pai.cold import Line, tasks_file
from pai.stores import Stores

SLICE = 20

logger = log.get(__name__)


async def folders(stores: Stores, now: datetime) -> int:
    """Archive a slice of the folders whose task ended long enough ago; how many.

    The note in memory_folder is of the same commit as the archive's line: a folder that is
    there with a note was archived before a crash and is only removed.
    """
    home = stores.settings.work
    noted = {row["name"] for row in await stores.store.fetch("SELECT name FROM memory_folder")}
    for name in noted:
        await _remove(stores, home / name)
    before_s = now.timestamp() - stores.rules.tasks.archive_after_s
    names = [one for one in await asyncio.to_thread(_old, home, before_s) if one not in noted]
    lines: list[Line] = []
    for start in range(0, len(names), SLICE):
        part = names[start : start + SLICE]
        read = [await asyncio.to_thread(_read, home / name) for name in part]
        lines += await _over(stores, [line for line in read if line is not None])
        if len(lines) >= SLICE:
            break
    if not lines:
        return 0
    name = tasks_file(f"{now.astimezone(UTC):%Y-%m}")
    async with stores.archive.lock, stores.archive.append(name, lines) as tx:
        for line in lines:
            await tx.execute("INSERT INTO memory_folder (name) VALUES ($1)", line["folder"])
    for line in lines:
        await _remove(stores, home / line["folder"])
    stores.count("folders_archived", len(lines))
    return len(lines)


def _old(home: Path, before_s: float) -> list[str]:
    """Names begin with the task's date; only what is old by it is looked at."""
    newest = time.strftime("%Y%m%d-%H%M%S", time.gmtime(before_s))
    found = sorted(path.name for path in home.iterdir() if path.name[:15] <= newest)
    return [name for name in found if _journal_at_s(home / name) <= before_s]


def _journal_at_s(folder: Path) -> float:
    path = folder / record.JOURNAL
    return path.stat().st_mtime if path.is_file() and not path.is_symlink() else float("inf")


def _read(folder: Path) -> Line | None:
    """All that is in a folder; None when its task has not ended or somebody holds it."""
    with (folder / record.JOURNAL).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        records = record.read(folder / record.JOURNAL)
        task_id = _ended(records)
        if task_id is None:
            return None
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {
            "folder": folder.name,
            "task_id": task_id,
            "archived_at": datetime.now(UTC).isoformat(),
            "files": {
                str(path.relative_to(folder)): _content(path)
                for path in files
                if not path.is_symlink()
            },
        }


def _ended(records: list[record.Record]) -> str | None:
    """The task's id when its last chapter has an end that hands it to nobody."""
    task_id, ended = None, False
    for one in records:
        if one.get("kind") == "order":
            task_id, ended = one["order"]["task_id"], False
        elif one.get("kind") == "end":
            ended = not one["outcome"].get("handoff_to")
    return task_id if ended else None


def _content(path: Path) -> dict[str, str]:
    raw = path.read_bytes()
    try:
        return {"text": raw.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


async def _over(stores: Stores, lines: list[Line]) -> list[Line]:
    """Those whose task is at its end in the record too, or unknown to it."""
    rows = await stores.store.fetch(
        "SELECT id, status FROM tasks WHERE id = ANY($1::uuid[])",
        [line["task_id"] for line in lines],
    )
    going_on = {row["id"] for row in rows if not Status(row["status"]).ended}
    return [line for line in lines if line["task_id"] not in going_on]


async def _remove(stores: Stores, folder: Path) -> None:
    """A folder that cannot be removed keeps its note, so that it is not archived twice."""
    if folder.exists():
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    if folder.exists():
        logger.warning("an archived folder could not be removed", folder=folder.name)
        return
    await stores.store.execute("DELETE FROM memory_folder WHERE name = $1", folder.name)
