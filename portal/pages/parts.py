"""Small parts that pages are made of. What is given as text is escaped here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from html import escape
from typing import Any

from nicegui import ui

from base.errors import AIError

#: What a state looks like; the style sheet has a rule for each tone.
TONES = {
    "good": {"completed", "passed", "idle", "running", "success", "approved", "used", "ok"},
    "busy": {"busy", "working", "in_progress", "assigned", "active"},
    "warn": {"waiting", "paused", "pending", "starting", "stopping", "medium", "stuck"},
    "bad": {"failed", "failure", "error", "denied", "high", "critical", "stopped", "dead"},
}


#: Of a task that the rehearsal model answered.
FREE = "rehearsal: nothing is charged"


def tone(word: str) -> str:
    """good, busy, warn, bad, or "" for what is neither."""
    return next((name for name, words in TONES.items() if word in words), "")


def pill(word: str, kind: str | None = None) -> str:
    """HTML of a state in a word."""
    return f'<span class="pill {tone(word) if kind is None else kind}">{escape(word)}</span>'


def when(at: datetime | None, *, ago: bool = False) -> str:
    """HTML of a time; the browser writes it in the reader's zone, or as how long ago."""
    if at is None:
        return '<span class="never">never</span>'
    iso = at.astimezone(UTC).isoformat(timespec="milliseconds")
    plain = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f'<time datetime="{iso}" data-as="{"ago" if ago else "at"}">{plain}</time>'


def usd(amount_usd: float) -> str:
    """Dollars as people read them: cents, or four digits below ten cents."""
    return f"${amount_usd:,.2f}" if amount_usd >= 0.1 or amount_usd == 0 else f"${amount_usd:.4f}"


def cost(amount_usd: float, *, rehearsal: bool) -> str:
    """HTML of what a task cost, nothing for nothing. rehearsal: nobody charges for it."""
    if not amount_usd:
        return ""
    if rehearsal:
        return f'<span class="soft" title="Would have cost; {FREE}">({usd(amount_usd)})</span>'
    return usd(amount_usd)


def count(number: float) -> str:
    """1234567 as "1.2 M"."""
    for limit, mark in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= limit:
            return f"{number / (1e3 if mark == 'k' else limit):.1f} {mark}"
    return f"{number:,.0f}"


def size(size_bytes: float) -> str:
    """11300 as "11.3 kB"."""
    for limit, mark in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= limit:
            return f"{size_bytes / limit:,.1f} {mark}"
    return f"{size_bytes:,.0f} B"


def tile(name: str, value: str, note: str = "") -> str:
    """HTML of one figure with its name; `note` is a smaller line below."""
    below = f"<small>{escape(note)}</small>" if note else ""
    return f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b>{below}</div>'


def meter(part: float, *, label: str, warn: float = 0.8) -> str:
    """HTML of a bar, `part` from 0 to 1; more is full and bad."""
    percent = round(100 * min(max(part, 0.0), 1.0))
    kind = "bad" if part >= 1 else "warn" if part >= warn else ""
    return (
        f'<div class="meter {kind}" role="progressbar" aria-label="{escape(label, quote=True)}"'
        f' aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}">'
        f'<i style="width:{percent}%"></i></div>'
    )


def empty(icon: str, said: str, then: str) -> ui.column:
    """What stands where nothing is: what is not here, and what to do first."""
    with ui.column().classes("empty") as made:
        ui.icon(icon).props("aria-hidden=true")
        ui.label(said).classes("headline")
        ui.label(then).classes("lead")
    return made


def tell(error: AIError, before: str = "") -> None:
    """Say in words what went wrong."""
    said = f"{before}: {error}" if before else str(error)
    ui.notify(said[:1].upper() + said[1:], type="negative", position="top", multi_line=True)


def done(said: str) -> None:
    """Say that it worked."""
    ui.notify(said, type="positive", position="top", timeout=2500)


async def sure(question: str, more: str, word: str, *, bad: bool = True) -> bool:
    """Whether the person means it. word: what is on the button that goes ahead."""
    with ui.dialog() as asked, ui.card().classes("sheet"):
        ui.label(question).classes("headline")
        ui.label(more).classes("lead")
        ahead = choices(asked, word).props("autofocus")
        if bad:
            ahead.classes("danger", remove="main")
    answer = await asked
    if not asked.is_deleted:
        with suppress(ValueError):  # what it stood in was drawn anew meanwhile
            asked.delete()
    return bool(answer)


def choices(asked: ui.dialog, word: str) -> ui.button:
    """A dialog's last line: Cancel submits False, the button with `word` True. That button."""
    with ui.element("div").classes("line end"):
        ui.button("Cancel", on_click=lambda: asked.submit(False), color=None).props("flat no-caps")
        ahead = ui.button(word, on_click=lambda: asked.submit(True), color=None)
        return ahead.props("unelevated no-caps").classes("main")


def table(
    columns: dict[str, str],
    rows: list[dict[str, Any]],
    *,
    on_row: Callable[[str], Any] | None = None,
) -> ui.html:
    """A plain table of cells that are HTML already. columns: key to heading; a row's `id` goes to
    `on_row` when it is clicked or Enter is pressed on it.
    """
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in columns.values())
    body = "".join(
        f'<tr data-id="{escape(str(row.get("id", "")), quote=True)}"'
        f"{' tabindex=0 role=button' if on_row else ''}>"
        + "".join(
            f'<td data-name="{escape(name, quote=True)}">{row.get(key, "")}</td>'
            for key, name in columns.items()
        )
        + "</tr>"
        for row in rows
    )
    made = ui.html(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>").classes(
        "grid clickable" if on_row else "grid"
    )
    if on_row is not None:
        made.on("click", lambda event: on_row(event.args), js_handler=ROW_JS)
        made.on("keydown.enter", lambda event: on_row(event.args), js_handler=ROW_JS)
    return made


ROW_JS = """(event) => {
  const row = event.target.closest('tr[data-id]');
  if (row && !event.target.closest('a, button')) emit(row.dataset.id);
}"""
