"""Dead letters on a page: what could not be handled, why, and back again or away with it."""

from __future__ import annotations

from functools import partial
from html import escape

from nicegui import ui

from base.errors import AIError
from base.plural import counted
from portal import letters
from portal.auth import Caller
from portal.desk import Desk
from portal.pages import parts
from portal.pages.marks import shown

SHOWN = 100
BODY_CHARS = 2_000


class Letters:
    """`build` inside an element, then `look`, and again when there may be others."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self._drawn: list[str] | None = None

    def build(self) -> None:
        with ui.element("div").classes("line"):
            self._said = ui.label("").classes("lead")
            ui.element("div").classes("grow")
            self._purge = ui.button(
                "Delete all", icon="delete", on_click=self._purge_all, color=None
            )
            self._purge.props("flat no-caps").classes("quiet")
        self._list = ui.element("div").classes("letters")
        self._empty = parts.empty(
            "mark_email_read",
            "No dead letters",
            "A message that could not be handled three times would wait here, with the reason, "
            "until you put it back or delete it.",
        )

    async def look(self) -> None:
        """Read anew; draw only what changed."""
        try:
            found = (await letters.dead(self._desk, self._caller, None)).letters
        except AIError as error:
            self._said.set_text(f"They cannot be read: {error}")
            return
        ids = [one.id for one in found]
        if ids == self._drawn:
            return
        self._drawn = ids
        newest = list(reversed(found))[:SHOWN]
        count = f"{counted(len(found), 'message')} could not be handled"
        more = f"; the newest {SHOWN} are shown" if len(found) > SHOWN else ""
        self._said.set_text(f"{count}{more}." if found else "")
        self._empty.set_visibility(not found)
        self._purge.set_visibility(bool(found))
        self._list.clear()
        with self._list:
            for one in newest:
                self._letter(one)

    def _letter(self, one: letters.Dead) -> None:
        body = one.original_message
        cut = body if len(body) <= BODY_CHARS else body[: BODY_CHARS - 1] + "…"
        with ui.element("article").classes("panel letter"):
            ui.html(
                shown(
                    f"<header><b>{escape(one.source_queue)}</b>"
                    f"{parts.pill(one.error_type, 'bad')}<small>after "
                    f"{counted(one.attempts, 'delivery', 'deliveries')}, "
                    f"{parts.when(one.failed_at, ago=True)}</small></header>"
                    f'<p dir="auto">{escape(one.error_message)}</p>'
                    f"<details><summary>The message</summary><pre>{escape(cut)}</pre></details>"
                )
            )
            with ui.element("div").classes("line"):
                ui.button(
                    "Put it back", icon="replay", on_click=partial(self._replay, one), color=None
                ).props("flat no-caps dense").classes("quiet")

    async def _replay(self, one: letters.Dead) -> None:
        try:
            await letters.replay(self._desk, self._caller, one.id)
            parts.done(f"It is back on {one.source_queue}.")
        except AIError as error:
            parts.tell(error, "it was not put back")
        await self.look()

    async def _purge_all(self) -> None:
        count = len(self._drawn or ())
        if not await parts.sure(
            f"Delete {counted(count, 'dead letter')}?",
            "What they asked for will never be done. This cannot be taken back.",
            "Delete",
        ):
            return
        try:
            gone = await letters.purge(self._desk, self._caller, None)
            parts.done(f"{gone} deleted.")
        except AIError as error:
            parts.tell(error, "they were not deleted")
        await self.look()
