"""A task's folder: `journal.jsonl`, which a task is resumed from, and `PRD.md` for people.

PRD.md is in the form of PAI v4.0.3: eight flat keys, then Context, Criteria, Decisions and
Verification, so that another H2 always ends Criteria.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from base import modes
from base.errors import ConflictError, InputError
from base.messages import Checked, Criterion, Verdict, WorkOrder

JOURNAL = "journal.jsonl"
PRD = "PRD.md"
SLUG_WORDS = 6
SLUG_CHARS = 48
TASK_CHARS = 120

Record = dict[str, Any]


def folder_name(order: WorkOrder) -> str:
    """`YYYYMMDD-HHMMSS_slug-taskid8`: the same for every delivery of the order."""
    return f"{order.created_at.astimezone(UTC):%Y%m%d-%H%M%S}_{slug(order)}"


def slug(order: WorkOrder) -> str:
    """Up to six words of the instruction, and eight characters of the task's id."""
    words = re.findall(r"[a-z0-9]+", order.instruction.lower())[:SLUG_WORDS]
    text = "-".join(words)[:SLUG_CHARS].strip("-") or "task"
    return f"{text}-{re.sub(r'[^A-Za-z0-9]', '', order.task_id)[:8]}"


class Journal:
    """The append-only record of one task; one process at a time holds it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @classmethod
    def open(cls, folder: Path) -> tuple[Journal, list[Record]]:
        """The journal in `folder` (made if absent) and what it holds so far.

        A last line that was torn by a crash is cut off. Raises ConflictError while another
        process holds the journal, InputError when a line before the last is damaged.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=modes.FOLDER)
        file = (folder / JOURNAL).open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise ConflictError(f"{folder} is being worked on by another process") from error
        file.seek(0)
        raw = file.read()
        records = list(_whole(raw))
        good_bytes = sum(size_bytes for size_bytes, _ in records)
        if b"\n" in raw[good_bytes:].rstrip(b"\n"):
            file.close()
            raise InputError(f"{folder / JOURNAL}: line {len(records) + 1} is damaged")
        file.truncate(good_bytes)
        return cls(file), [record for _, record in records]

    def append(self, record: Record, *, sync: bool = False) -> Record:
        """Write one record, stamped with `at`; `sync`: it is on the disk when this returns.

        Returns the record as it will be read again: what is no text (half a surrogate pair)
        is replaced.
        """
        stamped = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **record}
        line = json.dumps(stamped, ensure_ascii=False, default=str).encode("utf-8", "replace")
        self._file.write(line + b"\n")
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())
        written: Record = json.loads(line)
        return written

    def close(self) -> None:
        """Let go of the journal. Safe to call twice."""
        self._file.close()


def read(path: Path) -> list[Record]:
    """The whole records of a journal; for people and tests, takes no lock."""
    return [record for _, record in _whole(path.read_bytes())] if path.exists() else []


def _whole(raw: bytes) -> Iterator[tuple[int, Record]]:
    """Each record with its size in bytes, up to the first line that is not whole."""
    for line in raw.splitlines(keepends=True):
        try:
            record = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            return
        if not isinstance(record, dict):
            return
        yield len(line), record


@dataclass(frozen=True, slots=True, kw_only=True)
class Prd:
    """What PRD.md tells. `checked` holds the verdicts so far; `phase` is lower case.

    tainted: the task stood on text from outside, which whoever reads the file must know.
    """

    order: WorkOrder
    phase: str
    started: datetime
    frame: dict[str, Any]
    criteria: Sequence[Criterion]
    checked: Sequence[Checked]
    decisions: Sequence[str]
    learned: Sequence[str]
    tainted: bool = False

    def render(self, now: datetime) -> str:
        """The whole file."""
        verdicts = {one.id: one for one in self.checked}
        done = sum(one.verdict is Verdict.PASSED for one in self.checked)
        front = {
            "task": _line(self.order.instruction)[:TASK_CHARS],
            "slug": slug(self.order),
            "effort": self.order.effort.value,
            "phase": self.phase,
            "progress": f"{done}/{len(self.criteria)}",
            "mode": "interactive",
            "started": self.started.astimezone(UTC).isoformat(timespec="seconds"),
            "updated": now.astimezone(UTC).isoformat(timespec="seconds"),
            **({"tainted": "true"} if self.tainted else {}),
        }
        lines = ["---", *(f"{key}: {value}" for key, value in front.items()), "---", ""]
        lines += ["## Context", "", *self._context(), "", "## Criteria", ""]
        for criterion in self.criteria:
            one = verdicts.get(criterion.id)
            mark = "x" if one is not None and one.verdict is Verdict.PASSED else " "
            lines.append(f"- [{mark}] {criterion.id}: {_line(criterion.text)}")
        lines += ["", "## Decisions", "", *(f"- {_line(text)}" for text in self.decisions)]
        lines += ["", "## Verification", ""]
        for one in self.checked:
            lines.append(f"- {one.id}: {one.verdict.value}: {_line(one.evidence)}")
        lines += [f"- LEARN: {_line(text)}" for text in self.learned]
        return "\n".join(lines).rstrip() + "\n"

    def _context(self) -> list[str]:
        told = self.frame
        lines = [_line(str(told.get("context") or self.order.instruction))]
        for title, key in (
            ("Wanted", "wanted"),
            ("Not wanted", "not_wanted"),
            ("Risks", "risks"),
            ("Plan", "plan"),
        ):
            value = told.get(key)
            items = value if isinstance(value, list) else [value] if value else []
            if items:
                lines += ["", f"### {title}", "", *(f"- {_line(str(item))}" for item in items)]
        return lines

    def write(self, folder: Path) -> None:
        """Replace PRD.md whole; a reader sees the old file or the new one."""
        handle, name = tempfile.mkstemp(dir=folder, prefix=".prd-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(self.render(datetime.now(UTC)))
        Path(name).replace(folder / PRD)


def _line(text: str) -> str:
    """One line; a heading or rule inside it could not be told from the file's own."""
    return " ".join(text.split())
