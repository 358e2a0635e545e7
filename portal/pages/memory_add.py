"""The dialog that adds to memory: a text, or text files kept as knowledge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui
from pydantic import ValidationError

from base.errors import AIError
from base.plural import counted
from pai.shapes import TEXT_CHARS
from portal import memory
from portal.auth import Caller
from portal.desk import Desk
from portal.limits import PAGE_FILE_BYTES
from portal.pages import parts
from portal.pages.memory_words import split
from portal.shapes import Remember

#: What a file may be called for the picker; what is in it decides.
TEXT_FILES = ".txt,.md,.markdown,.rst,.org,.csv,.json,.yaml,.yml,.toml,.xml,.html,.log,.py,.js,.sh"
FILES_MAX = 20


class Add:
    """Opened by a button, made anew each time. after: called when something was added."""

    def __init__(self, desk: Desk, caller: Caller, after: Callable[[], Awaitable[None]]) -> None:
        self._desk = desk
        self._caller = caller
        self._after = after

    async def open(self) -> None:
        """Show it until it is closed."""
        with ui.dialog().props("persistent") as self._dialog, ui.card().classes("sheet wide"):
            ui.label("Remember something").classes("headline")
            self._text = ui.textarea(placeholder="A fact, a preference, a decision…").props(
                f'outlined autogrow autofocus maxlength={TEXT_CHARS} aria-label="Text to remember"'
            )
            with ui.element("div").classes("line"):
                self._kind = ui.input(label="Kind", value="fact").props(
                    "outlined dense maxlength=40"
                )
                self._tags = ui.input(label="Tags, with commas").props("outlined dense")
                self._tags.classes("grow")
            self._fault = ui.label("").classes("fault").props("role=alert")
            self._fault.set_visibility(False)
            with ui.element("div").classes("line end"):
                ui.button("Close", on_click=self._dialog.close, color=None).props("flat no-caps")
                self._save = ui.button("Remember it", on_click=self._remember, color=None)
                self._save.props("unelevated no-caps").classes("main")
            ui.label("Or text files, kept as knowledge").classes("section")
            ui.label(
                f"UTF-8 text of at most {PAGE_FILE_BYTES // 1_000_000} MB each; larger ones by"
                " the command: ai-infra memory remember --file. A file that is added again takes"
                " its own place."
            ).classes("hint")
            ui.upload(
                label="Drop files here, or press +",
                multiple=True,
                auto_upload=True,
                max_file_size=PAGE_FILE_BYTES,
                max_files=FILES_MAX,
                on_upload=self._upload,
                on_rejected=self._rejected,
            ).props(f'accept="{TEXT_FILES}" flat bordered')
            self._taken = ui.element("div").classes("taken").props("role=status")
        await self._dialog
        self._dialog.delete()

    async def _remember(self) -> None:
        try:
            body = Remember.model_validate(
                {
                    "text": self._text.value or "",
                    "kind": (self._kind.value or "").strip() or "fact",
                    "tags": split(self._tags.value),
                    "source": "portal",
                }
            )
            self._save.props("loading")
            await memory.remember(self._desk, self._caller, body)
        except ValidationError as error:
            self._say(error.errors()[0]["msg"].removeprefix("Value error, "))
        except AIError as error:
            self._say(str(error))
        else:
            self._dialog.close()
            parts.done("Remembered")
            await self._after()
        finally:
            self._save.props(remove="loading")

    async def _upload(self, event: Any) -> None:
        name = event.file.name
        said = self._tell(f"Reading {name}…", "hint")

        def heard(count: int, whole: int) -> None:
            said.set_text(f"Remembering {name}: {count:,} of {whole:,} pieces")

        try:
            raw = await event.file.read()
            found = await memory.upload(self._desk, self._caller, name, raw, heard)
        except AIError as error:
            said.set_text(f"Not remembered: {error}")
            said.classes(replace="fault")
            return
        count = len(found.ids)
        said.set_text(f"Remembered {name} in {counted(count, 'piece')}")
        said.classes(replace="good")
        await self._after()

    def _rejected(self, _: Any) -> None:
        most = f"{PAGE_FILE_BYTES // 1_000_000} MB"
        self._tell(
            f"Not taken: text files of at most {most} are wanted, {FILES_MAX} at once", "fault"
        )

    def _tell(self, said: str, kind: str) -> ui.label:
        with self._taken:
            return ui.label(said).classes(kind)

    def _say(self, said: str) -> None:
        self._fault.set_text(f"Not remembered: {said}")
        self._fault.set_visibility(True)
