"""The backups page, for admins: what there is and how the last ones went; make, check, restore."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from fastapi import FastAPI, Request
from nicegui import Client, ui

from base.errors import AIError
from base.messages import Kind
from portal import backups
from portal.auth import Caller
from portal.backups import Backups, Progress, Snapshot
from portal.desk import Desk
from portal.feed import Item
from portal.pages import backup_words, parts, shell
from portal.pages.backup_sheet import RestoreSheet
from portal.pages.live import Live
from portal.underway import Work

#: While something goes on it is looked at so often.
LOOK_S = 1.0
AGAIN_S = 10.0
ENDED = {"backup": "The backup is made", "verify": "The backups are sound"}


def install(app: FastAPI) -> None:
    """`/backups`."""
    shell.page(app, "/backups", _draw, admin=True)


async def _draw(desk: Desk, caller: Caller, client: Client, request: Request) -> None:
    live = Live(desk, caller, client)
    made = await shell.build(
        desk, caller, client, here="/backups", title="Backups",
        styles=("backups",), scripts=("backups",),
    )  # fmt: skip
    page = Page(desk, caller)
    with made.body, ui.element("div").classes("page backups"):
        page.build()
        await page.look()
        ui.timer(0.01, page.refresh, once=True)  # the repository may be far away
    live.start(made, page.take, tick=page.look)


class Page:
    """The list, what is being done now, and how the last of each went."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self._all: Backups | None = None
        self._seen: Progress | None = None
        self._covered = False
        self._again_s = 0.0

    def build(self) -> None:
        """Make the page inside the present element."""
        with ui.element("div").classes("line"):
            ui.label("Everything that is needed to get this installation back, encrypted.").classes(
                "lead grow"
            )
            self._check = self._button("Check", "fact_check", self._verify, "flat", "quiet")
            self._make = self._button("Back up now", "backup", self._create, "unelevated", "main")
        self._notice = ui.html("").classes("notices").props("role=status")
        with ui.element("div").classes("panel doing").props("role=status") as self._doing:
            ui.spinner(size="18px")
            self._step = ui.label("")
        self._doing.set_visibility(False)
        self._facts = ui.html("").classes("panel facts")
        self._list = ui.element("div").classes("snapshots")
        with self._list, ui.element("div").classes("line"):
            ui.spinner(size="18px")
            ui.label("Asking the repository …").classes("hint")
        self._sheets = ui.element("div")  # what stands in the list goes when that is drawn anew
        self._timer = ui.timer(LOOK_S, self.look, active=False)

    async def take(self, items: Sequence[Item]) -> None:
        """What the broker tells of its work for this person, also in another window."""
        if any(event.kind is Kind.BROKER for _, event in items):
            await self.look()

    async def look(self) -> None:
        """How far it is; the list anew when something has ended."""
        before = self._seen
        self._seen = now = await backups.progress(self._desk, self._caller)
        self._paint(now)
        if before is not None and _ended(before) != _ended(now):
            if now.work is not None and before.work is not None:
                self._told(now.work, before.work)
            await self.refresh()
        elif self._all is not None and self._all.busy and time.monotonic() > self._again_s:
            await self.refresh()  # what others began may end without a word

    async def refresh(self) -> None:
        """Ask the repository anew."""
        self._again_s = time.monotonic() + AGAIN_S
        try:
            self._all = await backups.backups(self._desk, self._caller)
        except AIError as error:
            self._list.clear()
            with self._list:
                ui.label(f"The backups cannot be listed: {error}").classes("fault").props(
                    "role=alert"
                )
            return
        self._paint(self._all.progress)
        self._list.clear()
        with self._list:
            if not self._all.snapshots:
                parts.empty("backup", "No backups yet", "Press “Back up now” for the first one.")
                return
            with ui.element("div").classes("panel flush"):
                for one in self._all.snapshots:
                    self._row(one)

    # Drawing -----------------------------------------------------------------------------------

    def _paint(self, now: Progress) -> None:
        self._seen = now
        busy = self._all is not None and self._all.busy
        self._notice.set_content(backup_words.notice(now, busy=busy))
        self._facts.set_content(backup_words.facts(now, self._all))
        self._facts.set_visibility(self._all is not None or now.last is not None)
        step = backup_words.step(now, busy=busy)
        self._doing.set_visibility(step is not None)
        self._step.set_text(step or "")
        running = now.work is not None and now.work.state == "running"
        self._timer.active = running or step is not None
        for button in (self._check, self._make):
            button.set_enabled(step is None)
        self._cover(now)

    def _cover(self, now: Progress) -> None:
        """Have the browser say what goes on while there is no portal that could."""
        work, kept = now.work, now.restored
        goes_on = work is not None and work.kind == "restore" and work.state == "running"
        if goes_on and not self._covered:
            about = json.dumps(work.snapshot if work else kept and kept.snapshot)
            ui.run_javascript(f"window.aiRestoring({about})")
        elif not goes_on and self._covered:
            ui.run_javascript("window.aiRestored()")
        self._covered = goes_on

    def _row(self, one: Snapshot) -> None:
        async def restore() -> None:
            with self._sheets:
                await self._restore(one)

        with ui.element("section").classes("snapshot").props(f'aria-label="{one.id}"'):
            ui.html(backup_words.row(one)).classes("about")
            made = ui.button("Restore …", icon="restore", on_click=restore, color=None)
            made.props(f'flat no-caps dense aria-label="Restore {one.id}"').classes("quiet")

    def _button(
        self, word: str, icon: str, act: Callable[[], Awaitable[None]], kind: str, style: str
    ) -> ui.button:
        made = ui.button(word, icon=icon, on_click=act, color=None)
        return made.props(f"{kind} no-caps").classes(style)

    def _told(self, now: Work, before: Work) -> None:
        if now.id == before.id and now.state == "done" and now.kind in ENDED:
            parts.done(ENDED[now.kind])

    # Doing -------------------------------------------------------------------------------------

    async def _create(self) -> None:
        await self._begin(backups.create(self._desk, self._caller))

    async def _verify(self) -> None:
        await self._begin(backups.verify(self._desk, self._caller, quick=False))

    async def _begin(self, begun: Awaitable[Work]) -> None:
        try:
            await begun
        except AIError as error:
            parts.tell(error)
        await self.look()

    async def _restore(self, one: Snapshot) -> None:
        await RestoreSheet(self._desk, self._caller, one).open()
        await self.look()


def _ended(found: Progress) -> tuple[datetime | None, ...]:
    """When the last of each ended: another value means that there is something new."""
    ends = (
        found.work and found.work.ended_at,
        found.restored and found.restored.ended_at,
        found.last and found.last.at,
        found.verified and found.verified.at,
        found.drilled and found.drilled.at,
    )
    return tuple(at.astimezone(UTC) if at else None for at in ends)
