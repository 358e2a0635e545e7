"""A program's log on a page: its newest lines, with words and a level to look for."""

from __future__ import annotations

from html import escape
from typing import Any

from nicegui import ui

from base.errors import AIError
from portal import logs
from portal.auth import Caller
from portal.desk import Desk
from portal.pages.marks import shown

LINES = 200


class Journal:
    """`build` inside an element; `look` again when there may be more."""

    def __init__(self, desk: Desk, caller: Caller, name: str) -> None:
        self._desk = desk
        self._caller = caller
        self._name = name
        self._words = ""
        self._level = "debug"

    async def build(self) -> None:
        with ui.element("div").classes("line"):
            ui.label("Log").classes("section")
            ui.element("div").classes("grow")
            ui.input(placeholder="Words in the log", on_change=self._on_words).props(
                'outlined dense clearable debounce=250 aria-label="Words in the log"'
            )
            ui.select(
                {"debug": "All levels", "info": "Info", "warning": "Warnings", "error": "Errors"},
                value="debug",
                on_change=self._on_level,
            ).props('outlined dense options-dense aria-label="Level"')
        self._list = ui.html("").classes("panel log").props('tabindex=0 role=log aria-label="Log"')
        await self.look()

    async def look(self) -> None:
        """Read the file again; what cannot be read is said in its place."""
        try:
            found = await logs.tail(
                self._desk,
                self._caller,
                self._name,
                lines=LINES,
                words=self._words,
                level=self._level,
            )
        except AIError as error:
            self._list.set_content(f'<p class="hint">{escape(str(error))}</p>')
            return
        lines = "".join(f"<div{_kind(line)}>{escape(line)}</div>" for line in found.lines)
        nothing = "Nothing fits." if self._words or self._level != "debug" else "Nothing yet."
        fresh = shown(lines or f'<p class="hint">{nothing}</p>')
        if fresh != self._list.content:
            self._list.set_content(fresh)
            ui.run_javascript(f"(e => e && (e.scrollTop = e.scrollHeight))({self._place()})")

    def _place(self) -> str:
        return f"document.getElementById('c{self._list.id}')"

    async def _on_words(self, event: Any) -> None:
        self._words = event.value or ""
        await self.look()

    async def _on_level(self, event: Any) -> None:
        self._level = event.value
        await self.look()


def _kind(line: str) -> str:
    for level, kind in (("error", "bad"), ("critical", "bad"), ("warning", "warn")):
        if f"level={level}" in line:
            return f' class="{kind}"'
    return ""
