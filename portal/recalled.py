"""Which memories a request was given, and why; looked at when an answer puzzles."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from base.messages import Wire
from pai.shapes import SHARED
from portal import work
from portal.auth import Caller
from portal.desk import Desk

#: What was recalled stands near a journal's beginning.
LOOK_BYTES = 2_000_000
JOURNAL = "journal.jsonl"


class Given(Wire):
    """A memory that a task was given. text None: it is in the archive by now. `why`: what it was
    found by, empty once the task's folder is in the archive. `place`: its rank, from 1.
    """

    memory_id: str
    task_id: str
    agent: str
    place: int
    text: str | None
    kind: str
    about: str
    why: list[str]
    score: float | None
    learned_at: datetime
    from_task_id: str | None


class GivenAll(Wire):
    """In the order of the plan, best first. `notes`: what else there is to say of the recall."""

    memories: list[Given]
    notes: list[str]


async def given(desk: Desk, caller: Caller, task_id: str) -> GivenAll:
    """What a task, or all parts of a request, was told. Raises NotFoundError."""
    found = await work.task_whole(desk, caller, task_id)
    parts = {one.id: one for one in (found.task, *found.subtasks)}
    rows = await desk.store.fetch(
        "SELECT used.task_id, used.rank, card.id, card.text, card.kind, card.agent, card.speaker,"
        " card.source, card.file, card.created_at, card.task_id AS from_task_id"
        " FROM memory_use AS used JOIN memory AS card ON card.id = used.memory_id"
        " WHERE used.task_id = ANY($1) AND card.user_id = ANY($2) AND NOT card.leaving"
        " ORDER BY used.rank",
        *(list(parts), [caller.user_id, SHARED]),
    )
    told, notes = await asyncio.to_thread(_journals, desk.settings.work, list(parts))
    order = {part_id: at for at, part_id in enumerate(parts)}
    memories = [
        Given(
            memory_id=row["id"],
            task_id=row["task_id"],
            agent=parts[row["task_id"]].assigned_agent,
            place=row["rank"],
            text=row["text"],
            kind=row["kind"],
            about=", ".join(
                one for one in (row["speaker"] or row["agent"], row["file"] or row["source"]) if one
            ),
            why=told.get((row["task_id"], row["id"]), ([], None))[0],
            score=told.get((row["task_id"], row["id"]), ([], None))[1],
            learned_at=row["created_at"],
            from_task_id=row["from_task_id"],
        )
        for row in sorted(rows, key=lambda row: (order[row["task_id"]], row["rank"]))
    ]
    return GivenAll(memories=memories, notes=notes)


def _journals(
    work_folder: Path, task_ids: list[str]
) -> tuple[dict[tuple[str, str], tuple[list[str], float | None]], list[str]]:
    """Why each memory was given, by task and memory, from the folders that are still there."""
    told: dict[tuple[str, str], tuple[list[str], float | None]] = {}
    notes: list[str] = []
    for task_id in task_ids:
        short = re.sub(r"[^A-Za-z0-9]", "", task_id)[:8]
        for folder in work_folder.glob(f"*-{short}"):
            for record in _recalled(folder / JOURNAL):
                if record.get("note"):
                    notes.append(str(record["note"]))
                for one in (*record.get("items", ()), *record.get("learnings", ())):
                    told[task_id, str(one["id"])] = (list(one["why"]), one.get("score"))
    return told, notes


def _recalled(journal: Path) -> list[dict[str, Any]]:
    try:
        with journal.open("rb") as file:
            lines = file.read(LOOK_BYTES).splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        if b'"recalled"' in line:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if record.get("kind") == "recalled":
                found.append(record)
    return found
