"""The approvals page: one queue over all agents, answered by keyboard or mouse, live."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from nicegui import Client, ui

from base.errors import AIError
from base.messages import Kind
from portal import approvals
from portal.approvals import Waiting
from portal.auth import Caller
from portal.desk import Desk
from portal.feed import Item
from portal.pages import ask, parts, shell
from portal.pages.live import Live

REASON_CHARS = 500


def install(app: FastAPI) -> None:
    """`/approvals`."""
    shell.page(app, "/approvals", _draw)


async def _draw(desk: Desk, caller: Caller, client: Client, request: Request) -> None:
    live = Live(desk, caller, client)
    made = await shell.build(
        desk,
        caller,
        client,
        here="/approvals",
        title="Approvals",
        styles=("approvals",),
        scripts=("approvals",),
    )
    page = Approvals(desk, caller, made)
    with made.body, ui.element("div").classes("page asks"):
        page.build()
    await page.read()

    async def take(items: Sequence[Item]) -> None:
        if any(event.kind is Kind.APPROVAL for _, event in items):
            await page.read()

    # An admin sees everybody's, whose events do not come here: the tick finds those.
    live.start(made, take, tick=page.read)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One that waits, on the page."""

    box: ui.element
    reason: ui.input
    buttons: tuple[ui.button, ...]


class Approvals:
    """What is shown by id, so that reading again leaves alone what a person is about to answer."""

    def __init__(self, desk: Desk, caller: Caller, made: shell.Shell) -> None:
        self._desk = desk
        self._caller = caller
        self._shell = made
        self._lock = asyncio.Lock()
        self._rows: dict[str, Row] = {}
        self._cursor: str | None = None
        self._seen: tuple[str, ...] | None = None

    def build(self) -> None:
        """Make the page inside the present element."""
        with ui.element("div").classes("line") as self._how:
            ui.html(
                "First what has spent the most, since that is lost when nobody answers; of equals"
                " what waits longest. <span class=keyed><kbd>j</kbd> <kbd>k</kbd> move,"
                " <kbd>a</kbd> approves, <kbd>d</kbd> denies, <kbd>r</kbd> writes a reason,"
                " <kbd>Enter</kbd> opens the details.</span>"
            ).classes("hint")
        self._queue = ui.element("div").classes("queue").props('role=list aria-label="Waiting"')
        self._empty = parts.empty(
            "how_to_reg",
            "Nothing waits for you",
            "When an agent wants to do something above its level, it asks here and waits.",
        )
        with ui.element("div").classes("history") as self._history:
            ui.label("Answered").classes("section")
            self._past = ui.element("div").classes("panel flush")
            self._more = ui.button("Show older", on_click=self._older, color=None)
            self._more.props("flat no-caps").classes("quiet")
        self._history.set_visibility(False)

    async def read(self) -> None:
        """Bring the queue up to date; when one left it, the answered ones too."""
        async with self._lock:
            await self._read()

    async def _read(self) -> None:
        found = await approvals.queue(self._desk, self._caller)
        ids = tuple(one.approval.id for one in found)
        for gone in [id for id in self._rows if id not in ids]:
            self._rows.pop(gone).box.delete()
        for at, one in enumerate(found):
            if one.approval.id not in self._rows:
                with self._queue:
                    self._rows[one.approval.id] = self._row(one)
            box = self._rows[one.approval.id].box
            if self._queue.default_slot.children.index(box) != at:
                box.move(self._queue, at)
        self._empty.set_visibility(not found)
        self._how.set_visibility(bool(found))
        if ids != self._seen:
            self._seen = ids
            await self._fresh_history()

    def _row(self, one: Waiting) -> Row:
        found = one.approval
        props = f'role=listitem tabindex=0 data-id="{found.id}"'
        with ui.element("article").classes("panel ask").props(props) as box:
            ui.html(ask.head(one, everybody=self._caller.admin))
            ui.html(ask.body(one))
            with ui.element("details"):
                with ui.element("summary"):
                    ui.label("Details")
                ui.html(ask.details(found))
            with ui.element("div").classes("line answer"):
                reason = ui.input(placeholder="Reason, told to the agent (optional)").props(
                    f'outlined dense maxlength={REASON_CHARS} aria-label="Reason"'
                )
                approve = ui.button("Approve", icon="check", color=None)
                deny = ui.button("Deny", icon="close", color=None)
        approve.props("unelevated no-caps data-do=approve").classes("main")
        deny.props("unelevated no-caps data-do=deny").classes("quiet")
        row = Row(box=box, reason=reason, buttons=(approve, deny))
        approve.on_click(lambda: self._answer(one, row, approve=True))
        deny.on_click(lambda: self._answer(one, row, approve=False))
        return row

    async def _answer(self, one: Waiting, row: Row, *, approve: bool) -> None:
        found = one.approval
        for button in row.buttons:
            button.disable()
        try:
            if approve and found.risk in ask.TWICE:
                with self._shell.body:
                    meant = await parts.sure(
                        f"This is of {found.risk} risk. Approve it?",
                        f"{ask.command(found)} — {ask.RISKS[found.risk]} There is no way back.",
                        "Approve all the same",
                    )
                if not meant:
                    return
            said = (row.reason.value or "").strip()
            await approvals.decide(self._desk, self._caller, found.id, approve, said)
            with self._shell.body:
                parts.done(f"{'Approved' if approve else 'Denied'}: {found.request.agent} hears it")
            await self.read()
        except AIError as error:
            with self._shell.body:
                parts.tell(error, "Not answered")
            await self.read()
        finally:
            if found.id in self._rows:
                for button in row.buttons:
                    button.enable()

    async def _fresh_history(self) -> None:
        self._past.clear()
        self._cursor = None
        await self._older()

    async def _older(self, _: Any = None) -> None:
        page = await approvals.answered(self._desk, self._caller, cursor=self._cursor)
        self._cursor = page.next_cursor
        with self._past:
            for one in page.approvals:
                ui.html(ask.past(one, page.whose))
        self._more.set_visibility(page.next_cursor is not None)
        self._history.set_visibility(bool(self._past.default_slot.children))
