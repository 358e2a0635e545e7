"""The sheet before a restore: what is put in place, the plan, and the snapshot's name typed."""

from __future__ import annotations

from html import escape
from typing import Any

from nicegui import ui

from base.errors import AIError
from portal import backups
from portal.auth import Caller
from portal.backups import Snapshot
from portal.desk import Desk
from portal.pages import backup_words
from portal.pages.marks import shown
from portal.shapes import PARTS, SERVER, RestoreBackup

NAMES = {
    "database": "Database",
    "vectors": "Vectors of the memory",
    "memory": "Memory, goals, attachments, workspaces",
    "configuration": "Configuration and secrets",
    "certificates": "Certificates",
    "sites": "Sites and their releases",
}
STOPS = (
    "<b>This portal stops, too</b>, for a minute or longer, and starts again by itself. The page"
    " waits for it and then says how it ended.",
    "<b>With the database, accounts, passwords and sessions become those of then.</b> Whoever"
    " logged in later has to log in again, with the password of then.",
    "Running tasks stop. What is there now is kept aside; if the restored installation does not"
    " start, all of it is put back.",
)


class RestoreSheet:
    """Of one snapshot. In local mode it ends with the command for a terminal."""

    def __init__(self, desk: Desk, caller: Caller, snapshot: Snapshot) -> None:
        self._desk = desk
        self._caller = caller
        self._one = snapshot
        self._local = desk.settings.broker is None
        self._boxes: dict[str, ui.checkbox] = {}

    async def open(self) -> None:
        """Show it until it is closed, or the restore has begun."""
        name = self._one.id
        with ui.dialog().props("persistent") as self._dialog, ui.card().classes("sheet restore"):
            ui.label(f"Restore {name}?").classes("headline")
            ui.html(backup_words.row(self._one)).classes("about")
            with (
                ui.element("div").classes("parts").props('role=group aria-label="What to restore"')
            ):
                for part in PARTS:
                    if not (self._local and part in SERVER):
                        self._boxes[part] = ui.checkbox(
                            NAMES[part], value=True, on_change=self._look
                        ).props("dense")
            self._plan = ui.html("").classes("steps").props("role=status")
            if not self._local:
                stops = "".join(f"<li>{one}</li>" for one in STOPS)
                ui.html(f"<ul>{stops}</ul>").classes("stops")
                self._word = ui.input(f"Write {name} to go on", on_change=self._changed)
                self._word.props("outlined dense maxlength=20 autocomplete=off autocapitalize=off")
            self._fault = ui.label("").classes("fault").props("role=alert")
            self._fault.set_visibility(False)
            with ui.element("div").classes("line end"):
                word = "Close" if self._local else "Cancel"
                ui.button(word, on_click=lambda: self._dialog.submit(None), color=None).props(
                    "flat no-caps"
                )
                if not self._local:
                    self._go = ui.button(f"Restore {name}", on_click=self._pressed, color=None)
                    self._go.props("unelevated no-caps").classes("danger")
                    self._go.disable()
        self._dialog.open()
        await self._look()
        await self._dialog
        self._dialog.delete()

    @property
    def _parts(self) -> list[Any]:
        return [part for part, box in self._boxes.items() if box.value]

    async def _look(self, _: object = None) -> None:
        """The plan of what is chosen."""
        self._planned = False
        self._changed()
        if not self._parts:
            self._plan.set_content("")
            return self._say("Choose what to restore.")
        self._say("")
        wanted = self._parts
        try:
            found = await backups.planned(self._desk, self._caller, self._one.id, wanted)
        except AIError as error:
            self._plan.set_content("")
            return self._say(str(error))
        if wanted != self._parts or self._dialog.is_deleted:
            return None
        steps = "".join(f"<li>{escape(step)}</li>" for step in found.plan)
        line = ""
        if found.command is not None:
            line = (
                "<p>A restore stops the portal, so it is done in a terminal:</p>"
                f'<pre tabindex=0 class="command">{escape(found.command)}</pre>'
            )
        said = "It would" if self._local else "Nothing is done yet. It would"
        self._plan.set_content(shown(f"<p>{said}:</p><ol>{steps}</ol>{line}"))
        self._planned = True
        self._changed()
        return None

    def _changed(self, _: object = None) -> None:
        if not self._local:
            named = (self._word.value or "").strip() == self._one.id
            self._go.set_enabled(self._planned and named)

    async def _pressed(self) -> None:
        self._go.props("loading")
        self._say("")
        try:
            wish = RestoreBackup(confirm=(self._word.value or "").strip(), parts=self._parts)
            await backups.restore(self._desk, self._caller, self._one.id, wish)
        except AIError as error:
            self._say(str(error))
        else:
            self._dialog.submit(None)
        finally:
            self._go.props(remove="loading")

    def _say(self, fault: str) -> None:
        self._fault.set_text(fault)
        self._fault.set_visibility(bool(fault))
