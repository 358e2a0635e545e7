"""One request: its plan as a graph, phases over time, criteria, tool calls, logs; live."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request
from nicegui import Client, ui

from base.errors import AIError, StoreError
from base.messages import Kind
from portal import history, work
from portal.auth import Caller
from portal.desk import Desk
from portal.feed import Item
from portal.pages import course, graph, parts, rows, sheets, shell, timeline, view
from portal.pages.live import Live

#: Events paint the page anew at most so often; text as it streams is not shown here.
AGAIN_S = 0.5
STEER_MAX_CHARS = 4_000
PAINTED = frozenset({Kind.PLAN, Kind.TASK, Kind.TOOL, Kind.CRITERION, Kind.APPROVAL, Kind.MESSAGE})


def install(app: FastAPI) -> None:
    """`/tasks/{task_id}`."""
    shell.page(app, "/tasks/{task_id}", _draw)


async def _draw(desk: Desk, caller: Caller, client: Client, request: Request) -> None:
    live = Live(desk, caller, client)
    asked = await work.task(desk, caller, request.path_params["task_id"])
    root_id = asked.root_id or asked.id
    page = Page(desk, caller, await work.task_whole(desk, caller, root_id))
    await page.read()
    made = await shell.build(
        desk, caller, client, here="/tasks", title=rows.title(page.root), styles=("tasks",)
    )
    with made.body, ui.element("div").classes("page"):
        page.build()
    await page.paint()

    async def take(items: Sequence[Item]) -> None:
        own = [event for _, event in items if event.root_id == root_id]
        for event in own:
            page.apply(event)
        if any(event.kind in PAINTED for event in own):
            await page.soon()

    live.start(made, take, tick=page.tick)


class Page:
    """What is known of the request, and the elements that show it."""

    def __init__(self, desk: Desk, caller: Caller, whole: work.TaskWhole) -> None:
        self._desk = desk
        self._caller = caller
        self._whole = whole
        self._run = view.opened(whole)
        self._course = course.Course()
        self._painted_s = 0.0
        self._due = False
        self._stale = False
        self._documents: dict[str, str] = {}

    @property
    def root(self) -> work.Task:
        return self._whole.task

    async def read(self) -> None:
        """The events that are still kept, and each part's PRD.md."""
        told = view.Run(root_id=self.root.id)
        for event in await history.events(self._desk, self._caller, self.root):
            told = view.apply(told, event)
            self._course = course.apply(self._course, event)
        self._run = sheets.merged(self._run, told)
        await self._read_documents()

    def apply(self, event: Any) -> None:
        """One more event of the request."""
        self._run = view.apply(self._run, event)
        self._course = course.apply(self._course, event)
        self._stale = self._stale or event.kind in {Kind.PLAN, Kind.TASK, Kind.APPROVAL}

    async def soon(self) -> None:
        """Paint now, or at the next tick when it was painted just before."""
        self._due = True
        if time.monotonic() - self._painted_s >= AGAIN_S:
            await self.paint()

    async def tick(self) -> None:
        """The net: what events did not tell, and bars that grow while work goes on."""
        if self._due or not self._run.ended:
            self._stale = True
            await self.paint()

    def build(self) -> None:
        """Make the elements inside the present one."""
        self._head = ui.html("").classes("task-head")
        with ui.element("div").classes("line acts"):
            self._buttons()
        self._tiles = ui.html("").classes("tiles")
        self._notices = ui.html("").classes("notices")
        self._graph_name = ui.label("Plan").classes("section")
        self._graph = ui.html("").classes("panel drawing").props('tabindex=0 aria-label="Plan"')
        self._time_name = ui.label("Time").classes("section")
        self._time = ui.html("").classes("panel drawing")
        names = ("Answer", "Criteria", "Tool calls", "Log", "PRD.md", "Usage")
        with ui.tabs().props("align=left no-caps outside-arrows") as tabs:
            for name in names:
                ui.tab(name)
        self._sheets: dict[str, ui.html] = {}
        with ui.tab_panels(tabs, value=names[0], animated=False, keep_alive=True):
            for name in names:
                with ui.tab_panel(name):
                    self._sheets[name] = ui.html("").classes("sheet-body")

    async def paint(self) -> None:
        """Show everything as it is known now; the record is read again where events changed it."""
        self._painted_s, self._due = time.monotonic(), False
        if self._stale:
            with suppress(StoreError):  # the next tick tries again
                await self._read_record()
                self._stale = False
        root, run = self.root, self._run
        tasks = {one.id: one for one in self._whole.subtasks}
        _set(self._head, sheets.head(root, run))
        free = self._desk.settings.rehearsal
        _set(self._tiles, sheets.tiles(root, run, list(tasks.values()), rehearsal=free))
        _set(self._notices, sheets.notices(root, run, self._whole.approvals))
        drawn = graph.draw(run.steps)
        over = timeline.draw(run.steps, tasks, self._course, datetime.now(UTC))
        for name, element, html in (
            (self._graph_name, self._graph, drawn),
            (self._time_name, self._time, over),
        ):
            _set(element, html)
            element.set_visibility(bool(html))
            name.set_visibility(bool(html))
        _set(self._sheets["Answer"], sheets.answer(root, run))
        _set(self._sheets["Criteria"], sheets.criteria(run.steps))
        _set(self._sheets["Tool calls"], sheets.calls(self._course.calls))
        _set(self._sheets["Log"], sheets.log(self._whole.logs, run.steps))
        _set(self._sheets["PRD.md"], sheets.documents(run.steps, self._documents))
        _set(self._sheets["Usage"], sheets.usage(root, list(tasks.values())))
        ended = run.ended
        self._cancel.set_visibility(not ended)
        self._retry.set_visibility(ended)
        self._steering.set_visibility(not ended)

    def _buttons(self) -> None:
        self._cancel = ui.button("Cancel", icon="stop", on_click=self._on_cancel, color=None)
        self._cancel.props("flat no-caps").classes("quiet")
        self._retry = ui.button("Run it again", icon="replay", on_click=self._on_retry, color=None)
        self._retry.props("flat no-caps").classes("quiet")
        if self.root.conversation_id:
            ui.button(
                "Conversation",
                icon="forum",
                on_click=lambda: ui.navigate.to(f"/chat/{self.root.conversation_id}"),
                color=None,
            ).props("flat no-caps").classes("quiet")
        with ui.element("div").classes("steering") as self._steering:
            self._steer = ui.input(placeholder="Say more to the agents at work").props(
                f'outlined dense maxlength={STEER_MAX_CHARS} aria-label="Say more to the agents"'
            )
            self._steer.on("keydown.enter", self._on_steer)
            ui.button(icon="send", on_click=self._on_steer, color=None).props(
                'flat round dense aria-label="Send to the agents"'
            )

    async def _on_cancel(self) -> None:
        if await parts.sure(
            "Cancel this task?",
            "The agents stop at their next step. What they changed in the workspace stays.",
            "Cancel the task",
        ):
            try:
                await work.cancel(self._desk, self._caller, self.root.id)
                parts.done("It is being cancelled.")
            except AIError as error:
                parts.tell(error, "it was not cancelled")

    async def _on_retry(self) -> None:
        try:
            answer = await work.retry(self._desk, self._caller, self.root.id)
        except AIError as error:
            parts.tell(error, "it was not started again")
            return
        ui.navigate.to(f"/tasks/{answer['task_id']}")

    async def _on_steer(self) -> None:
        text = (self._steer.value or "").strip()
        if not text:
            return
        try:
            await work.steer(self._desk, self._caller, self.root.id, text)
        except AIError as error:
            parts.tell(error, "it was not sent")
            return
        self._steer.set_value("")
        parts.done("The agents were told.")

    async def _read_record(self) -> None:
        self._whole = await work.task_whole(self._desk, self._caller, self.root.id)
        self._run = sheets.merged(view.opened(self._whole), self._run)
        await self._read_documents()

    async def _read_documents(self) -> None:
        for part in (self.root, *self._whole.subtasks):
            text = await history.prd(self._desk, part)
            if text is not None:
                self._documents[part.id] = text


def _set(element: ui.html, html: str) -> None:
    if element.content != html:
        element.set_content(html)
