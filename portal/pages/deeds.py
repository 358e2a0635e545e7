"""What a person can do with one turn: copy, rate, try again, edit, see memories, steer, stop."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from html import escape
from typing import Any

from nicegui import Client, ui

from base.approvals import Approval
from base.errors import AIError
from base.levels import Levels
from portal import approvals, feedback, recalled, work
from portal.auth import Caller
from portal.desk import Desk
from portal.pages import parts
from portal.pages.blocks import Block
from portal.pages.marks import shown
from portal.pages.window import Window
from portal.shapes import MESSAGE_MAX_CHARS, Feedback

Show = Callable[[str], Awaitable[None]]
Ask = Callable[[dict[str, Any]], Awaitable[bool]]


def rank(desk: Desk, caller: Caller) -> int:
    """The highest level that this person may approve."""
    return Levels.load(desk.settings).user(caller.role)


def exports(here: Callable[[], str | None]) -> None:
    """The button that takes the whole conversation along, inside the present element."""
    with (
        ui.button(icon="download", color=None)
        .props('flat round dense aria-label="Export conversation"')
        .tooltip("Export"),
        ui.menu(),
    ):
        for name, form in (("Markdown", "markdown"), ("JSON", "json")):

            def take(form: str = form) -> None:
                if (conversation_id := here()) is None:
                    ui.notify("There is nothing to export yet.", position="top")
                    return
                ui.navigate.to(f"/api/conversations/{conversation_id}/export?format={form}")

            ui.menu_item(f"Export as {name}", on_click=take)


class Deeds:
    """Of one page. `show`: the branch through a message; `ask`: send a message."""

    def __init__(
        self, desk: Desk, caller: Caller, client: Client, window: Window, show: Show, ask: Ask
    ) -> None:
        self._desk = desk
        self._caller = caller
        self._client = client
        self._window = window
        self._show = show
        self._ask = ask

    async def do(self, given: dict[str, str]) -> None:
        """One deed, as the page's buttons name it. Raises AIError."""
        block = self._window.block(given["turn"])
        if block is None:
            return
        match given["do"]:
            case "copy":
                self._copy(block.run.answer)
            case "copy-mine":
                self._copy(block.turn.message.content)
            case "version":
                await self._show(given["value"])
            case "answer" if given["value"] in block.runs:
                block.shown = given["value"]
                self._window.paint(block.id)
            case "rate":
                await self._rate(block, given)
            case "retry":
                await self._retry(block)
            case "edit":
                self._edit(block)
            case "memories":
                await self._memories(block)
            case "stop":
                await work.cancel(self._desk, self._caller, given["id"])
            case "steer":
                await self._steer(given["id"])

    def _copy(self, text: str) -> None:
        ui.run_javascript(f"window.aiCopy({json.dumps(text)})")

    async def _rate(self, block: Block, given: dict[str, str]) -> None:
        rating = int(given["value"])
        said = Feedback(rating=rating, kind=None, comment="")
        await feedback.give(self._desk, self._caller, given["id"], said)
        block.ratings[block.shown] = rating
        self._window.paint(block.id)
        parts.done("Noted; memory learns from it.")

    async def _retry(self, block: Block) -> None:
        answer = await work.retry(self._desk, self._caller, block.shown)
        block.add_root(str(answer["task_id"]))
        self._window.took(block)

    def _edit(self, block: Block) -> None:
        if block.editing:
            return

        async def save(content: str) -> None:
            fields = {
                "content": content,
                "edits": block.id,
                "attachments": [file.id for file in block.turn.files],
            }
            await self._ask(fields)

        block.edit(save, lambda: self._window.paint(block.id))

    async def _steer(self, task_id: str) -> None:
        with self._client, ui.dialog() as asked, ui.card().classes("sheet"):
            ui.label("Say something to the agent at work").classes("headline")
            ui.label("It reads it before its next step.").classes("lead")
            box = ui.textarea().props(
                f'autogrow outlined autofocus aria-label="Message to the agent"'
                f" maxlength={MESSAGE_MAX_CHARS}"
            )
            with ui.element("div").classes("line end"):
                ui.button("Cancel", on_click=lambda: asked.submit(None), color=None).props(
                    "flat no-caps"
                )
                ui.button("Send", on_click=lambda: asked.submit(box.value), color=None).props(
                    "unelevated no-caps"
                ).classes("main")
        text = await asked
        asked.delete()
        if text and text.strip():
            with self._client:
                try:
                    await work.steer(self._desk, self._caller, task_id, text)
                    parts.done("Told.")
                except AIError as error:
                    parts.tell(error, "Not told")

    async def _memories(self, block: Block) -> None:
        found = await recalled.given(self._desk, self._caller, block.shown)
        with self._client, ui.dialog() as opened, ui.card().classes("sheet memories"):
            ui.label("Memories that this request was given").classes("headline")
            for note in found.notes:
                ui.label(note).classes("hint")
            if not found.memories:
                ui.label(
                    "None. Nothing that memory holds was close enough, or it was not asked."
                ).classes("lead")
            ui.html("".join(map(_memory, found.memories))).classes("given")
            with ui.element("div").classes("line end"):
                ui.button("Close", on_click=opened.close, color=None).props("flat no-caps")
        opened.on("hide", opened.delete)
        opened.open()

    async def answer(self, approval: Approval, approve: bool, reason: str) -> bool:
        """Answer what waits; False when it still waits."""
        with self._client:  # what was clicked may be gone by the time of the answer
            try:
                decided = await approvals.decide(
                    self._desk, self._caller, approval.id, approve, reason.strip()
                )
            except AIError as error:
                parts.tell(error, "Not answered")
                return False
            parts.done(f"{decided.status.value.title()}.")
        return True


def _memory(one: recalled.Given) -> str:
    text = one.text if one.text is not None else "Its text is in the archive by now."
    why = "; ".join(one.why)
    score = f" · score {one.score:.2f}" if one.score is not None else ""
    task_id = escape(one.from_task_id or "", quote=True)
    source = f'<a href="/tasks/{task_id}">its task</a>' if task_id else ""
    return shown(
        f'<section class="memory"><header><b>{one.place}. {escape(one.kind)}</b>'
        f"<span>for {escape(one.agent)}{score}</span></header><p dir=auto>{escape(text)}</p>"
        f"<small>{escape(one.about)} · {parts.when(one.learned_at)} {source}"
        f"{f'<br>Found by: {escape(why)}' if why else ''}</small></section>"
    )
