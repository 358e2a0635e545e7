"""The audit page, for admins: the log by filter, its check, its export."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import orjson
from fastapi import FastAPI, Request
from nicegui import Client, ui

from base.errors import AIError
from base.plural import counted
from portal import ledger
from portal.auth import Caller
from portal.desk import Desk
from portal.ledger import AuditRow
from portal.pages import parts, shell
from portal.pages.live import Live
from portal.pages.marks import shown

if TYPE_CHECKING:
    from base.audit_verify import Report

PAGE = 50
SHOW_S = 0.2
DAYS = {0: "Any time", 1: "Last day", 7: "Last 7 days", 30: "Last 30 days", 365: "Last year"}
TYPES = ("auth", "access", "action", "escalation", "error", "audit")
RISKS = ("low", "medium", "high", "critical")
OUTCOMES = ("success", "failure", "denied")
PROVES = (
    "Each row holds the hash of the row before it, and the newest hash is signed again and again."
    " So an edit, a deletion, a reordering and a row from elsewhere are found by the chain; a cut"
    " end and a log rewritten whole, by the signatures. Not found: what was cut off after the"
    " newest signature, and a whole rewrite by somebody who has the private key and every copy of"
    " the signed heads. Keep a copy of an export elsewhere."
)


def install(app: FastAPI) -> None:
    """`/audit`."""
    shell.page(app, "/audit", _draw, admin=True)


async def _draw(desk: Desk, caller: Caller, client: Client, request: Request) -> None:
    live = Live(desk, caller, client)
    made = await shell.build(desk, caller, client, here="/audit", title="Audit", styles=("audit",))
    page = Audit(desk, caller)
    with made.body, ui.element("div").classes("page audit"):
        page.build()
        await page.read()

    async def take(_: Any) -> None: ...

    live.start(made, take)


class Audit:
    """The filters, the rows that were read so far, and a check under way."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self._wanted: dict[str, Any] = {}
        self._days = 0
        self._rows: list[AuditRow] = []
        self._names: dict[str, str] = {}
        self._cursor: str | None = None
        self._asked = 0
        self._done, self._all = 0, 1

    def build(self) -> None:
        """Make the page inside the present element."""
        with ui.element("div").classes("line"):
            ui.input(
                placeholder="Words", on_change=lambda event: self._choose(words=event.value)
            ).props(
                'outlined dense clearable debounce=300 maxlength=200 data-search aria-label="Words"'
            )
            self._pick("Type", "event_type", TYPES)
            self._pick("Risk", "risk", RISKS)
            self._pick("Outcome", "outcome", OUTCOMES)
            for name, label in (("actor", "Actor"), ("task", "Task id")):
                ui.input(
                    placeholder=label,
                    on_change=lambda event, at=name: self._choose(**{at: event.value}),
                ).props(
                    f'outlined dense clearable debounce=300 maxlength=100 aria-label="{label}"'
                ).classes("small")
            ui.select(DAYS, value=0, on_change=self._choose_days).props(
                'outlined dense options-dense aria-label="Time"'
            )
        with ui.element("div").classes("line"):
            ui.label("Newest first. Nothing here can be changed or deleted.").classes("hint")
            ui.element("div").classes("grow")
            self._export = (
                ui.element("a").classes("export").props('download href="/api/audit/export"')
            )
            with self._export:
                ui.icon("download").props("aria-hidden=true")
                ui.label("Export")
            self._check = ui.button("Verify", icon="verified", on_click=self._verify, color=None)
            self._check.props("unelevated no-caps").classes("main")
        with ui.element("div").classes("panel") as self._progress:
            self._bar = ui.linear_progress(0, show_value=False).props('aria-label="Checked so far"')
            self._said = ui.label("").classes("hint")
        self._progress.set_visibility(False)
        self._report = ui.html("").classes("report").props("role=status")
        self._list = ui.html("").classes("panel flush rows")
        self._more = ui.button("Show older", on_click=self._older, color=None)
        self._more.props("flat no-caps").classes("quiet")

    def _pick(self, label: str, name: str, words: tuple[str, ...]) -> None:
        options = {"": f"{label}: any", **{one: one for one in words}}
        ui.select(
            options, value="", on_change=lambda event: self._choose(**{name: event.value})
        ).props(f'outlined dense options-dense aria-label="{label}"')

    async def read(self) -> None:
        """The first page of what the filters let through."""
        self._rows, self._cursor = [], None
        self._asked += 1
        await self._older()

    async def _older(self, _: Any = None) -> None:
        asked = self._asked
        try:
            since = datetime.now(UTC) - timedelta(days=self._days) if self._days else None
            page = await ledger.rows(
                self._desk,
                self._caller,
                **self._wanted,
                since=since,
                limit=PAGE,
                cursor=self._cursor,
            )
        except AIError as error:
            parts.tell(error, "Not read")
            return
        if asked != self._asked:  # the filters changed meanwhile
            return
        self._rows += page.rows
        self._cursor = page.next_cursor
        nothing = '<p class="hint pad">No row fits.</p>'
        self._names |= await ledger.names(self._desk, page.rows)
        self._list.set_content("".join(row(one, self._names) for one in self._rows) or nothing)
        self._more.set_visibility(page.next_cursor is not None)

    async def _choose(self, **what: str | None) -> None:
        self._wanted |= {name: (value or "").strip() or None for name, value in what.items()}
        await self.read()

    async def _choose_days(self, event: Any) -> None:
        self._days = int(event.value or 0)
        since = datetime.now(UTC) - timedelta(days=self._days)
        query = f"?{urlencode({'since': since.isoformat()})}" if self._days else ""
        self._export.props(f'href="/api/audit/export{query}"')
        await self.read()

    async def _verify(self) -> None:
        """The check itself runs in a thread; a timer shows how far it is."""
        self._check.disable()
        self._report.set_content("")
        self._progress.set_visibility(True)
        self._done, self._all = 0, max(1, await ledger.count(self._desk))
        timer = ui.timer(SHOW_S, self._show)
        try:
            found = await ledger.verify(self._desk, self._caller, self._heard)
            self._report.set_content(told(found))
        except AIError as error:
            parts.tell(error, "Not verified")
        finally:
            timer.cancel()
            self._progress.set_visibility(False)
            self._check.enable()

    def _heard(self, checked: int) -> None:
        self._done = checked

    def _show(self) -> None:
        self._bar.set_value(min(1.0, self._done / self._all))
        self._said.set_text(f"{self._done:,} of about {self._all:,} rows checked")


def row(one: AuditRow, names: Mapping[str, str]) -> str:
    """One row as a line that opens to everything it holds. names: how users log in, by id."""
    who = names.get(one.actor_id, one.actor_id)
    where = " ".join(filter(None, (one.resource_type, one.resource_path)))
    task = one.details.get("task_id") if isinstance(one.details, dict) else None
    link = (
        f'<a href="/tasks/{escape(str(task), quote=True)}">{escape(str(task))}</a>' if task else ""
    )
    whole = orjson.dumps(one.details, option=orjson.OPT_INDENT_2).decode()
    facts = {
        "Row": str(one.seq) if one.seq is not None else "not of the chain",
        "Id": f"<code>{escape(one.id)}</code>",
        "Actor": escape(
            f"{one.actor_type} {who}" + (f" ({one.actor_id})" if who != one.actor_id else "")
        ),
        "Address": escape(one.actor_ip or ""),
        "Resource": escape(where),
        "Task": link,
        "Details": f"<pre>{escape(whole)}</pre>" if one.details else "",
        "Hash": f"<code>{escape(one.hash or '')}</code>",
        "Hash before": f"<code>{escape(one.prev_hash or '')}</code>",
    }
    lines = "".join(f"<dt>{name}</dt><dd>{said}</dd>" for name, said in facts.items() if said)
    tone = {"low": ""}.get(one.risk_level or "low")
    return shown(
        f'<details class="entry"><summary>{parts.when(one.timestamp)}'
        f'<span class="event-type">{escape(one.event_type)} · {escape(one.action)}</span>'
        f"{parts.pill(one.outcome)}"
        f'<b dir="auto">{escape(who)}</b>'
        f'<span class="where" dir="auto">{escape(where)}</span>'
        f"{parts.pill(one.risk_level or 'low', tone)}</summary><dl>{lines}</dl></details>"
    )


def told(report: Report) -> str:
    """What the check found, and what that proves."""
    seconds = f"in {report.duration_s:.1f} s"
    rows = (
        f"{counted(report.rows, 'row')}, {report.first_seq:,} to {report.last_seq:,},"
        f" checked {seconds}"
        if report.rows
        else f"No rows, checked {seconds}"
    )
    signed = ""
    if report.signed_at is not None:
        since = max(0, report.last_seq - report.signed_seq)
        signed = (
            f"<p>{counted(report.heads, 'signed head')}; the newest is of"
            f" {parts.when(datetime.fromisoformat(report.signed_at))} for row"
            f" {report.signed_seq:,}, {counted(since, 'row')} since.</p>"
        )
    faults = "".join(
        f"<li><b>{escape(one.kind)}</b> "
        f"{f'row {one.seq}' if one.seq is not None else 'the log'}"
        f"{f' <code>{escape(one.id)}</code>' if one.id else ''}: {escape(one.said)}</li>"
        for one in report.faults
    )
    more = report.fault_count - len(report.faults)
    head = (
        '<p class="verdict good"><b>Verified: nothing was changed.</b></p>'
        if report.ok
        else f'<p class="verdict bad"><b>Tampered: '
        f"{counted(report.fault_count, 'fault')} found.</b></p>"
    )
    notes = "".join(f"<p>Note: {escape(one)}.</p>" for one in report.notes)
    return shown(
        f'<div class="panel">{head}<p>{rows}.</p>{signed}'
        f"{f'<ul>{faults}</ul>' if faults else ''}{f'<p>and {more:,} more</p>' if more > 0 else ''}"
        f'{notes}<p class="hint">{escape(PROVES)}</p></div>'
    )
