"""The tasks page: what was asked and what became of it; dead letters as a tab for admins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from nicegui import Client, ui

from base import roster
from base.errors import AIError
from base.messages import Kind, Status
from portal import work
from portal.auth import Caller
from portal.desk import Desk
from portal.feed import Item
from portal.pages import parts, rows, shell
from portal.pages.letters import Letters
from portal.pages.live import Live

PAGE = 30
STATES = {"": "All states", **{one.value: one.value.replace("_", " ") for one in Status}}


def install(app: FastAPI) -> None:
    """`/tasks`."""
    shell.page(app, "/tasks", _draw)


async def _draw(desk: Desk, caller: Caller, client: Client, request: Request) -> None:
    live = Live(desk, caller, client)
    made = await shell.build(desk, caller, client, here="/tasks", title="Tasks", styles=("tasks",))
    page = Tasks(desk, caller)
    letters = Letters(desk, caller) if caller.admin else None
    asked = request.query_params.get("tab") == "letters"
    with made.body, ui.element("div").classes("page"):
        if letters is None:
            page.build()
        else:
            with ui.tabs().props("align=left no-caps inline-label") as tabs:
                ui.tab("tasks", label="Tasks")
                ui.tab("letters", label="Dead letters")
            with ui.tab_panels(tabs, value="letters" if asked else "tasks", animated=False):
                with ui.tab_panel("tasks"):
                    page.build()
                with ui.tab_panel("letters"):
                    letters.build()
            await letters.look()
    await page.look()

    async def take(items: Sequence[Item]) -> None:
        roots = {e.root_id for _, e in items if e.kind is Kind.TASK and e.task_id == e.root_id}
        if roots:
            await page.look()

    async def tick() -> None:
        await page.look()
        if letters is not None:
            await letters.look()

    live.start(made, take, tick=tick)


class Tasks:
    """The filters, and the rows that are loaded: the newest page and what was asked for below."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self._status = ""
        self._agent = ""
        self._words = ""
        self._count = PAGE
        self._drawn: object = None

    def build(self) -> None:
        agents = roster.load(self._desk.settings).agents
        with ui.element("div").classes("line"):
            ui.input(placeholder="Words", on_change=self._on_words).props(
                'outlined dense clearable debounce=250 data-search aria-label="Words"'
            )
            ui.select(STATES, value="", on_change=self._on_status).props(
                'outlined dense options-dense aria-label="Status"'
            )
            ui.select(
                {"": "All agents", **{name: name for name in agents}},
                value="",
                on_change=self._on_agent,
            ).props('outlined dense options-dense aria-label="Agent"')
        self._list = ui.element("div").classes("panel flush")
        self._empty = parts.empty(
            "account_tree",
            "No tasks yet",
            "Ask for something in the chat: the supervisor plans it, and its steps, criteria and "
            "costs are kept here.",
        )
        self._more = ui.button("Older tasks", on_click=self._on_more, color=None)
        self._more.props("flat no-caps").classes("quiet")

    async def look(self) -> None:
        """Read anew; draw only what changed."""
        found, more = await self._read()
        titles = await work.conversation_titles(self._desk, self._caller, found)
        free = self._desk.settings.rehearsal
        told = [rows.row(one, titles, rehearsal=free) for one in found]
        if told == self._drawn:
            return
        self._drawn = told
        filtered = bool(self._status or self._agent or self._words)
        self._list.clear()
        with self._list:
            if told:
                parts.table(rows.COLUMNS, told, on_row=_open)
            elif filtered:
                ui.label("Nothing fits these filters.").classes("hint pad")
        self._list.set_visibility(bool(told) or filtered)
        self._empty.set_visibility(not told and not filtered)
        self._more.set_visibility(more)

    async def _read(self) -> tuple[list[work.Task], bool]:
        found: list[work.Task] = []
        cursor = None
        while len(found) < self._count:
            page = await work.tasks(
                self._desk,
                self._caller,
                status=Status(self._status) if self._status else None,
                agent=self._agent or None,
                words=self._words,
                limit=PAGE,
                cursor=cursor,
            )
            found += page.tasks
            cursor = page.next_cursor
            if cursor is None:
                break
        return found, cursor is not None

    async def _on_words(self, event: Any) -> None:
        self._words = (event.value or "").replace("\0", "")
        await self._anew()

    async def _on_status(self, event: Any) -> None:
        self._status = event.value or ""
        await self._anew()

    async def _on_agent(self, event: Any) -> None:
        self._agent = event.value or ""
        await self._anew()

    async def _on_more(self) -> None:
        self._count += PAGE
        await self._anew(keep=True)

    async def _anew(self, *, keep: bool = False) -> None:
        if not keep:
            self._count = PAGE
        try:
            await self.look()
        except AIError as error:
            parts.tell(error)


def _open(task_id: str) -> None:
    ui.navigate.to(f"/tasks/{task_id}")
