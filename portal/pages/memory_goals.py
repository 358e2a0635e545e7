"""The goals (TELOS): five files in an editor with preview, and every text that each of them had."""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import Any

from nicegui import ui

from base.errors import AIError
from pai import telos
from portal import goals
from portal.auth import Caller
from portal.desk import Desk
from portal.goals import Version
from portal.pages import draw, parts
from portal.pages.marks import shown

ABOUT = {
    "mission": "What this installation is for.",
    "vision": "Where it should lead.",
    "values": "What counts when there is a choice.",
    "priorities": "What comes first now.",
    "success": "How you will know that it worked.",
}


class Goals:
    """The chosen file, its text as it was read, and what a person wrote since."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self._name = telos.NAMES[0]
        self._all: dict[str, goals.Goal] = {}
        self._drafts: dict[str, str] = {}

    def build(self) -> None:
        """Make the editor inside the present element."""
        ui.label(
            "Your goals are part of every agent's prompt. They are no task and no permission:"
            " agents weigh choices by them."
        ).classes("lead")
        self._prompt = ui.html("")
        names = {name: name.capitalize() for name in telos.NAMES}
        ui.toggle(names, value=self._name, on_change=self._choose).props(
            'no-caps unelevated dense aria-label="File"'
        ).classes("files")
        self._about = ui.label("").classes("hint")
        with ui.element("div").classes("editor"):
            if self._caller.admin:
                self._text = ui.textarea(on_change=self._typed).props(
                    'outlined autogrow debounce=200 aria-label="Text in Markdown"'
                )
            self._preview = ui.html("").classes("panel prose").props('aria-label="Preview"')
        if not self._caller.admin:
            ui.label("Goals are the owner's: only admins change them.").classes("hint")
            return
        with ui.element("div").classes("line"):
            self._save = ui.button("Save", on_click=self._store, color=None)
            self._save.props("unelevated no-caps").classes("main")
            self._undo = ui.button("Undo my changes", on_click=self._drop, color=None)
            self._undo.props("flat no-caps").classes("quiet")
            self._state = ui.label("").classes("hint").props("role=status")
        ui.label("History").classes("section")
        self._history = ui.element("div").classes("panel flush versions")
        self._diff = ui.html("").classes("panel diff")
        self._diff.set_visibility(False)

    async def read(self) -> None:
        """The files as they are; what a person wrote and did not save stays."""
        try:
            found = await goals.read(self._desk)
        except AIError as error:
            parts.tell(error, "Not read")
            return
        self._all = {one.name: one for one in found.goals}
        faults = "".join(f'<p class="fault">{escape(one)}</p>' for one in found.faults)
        label = f"{found.tokens:,} of {found.tokens_max:,} tokens of every prompt"
        meter = parts.meter(found.tokens / found.tokens_max, label=label, warn=0.9)
        self._prompt.set_content(
            shown(f'<div class="panel slim">{meter}<span class="hint">{label}</span>{faults}</div>')
        )
        await self._show()

    async def _show(self) -> None:
        goal = self._all.get(self._name)
        text = self._drafts.get(self._name, goal.text if goal else "")
        silent = goal is not None and not goal.says
        more = " It says nothing yet: only the template's comments stand in it." if silent else ""
        if goal is None:
            more = " This file is left out: what is wrong with it stands above."
        self._about.set_text(ABOUT[self._name] + more)
        if self._caller.admin:
            self._text.set_enabled(goal is not None)
            self._text.set_value(text)
            self._diff.set_visibility(False)
            await self._versions()
        self._look(text)

    def _look(self, text: str) -> None:
        spoken = telos.spoken(text, self._name)
        self._preview.set_content(
            draw.markdown(spoken.replace("\n###", "\n#").removeprefix("##"))
            if spoken
            else '<p class="hint">Nothing of it goes into a prompt yet.</p>'
        )
        if self._caller.admin:
            changed = self._name in self._drafts
            self._save.set_enabled(changed)
            self._undo.set_visibility(changed)
            self._state.set_text("Not saved yet" if changed else "")

    async def _choose(self, event: Any) -> None:
        self._name = event.value or self._name
        await self._show()

    def _typed(self, event: Any) -> None:
        goal, text = self._all.get(self._name), event.value or ""
        if goal is not None and text == goal.text:
            self._drafts.pop(self._name, None)
        elif goal is not None:
            self._drafts[self._name] = text
        self._look(text)

    async def _drop(self) -> None:
        self._drafts.pop(self._name, None)
        await self._show()

    async def _store(self) -> None:
        goal = self._all.get(self._name)
        if goal is not None and self._name in self._drafts:
            await self._write(self._drafts[self._name], goal.digest, "Saved")

    async def _write(self, text: str, seen: str, said: str) -> None:
        try:
            await goals.write(self._desk, self._caller, self._name, text, seen=seen)
        except AIError as error:
            parts.tell(error, "Not saved")
            return
        self._drafts.pop(self._name, None)
        parts.done(f"{said}: agents have it from their next task on")
        await self.read()

    async def _versions(self) -> None:
        self._history.clear()
        try:
            found = await goals.versions(self._desk, self._caller, self._name)
        except AIError as error:
            parts.tell(error, "History not read")
            return
        with self._history:
            for one in found:
                with ui.element("div").classes("version"):
                    ui.html(
                        f"{parts.when(datetime.fromisoformat(one.at))}"
                        f"<code>{one.digest[:8]}</code><span>{one.size_bytes:,} bytes</span>"
                        + (parts.pill("now", "good") if one.now else "")
                    ).classes("what")
                    if one.now:
                        continue
                    ui.button(
                        "Compare", on_click=lambda one=one: self._compare(one), color=None
                    ).props(f'flat dense no-caps aria-label="Compare {one.digest[:8]} with now"')
                    ui.button(
                        "Restore", on_click=lambda one=one: self._restore(one), color=None
                    ).props(f'flat dense no-caps aria-label="Restore {one.digest[:8]}"')

    async def _compare(self, one: Version) -> None:
        try:
            before = await goals.version(self._desk, self._caller, self._name, one.digest)
        except AIError as error:
            parts.tell(error)
            return
        lines = goals.diff(before, self._all[self._name].text)
        marks = {"-": "del", "+": "ins", "@": "i", " ": "span"}
        told = "".join(
            f'<{marks[sign]}><b aria-hidden="true">{sign}</b>{escape(text)}&nbsp;</{marks[sign]}>'
            for sign, text in lines
            if sign in marks
        )
        same = '<p class="hint">The same text as now.</p>'
        head = f"<p>What changed from {one.digest[:8]} to now:</p>"
        self._diff.set_content(
            shown(f'{head}<div class="lines" dir="auto">{told}</div>' if told else same)
        )
        self._diff.set_visibility(True)

    async def _restore(self, one: Version) -> None:
        goal = self._all[self._name]
        more = (
            f"{self._name}.md says again what it said then. What it says now stays in the history."
        )
        if not await parts.sure(f"Restore version {one.digest[:8]}?", more, "Restore", bad=False):
            return
        try:
            text = await goals.version(self._desk, self._caller, self._name, one.digest)
        except AIError as error:
            parts.tell(error, "Not restored")
            return
        await self._write(text, goal.digest, "Restored")
