"""The health page, for admins: what the doctor found last, how to mend it, and the backups."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import FastAPI, Request
from nicegui import Client, ui

from base.errors import AIError
from base.plural import counted
from portal import doctor
from portal.auth import Caller
from portal.checks.report import Row
from portal.desk import Desk
from portal.doctor import Health
from portal.pages import parts, shell
from portal.pages.live import Live
from portal.pages.marks import shown


def install(app: FastAPI) -> None:
    """`/health`."""
    shell.page(app, "/health", _draw, admin=True)


async def _draw(desk: Desk, caller: Caller, client: Client, request: Request) -> None:
    live = Live(desk, caller, client)
    made = await shell.build(
        desk, caller, client, here="/health", title="Health", styles=("health",)
    )
    page = Page(desk, caller)
    with made.body, ui.element("div").classes("page health"):
        page.build()
        page.paint(await doctor.last(desk, caller))

    async def take(_: Any) -> None: ...

    live.start(made, take)


class Page:
    """The last round, and the button for another."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller

    def build(self) -> None:
        """Make the page inside the present element."""
        with ui.element("div").classes("line"):
            self._state = ui.html("").props("role=status")
            ui.element("div").classes("grow")
            if self._desk.settings.broker is None:
                self._look = ui.button("Check now", icon="troubleshoot", on_click=self._again)
                self._look.props("unelevated no-caps").classes("main")
        self._wait = ui.linear_progress(show_value=False).props(
            'indeterminate aria-label="Looking at everything"'
        )
        self._wait.set_visibility(False)
        self._rows = ui.html("").classes("panel flush checks")
        local = self._desk.settings.broker is None
        self._empty = parts.empty(
            "monitor_heart",
            "The doctor has not looked yet",
            "Press “Check now”, or run:" if local else "It looks every quarter of an hour, or now:",
        )
        with self._empty:
            ui.html(_command(f"{'' if local else 'sudo '}ai-infra doctor --record"))
        with ui.element("div").classes("panel"):
            ui.label("Backups").classes("section")
            self._backup = ui.html("").classes("backups")

    def paint(self, found: Health) -> None:
        """Show a round."""
        bad = sum(not row.ok for row in found.checks)
        word = (
            parts.pill("all is well", "good")
            if found.ok
            else parts.pill(counted(bad, "fault"), "bad")
        )
        state = f"{word} <span>looked {parts.when(found.at, ago=True)}</span>" if found.at else ""
        self._state.set_content(shown(state))
        self._rows.set_content("".join(_row(row) for row in found.checks))
        self._rows.set_visibility(bool(found.checks))
        self._empty.set_visibility(not found.checks)
        self._backup.set_content(_kept(found.backup))

    async def _again(self) -> None:
        self._look.disable()
        self._wait.set_visibility(True)
        try:
            self.paint(await doctor.look(self._desk, self._caller))
        except AIError as error:
            parts.tell(error)
        finally:
            self._look.enable()
            self._wait.set_visibility(False)


def _row(row: Row) -> str:
    word, kind = ("not here", "") if row.skipped else ("ok", "good") if row.ok else ("fault", "bad")
    mend = "" if row.ok else f"<p>mend: {_command(row.mend)}</p>"
    return shown(
        f'<div class="look" data-check="{escape(row.name, quote=True)}">{parts.pill(word, kind)}'
        f'<b>{escape(row.name)}</b><span dir="auto">{escape(row.detail)}</span>{mend}</div>'
    )


def _command(line: str) -> str:
    """What to type. An option is not broken at its hyphens, wherever the line ends."""
    words = (escape(word) for word in line.split(" "))
    told = (f'<span class="option">{word}</span>' if word[:1] == "-" else word for word in words)
    return f"<code>{' '.join(told)}</code>"


def _kept(kept: doctor.Kept) -> str:
    if kept.at is None:
        said = "<p>None yet. On the server: <code class=typed>ai-infra backup create</code></p>"
    else:
        said = f"<p>The last: <code>{escape(kept.snapshot or '')}</code> {parts.when(kept.at)}</p>"
    said += '<p>All of them, and one made now: <a href="/backups">Backups</a></p>'
    place = f"<p>They go to <code>{escape(kept.place)}</code></p>" if kept.place else ""
    fault = f'<p class="bad">{escape(kept.problem)}</p>' if kept.problem else ""
    return shown(said + place + fault)
