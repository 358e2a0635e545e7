"""Tasks as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape

from nicegui import ui

from portal.pages import parts
from portal.pages.marks import shown
from portal.work import Task

COLUMNS = {
    "status": "Status",
    "title": "Task",
    "agent": "Agent",
    "talk": "Conversation",
    "age": "Asked",
    "took": "Took",
    "cost": "Cost",
}
WORDS = {"in_progress": "working", "assigned": "starting"}
TITLE_CHARS = 140
TALK_CHARS = 40


def title(task: Task) -> str:
    """What it is about, in one line."""
    given = task.input if isinstance(task.input, dict) else {}
    text = task.title or given.get("instruction") or given.get("content") or ""
    line = " ".join(str(text).split()) or f"Task {task.id[:8]}"
    return line if len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1] + "…"


def status(task: Task) -> str:
    """HTML of its state."""
    word = WORDS.get(task.status.value, task.status.value)
    return parts.pill(word, parts.tone(task.status.value))


def duration(task: Task) -> str:
    """How long it has run, or ran."""
    if task.started_at is None:
        return ""
    end = task.completed_at or (None if task.status.ended else datetime.now(UTC))
    return long((end - task.started_at).total_seconds()) if end else ""


def long(seconds_s: float) -> str:
    """75 as "1 min 15 s"."""
    whole_s = max(0, round(seconds_s))
    if whole_s < 60:
        exact = isinstance(seconds_s, float) and whole_s < 10
        return f"{max(0.0, seconds_s):.1f} s" if exact else f"{whole_s} s"
    if whole_s < 3600:
        return f"{whole_s // 60} min {whole_s % 60} s"
    return f"{whole_s // 3600} h {whole_s % 3600 // 60} min"


def row(task: Task, titles: Mapping[str, str], *, rehearsal: bool) -> dict[str, str]:
    """The cells of one task, HTML. titles: of conversations, by id."""
    place = f"/tasks/{task.root_id or task.id}"
    talk = ""
    if task.conversation_id:
        name = titles.get(task.conversation_id, "")
        short = name if len(name) <= TALK_CHARS else name[: TALK_CHARS - 1] + "…"
        talk = f'<a href="/chat/{escape(task.conversation_id)}" dir="auto">{escape(short)}</a>'
    cost_usd = float(task.usage.get("cost_usd") or 0.0)
    return {
        "id": task.root_id or task.id,
        "status": status(task),
        "title": shown(f'<a href="{place}" dir="auto">{escape(title(task))}</a>'),
        "agent": escape(task.requested_agent or task.assigned_agent),
        "talk": shown(talk),
        "age": parts.when(task.created_at, ago=True),
        "took": duration(task),
        "cost": parts.cost(cost_usd, rehearsal=rehearsal),
    }


def task_table(
    tasks: Sequence[Task], titles: Mapping[str, str], *, rehearsal: bool
) -> ui.html | None:
    """The table, or what stands where none are."""
    if not tasks:
        ui.label("Nothing yet.").classes("hint")
        return None
    return parts.table(
        COLUMNS,
        [row(one, titles, rehearsal=rehearsal) for one in tasks],
        on_row=lambda task_id: ui.navigate.to(f"/tasks/{task_id}"),
    )
