"""The chat page. It calls the functions that the API calls and listens to the same feed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from nicegui import Client, ui
from pydantic import ValidationError

from base import roster
from base.errors import AIError
from base.messages import Effort
from portal import crew, talk, work
from portal.auth import Caller
from portal.desk import Desk
from portal.feed import Item
from portal.pages import composer, deeds, listing, parts, shell, voice, window
from portal.pages.composer import Draft
from portal.pages.live import Live
from portal.shapes import Send

STOP_JS = "window.aiStick && window.aiStick(true)"


def install(app: FastAPI) -> None:
    """`/`, `/chat` and `/chat/{id}`."""

    async def draw(desk: Desk, caller: Caller, client: Client, request: Request) -> None:
        live = Live(desk, caller, client)
        await Chat(desk, caller, client).build(
            live, request.path_params.get("conversation_id"), request.query_params.get("at")
        )

    for path in ("/", "/chat", "/chat/{conversation_id}"):
        shell.page(app, path, draw)


class Chat:
    """One open page of one caller. What changes the thread holds the lock, so that what is read
    and what is heard never cross.
    """

    def __init__(self, desk: Desk, caller: Caller, client: Client) -> None:
        self._desk = desk
        self._caller = caller
        self._client = client
        self._conversation_id: str | None = None
        self._agents: dict[str, crew.Agent] = {}
        self._changing = asyncio.Lock()
        self._shell: shell.Shell
        self._list: listing.Listing
        self._window: window.Window
        self._composer: composer.Composer
        self._voice: voice.Voice
        self._deeds: deeds.Deeds
        self._welcome: ui.column

    async def build(self, live: Live, conversation_id: str | None, at: str | None) -> None:
        """Make the page and start to follow. Raises NotFoundError for no such conversation."""
        desk, caller = self._desk, self._caller
        if conversation_id is not None:
            await talk.conversation(desk, caller, conversation_id)
        self._shell = await shell.build(
            desk,
            caller,
            self._client,
            here="/chat",
            title=listing.UNNAMED,
            side=True,
            styles=("chat",),
            scripts=("chat",),
        )
        self._list = listing.Listing(
            desk,
            caller,
            on_new=lambda: self._go(None),
            on_open=self._go,
            on_gone=self._gone,
            on_title=self._titled,
        )
        assert self._shell.side is not None
        with self._shell.side:
            self._list.build()
        with self._shell.actions:
            deeds.exports(lambda: self._conversation_id)
        self._window = window.Window(desk, caller, deeds.rank(desk, caller))
        self._deeds = deeds.Deeds(desk, caller, self._client, self._window, self._branch, self._ask)
        with self._shell.body:
            self._welcome = composer.welcome()
            self._window.build(self._deeds.answer, self._act)
        limits = desk.limiter.rates.uploads
        self._composer = composer.build(
            efforts=[effort.value for effort in Effort],
            agents=[spec.name for spec in roster.load(desk.settings).agents.values()],
            file_bytes=limits.file_bytes,
            files=limits.message_files,
            on_send=self._send,
            on_stop=self._stop,
        )
        with self._composer.voice:
            self._voice = voice.add()
        ui.on("chat_older", self._older)
        ui.on("chat_newer", self._newer)
        ui.on("chat_newest", self._newest)
        await self._load(conversation_id, at)
        live.start(self._shell, self._take)

    # What the person does ------------------------------------------------------------------

    async def _send(self, draft: Draft) -> bool:
        """True when the message is recorded; text and files stay in the box otherwise."""
        follows = None if self._window.newest else self._window.tip
        return await self._ask(
            {
                "content": draft.content,
                "attachments": draft.files,
                "effort": draft.effort,
                "agent": draft.agent,
                "follows": follows,
            }
        )

    async def _ask(self, fields: dict[str, Any]) -> bool:
        with self._client:  # the box it was written in may be gone by the end
            return await self._asked(fields)

    async def _asked(self, fields: dict[str, Any]) -> bool:
        desk, caller = self._desk, self._caller
        try:
            send = Send.model_validate(fields)
            await talk.spoke(desk, caller)
            async with self._changing:
                if self._conversation_id is None:
                    made = await talk.create(desk, caller, None)
                    self._conversation_id = made.id
                    ui.navigate.history.push(f"/chat/{made.id}")
                accepted = await talk.send(
                    desk, caller, self._conversation_id, send, key=str(uuid.uuid4())
                )
                self._welcome.set_visibility(False)
                await self._window.follow(self._conversation_id, accepted.message_id)
                self._show_stop()
        except ValidationError as error:
            said = error.errors()[0]["msg"].removeprefix("Value error, ")
            ui.notify(said[:1].upper() + said[1:], type="warning", position="top")
            return False
        except AIError as error:
            parts.tell(error, "Not sent")
            return False
        await self._listed()
        ui.run_javascript(STOP_JS)
        return True

    async def _stop(self) -> None:
        for root_id in self._window.open_roots():
            try:
                await work.cancel(self._desk, self._caller, root_id)
            except AIError as error:
                parts.tell(error, "Not stopped")

    async def _act(self, event: Any) -> None:
        given = {name: str(value) for name, value in event.args.items()}
        try:
            await self._deeds.do(given)
            self._show_stop()
        except AIError as error:
            parts.tell(error)

    async def _branch(self, message_id: str) -> None:
        """Show the newest branch through that message."""
        if self._conversation_id is not None:
            with self._client:
                ui.navigate.history.push(f"/chat/{self._conversation_id}?at={message_id}")
                async with self._changing:
                    await self._window.load(self._conversation_id, at=message_id)
                self._show_stop()

    async def _go(self, conversation_id: str | None) -> None:
        # In the client's own context: the row that was clicked is drawn anew meanwhile.
        with self._client:
            try:
                await self._load(conversation_id, None)
            except AIError as error:
                parts.tell(error)
                return
            ui.navigate.history.push(f"/chat/{conversation_id}" if conversation_id else "/chat")
            width_px = await self._client.run_javascript("window.innerWidth")
            if width_px is not None and width_px < shell.NARROW_PX:  # None: the page is gone
                self._shell.drawer.hide()

    async def _gone(self, conversation_id: str) -> None:
        if conversation_id == self._conversation_id:
            with self._client:
                await self._load(None, None)
                ui.navigate.history.push("/chat")

    # What is shown -------------------------------------------------------------------------

    async def _load(self, conversation_id: str | None, at: str | None) -> None:
        """Show a conversation from the record, and what is under way from the stream."""
        async with self._changing:
            await self._window.load(conversation_id, at=at)
            self._conversation_id = conversation_id
            found = await crew.agents(self._desk, self._caller)
            self._agents = {one.name: one for one in found}
            self._list.show_agents(found)
            self._welcome.set_visibility(self._window.empty)
        self._show_stop()
        await self._listed()
        ui.run_javascript(STOP_JS)

    async def _listed(self) -> None:
        if self._conversation_id is not None:
            found = await talk.conversation(self._desk, self._caller, self._conversation_id)
            self._titled(found.title or listing.UNNAMED)
        else:
            self._titled(listing.UNNAMED)
        await self._list.refresh(self._conversation_id)

    def _titled(self, title: str) -> None:
        if self._shell.title.text != title:
            self._shell.title.set_text(title)
            ui.page_title(f"{title} · AI Infrastructure")

    def _show_stop(self) -> None:
        self._composer.stop.set_visibility(bool(self._window.open_roots()))

    async def _older(self, _: Any = None) -> None:
        async with self._changing:
            await self._window.older()

    async def _newer(self, _: Any = None) -> None:
        async with self._changing:
            await self._window.newer()

    async def _newest(self, _: Any = None) -> None:
        async with self._changing:
            await self._window.end()
        ui.run_javascript(STOP_JS)

    async def _take(self, items: Sequence[Item]) -> None:
        async with self._changing:
            told = await self._window.take(items)
            for root_id in {event.root_id for _, event in items if event.root_id}:
                if (run := self._window.run(root_id)) is not None:
                    self._voice.feed(root_id, run.answer, whole=run.whole or run.ended)
            for _, event in items:
                known = self._agents.get(event.agent)
                if event.kind is event.kind.AGENT and known is not None:
                    fields = ("status", "paused")
                    change: dict[str, Any] = {
                        at: event.data[at] for at in fields if at in event.data
                    }
                    self._agents[event.agent] = known.model_copy(update=change)
                    self._list.show_agents(list(self._agents.values()))
            if not self._window.empty:
                self._welcome.set_visibility(False)
        self._show_stop()
        if told:
            await self._listed()
