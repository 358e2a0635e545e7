"""The chat page. It calls the functions that the API calls and listens to the same feed."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from nicegui import Client, ui
from nicegui.elements.html import Html
from pydantic import ValidationError

from base import log, roster
from base.errors import AIError, NotFoundError, UnauthenticatedError
from base.messages import Effort, Event, Kind
from portal import crew, talk, work
from portal.auth import Caller
from portal.desk import Desk
from portal.door import caller_of
from portal.feed import Item, Listener
from portal.pages import draw, frame, view
from portal.shapes import Send

PAINT_S = 0.12
CHECK_S = 3.0
REPLAY_BEFORE_MS = 2_000
STOP_JS = "window.aiStick && window.aiStick(true)"


def install(app: FastAPI) -> None:
    """`/`, `/chat` and `/chat/{id}`."""

    @ui.page("/")
    async def home(request: Request, client: Client) -> Response | None:
        return await _show(app.state.desk, request, client, None)

    @ui.page("/chat")
    async def chat(request: Request, client: Client) -> Response | None:
        return await _show(app.state.desk, request, client, None)

    @ui.page("/chat/{conversation_id}")
    async def one(request: Request, client: Client, conversation_id: str) -> Response | None:
        return await _show(app.state.desk, request, client, conversation_id)


async def _show(
    desk: Desk, request: Request, client: Client, conversation_id: str | None
) -> Response | None:
    try:
        caller = await caller_of(request, desk)
    except UnauthenticatedError:
        return RedirectResponse("/login", 303)
    page = Chat(desk, caller, client)
    try:
        await page.build(conversation_id)
    except NotFoundError:
        return RedirectResponse("/chat", 303)
    return None


class Chat:
    """One open page of one caller."""

    def __init__(self, desk: Desk, caller: Caller, client: Client) -> None:
        self._desk = desk
        self._caller = caller
        self._client = client
        self._conversation_id: str | None = None
        self._runs: dict[str, view.Run] = {}
        self._blocks: dict[str, tuple[Html, Html]] = {}
        self._dirty: set[str] = set()
        self._agents: dict[str, crew.Agent] = {}
        self._frame: frame.Frame
        self._follower: asyncio.Task[None] | None = None

    async def build(self, conversation_id: str | None) -> None:
        """Make the page and start to follow. Raises NotFoundError for no such conversation."""
        if conversation_id is not None:
            await talk.conversation(self._desk, self._caller, conversation_id)
        names = [spec.name for spec in roster.load(self._desk.settings).agents.values()]
        self._frame = frame.build(
            rehearsal=self._desk.settings.rehearsal,
            theme=self._client.request.cookies.get("ai-theme"),
            email=self._caller.email,
            efforts=[effort.value for effort in Effort],
            agents=names,
            on_send=self._send,
            on_stop=self._stop,
            on_new=self._new,
            on_open=self._open,
            on_archive=self._archive,
        )
        listening = contextlib.ExitStack()
        listener = listening.enter_context(self._desk.feed.listen(self._caller.user_id))
        try:
            await self._load(conversation_id)
        except BaseException:
            listening.close()
            raise
        self._follower = asyncio.create_task(self._follow(listener, listening), name="chat page")
        self._client.on_delete(self._leave)

    def _leave(self) -> None:
        if self._follower is not None:
            self._follower.cancel()

    # What the person does ------------------------------------------------------------------

    async def _send(self, content: str, effort: str | None, agent: str | None) -> bool:
        """True when the message is recorded; the text stays in the box otherwise."""
        try:
            send = Send.model_validate({"content": content, "effort": effort, "agent": agent})
            await talk.spoke(self._desk, self._caller)
            if self._conversation_id is None:
                made = await talk.create(self._desk, self._caller, None)
                self._conversation_id = made.id
                self._frame.welcome.set_visibility(False)
                ui.navigate.history.push(f"/chat/{made.id}")
            accepted = await talk.send(
                self._desk, self._caller, self._conversation_id, send, key=str(uuid.uuid4())
            )
        except ValidationError as error:
            said = error.errors()[0]["msg"].removeprefix("Value error, ")
            ui.notify(said[:1].upper() + said[1:], type="warning", position="top")
            return False
        except AIError as error:
            ui.notify(f"Not sent: {error}", type="negative", position="top")
            return False
        self._add_user(accepted.task_id, send.content)
        self._paint()
        await self._list()
        ui.run_javascript(STOP_JS)
        return True

    async def _stop(self) -> None:
        for run in [run for run in self._runs.values() if not run.ended]:
            try:
                await work.cancel(self._desk, self._caller, run.root_id)
            except AIError as error:
                ui.notify(f"Not stopped: {error}", type="negative", position="top")

    async def _new(self) -> None:
        await self._go(None)

    async def _open(self, conversation_id: str) -> None:
        await self._go(conversation_id)

    async def _go(self, conversation_id: str | None) -> None:
        # In the client's own context: the row that was clicked is drawn anew meanwhile.
        with self._client:
            ui.navigate.history.push(f"/chat/{conversation_id}" if conversation_id else "/chat")
            await self._load(conversation_id)
            if await self._client.run_javascript("window.innerWidth") < frame.NARROW_PX:
                self._frame.drawer.hide()

    async def _archive(self, conversation_id: str) -> None:
        with self._client:
            await talk.archive(self._desk, self._caller, conversation_id)
            if conversation_id == self._conversation_id:
                await self._go(None)
            else:
                await self._list()

    # What is shown -------------------------------------------------------------------------

    async def _load(self, conversation_id: str | None) -> None:
        """Show a conversation from the record, and what is under way from the stream."""
        desk, caller = self._desk, self._caller
        here = desk.feed.position
        self._conversation_id = conversation_id
        self._runs, self._blocks = {}, {}
        self._dirty.clear()
        self._frame.thread.clear()
        self._agents = {one.name: one for one in await crew.agents(desk, caller)}
        self._frame.show_agents(list(self._agents.values()))
        messages: list[talk.Said] = []
        if conversation_id is not None:
            messages = (await talk.messages(desk, caller, conversation_id, limit=100)).messages
        self._frame.welcome.set_visibility(not messages)
        roots = {said.task_id for said in messages if said.task_id is not None}
        known = {one.task.id: one for one in await work.wholes(desk, caller, list(roots))}
        for said in messages:
            if said.role == "user":
                self._add_user(said.task_id or said.id, said.content, known.get(said.task_id or ""))
            else:
                self._add_answer(said, known.get(said.task_id or ""))
        await self._replay(here, [one.task for one in known.values()])
        self._paint()
        await self._list()
        ui.run_javascript(STOP_JS)

    async def _replay(self, here: str, roots: list[work.Task]) -> None:
        """Fold in what the stream kept about requests that still run."""
        began = [root.created_at for root in roots if not root.status.ended]
        if began:
            cursor = f"{max(0, int(min(began).timestamp() * 1000) - REPLAY_BEFORE_MS)}-0"
            async for _, event in self._desk.feed.between(cursor, here, self._caller.user_id):
                run = self._runs.get(event.root_id or "")
                if run is not None and not run.ended:
                    self._fold(event)

    def _add_user(self, root_id: str, content: str, known: work.TaskWhole | None = None) -> None:
        if root_id in self._blocks:
            return
        with self._frame.thread:
            ui.html(draw.user_text(content)).classes("msg user")
            self._block(root_id)
        run = view.opened(known) if known is not None else view.Run(root_id=root_id)
        self._runs[root_id] = run
        self._dirty.add(root_id)

    def _block(self, root_id: str) -> None:
        panel = ui.html("").classes("run")
        self._blocks[root_id] = (panel, ui.html("").classes("msg answer"))

    def _add_answer(self, said: talk.Said, known: work.TaskWhole | None) -> None:
        root_id = said.task_id or said.id
        if root_id not in self._blocks:
            with self._frame.thread:
                self._block(root_id)
            whole = view.opened(known) if known is not None else None
            self._runs[root_id] = whole or view.Run(root_id=root_id, status="completed")
        run = self._runs[root_id]
        event = Event(
            kind=Kind.MESSAGE,
            agent=said.agent or "",
            root_id=root_id,
            data={"role": "assistant", "content": said.content},
        )
        self._runs[root_id] = view.apply(run, event)
        self._dirty.add(root_id)

    def _fold(self, event: Event) -> None:
        """Take in one event; painting comes later, for many at once."""
        if event.kind is Kind.AGENT:
            known = self._agents.get(event.agent)
            if known is not None:
                fields = ("status", "paused")
                change: dict[str, Any] = {at: event.data[at] for at in fields if at in event.data}
                self._agents[event.agent] = known.model_copy(update=change)
                self._dirty.add("")
            return
        root_id = event.root_id
        if root_id is None or event.conversation_id != self._conversation_id:
            return
        if root_id not in self._blocks:
            content = event.data.get("content", "") if event.kind is Kind.MESSAGE else ""
            self._frame.welcome.set_visibility(False)
            if event.data.get("role") == "user":
                self._add_user(root_id, str(content))
                return
            with self._frame.thread:
                self._block(root_id)
            self._runs[root_id] = view.Run(root_id=root_id)
        self._runs[root_id] = view.apply(self._runs[root_id], event)
        self._dirty.add(root_id)

    def _paint(self) -> None:
        """Bring the changed parts onto the page."""
        for root_id in self._dirty - {""}:
            run, (panel, answer) = self._runs[root_id], self._blocks[root_id]
            panel.set_content(draw.panel(run) if run.steps or not run.answer else "")
            answer.set_content(draw.answer(run))
        if "" in self._dirty:
            self._frame.show_agents(list(self._agents.values()))
        self._dirty.clear()
        self._frame.stop.set_visibility(any(not run.ended for run in self._runs.values()))

    async def _list(self) -> None:
        page = await talk.conversations(self._desk, self._caller, limit=50)
        self._frame.show_conversations(page.conversations, self._conversation_id)

    # Following -----------------------------------------------------------------------------

    async def _follow(self, listener: Listener, listening: contextlib.ExitStack) -> None:
        """Paint what happens until the page or the session goes; events are batched."""
        with listening, self._client:
            while not await self._desk.auth.over(self._caller):
                item = await _next(listener)
                if item is None:
                    continue
                if item == "lost":
                    ui.navigate.reload()
                    return
                await asyncio.sleep(PAINT_S)
                await self._take([item, *listener.waiting()])
            ui.navigate.to("/login")

    async def _take(self, items: list[Any]) -> None:
        try:
            for _, event in items:
                self._fold(event)
            self._paint()
            if any(event.kind is Kind.MESSAGE for _, event in items):
                await self._list()
        except AIError as error:
            log.get("portal").warning("page not refreshed", error=str(error))


async def _next(listener: Listener) -> Item | str | None:
    """The next event; None: none for a while; "lost": there will be none."""
    try:
        async with asyncio.timeout(CHECK_S):
            return await listener.get() or "lost"
    except TimeoutError:
        return None
