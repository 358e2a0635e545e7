"""The agents' pages: the fleet at a glance, all windows at once, and one agent with its window."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from nicegui import Client, ui

from base.errors import AIError, NotFoundError, WindowsError
from portal import crew, fleet, work
from portal.auth import Caller
from portal.desk import Desk
from portal.fleet import Fleet, Standing
from portal.pages import parts, shell, standing
from portal.pages.journal import Journal
from portal.pages.live import Live
from portal.pages.rows import task_table
from portal.pages.screen import Terminal

STYLES = ("agents",)
#: Events paint a page anew at most so often.
AGAIN_S = 1.0
DONE = {"start": "starts", "restart": "restarts", "pause": "will pause", "resume": "goes on"}
DOWN = frozenset({"fatal", "exited", "backoff"})
CLOSED = (
    "An agent's window shows whatever it works at, whoever asked for it, so only admins may look "
    "in. What it does for you is on the page of your task."
)


def install(app: FastAPI) -> None:
    """`/agents` and `/agents/{name}`."""
    shell.page(app, "/agents", _fleet)
    shell.page(app, "/agents/{name}", _one)


async def _fleet(desk: Desk, caller: Caller, client: Client, request: Request) -> None:
    live = Live(desk, caller, client)
    made = await shell.build(desk, caller, client, here="/agents", title="Agents", styles=STYLES)
    walls = request.query_params.get("view") == "windows"
    with made.body, ui.element("div").classes("page"):
        tiles = ui.html("").classes("tiles")
        silent = ui.label(
            "The watchdog does not answer: restarts, CPU and memory are unknown. "
            "Run: ai-infra status"
        ).classes("notice bad")
        if caller.admin:
            _views(walls)
        grid = ui.element("div").classes("walls" if walls else "fleet")
    if walls and caller.admin:
        await _walls(desk, grid)
    cards: dict[str, Card] = {}

    async def look() -> None:
        found = await fleet.fleet(desk, caller)
        tiles.set_content(standing.tiles(found.agents))
        silent.set_visibility(not found.watchdog)
        if not (walls and caller.admin):
            _cards(desk, caller, grid, cards, found, look)

    await look()

    soon = Often(look)

    async def take(_: Any) -> None:
        await soon()

    live.start(made, take, tick=look)


class Often:
    """Calls through at most once in `AGAIN_S`; the page's tick is the net for the rest."""

    def __init__(self, look: Callable[[], Awaitable[None]]) -> None:
        self._look = look
        self._looked_s = time.monotonic()

    async def __call__(self) -> None:
        if time.monotonic() - self._looked_s >= AGAIN_S:
            self._looked_s = time.monotonic()
            await self._look()


def _views(walls: bool) -> None:
    with ui.element("nav").classes("line views").props('aria-label="Views"'):
        for name, path, here in (
            ("Fleet", "/agents", not walls),
            ("All windows", "/agents?view=windows", walls),
        ):
            ui.link(name, path).props("aria-current=page" if here else "")


async def _walls(desk: Desk, grid: ui.element) -> None:
    with grid:
        try:
            for window in await desk.terminals.windows():
                Terminal(window.name, small=True)
        except WindowsError as error:
            parts.empty("desktop_access_disabled", "No windows", str(error))


def _cards(
    desk: Desk,
    caller: Caller,
    grid: ui.element,
    cards: dict[str, Card],
    found: Fleet,
    look: Callable[[], Any],
) -> None:
    names = [one.agent.name for one in found.agents]
    if list(cards) != names:
        cards.clear()
        grid.clear()
        with grid:
            for name in names:
                cards[name] = Card(desk, caller, name, look)
    for one in found.agents:
        cards[one.agent.name].show(one)


class Card:
    """One agent: what it does, and an admin's buttons."""

    def __init__(
        self, desk: Desk, caller: Caller, name: str, look: Callable[[], Any], *, alone: bool = False
    ) -> None:
        self._desk = desk
        self._caller = caller
        self._name = name
        self._look = look
        self._card = ui.element("article").classes("agent-card").props(f'aria-label="{name}"')
        self._buttons: dict[str, ui.button] = {}
        with self._card:
            self._shown = ui.html("").classes("shown")
            if caller.admin:
                with ui.element("div").classes("line acts"):
                    self._acts(alone)

    def show(self, one: Standing) -> None:
        """Draw it anew; the buttons are those that make sense now."""
        self._shown.set_content(standing.card(one))
        trouble = one.trouble
        self._card.classes(
            remove="bad warn busy",
            add="bad" if trouble and trouble.bad else "warn" if trouble else ""
            if one.agent.status != "busy" else "busy",
        )  # fmt: skip
        down = one.window in DOWN
        useful = {
            "start": down,
            "restart": not down,
            "pause": not down and not one.agent.paused,
            "resume": not down and one.agent.paused,
        }
        for verb, button in self._buttons.items():
            ours = verb in {"start", "restart"} or self._name != "supervisor"
            button.set_visibility(useful[verb] and ours)

    def _acts(self, alone: bool) -> None:
        for verb, icon in (
            ("start", "play_arrow"),
            ("pause", "pause"),
            ("resume", "play_arrow"),
            ("restart", "restart_alt"),
        ):
            button = ui.button(
                verb.title(), icon=icon, on_click=partial(self._do, verb), color=None
            )
            button.props("flat no-caps dense").classes("quiet")
            self._buttons[verb] = button
        if not alone:
            place = f"/agents/{self._name}"
            ui.button(
                "Window",
                icon="terminal",
                on_click=lambda: ui.navigate.to(place),
                color=None,
            ).props("flat no-caps dense").classes("quiet")

    async def _do(self, verb: str) -> None:
        if verb == "restart" and not await parts.sure(
            f"Restart {self._name}?",
            "It finishes its running step first, then starts again and takes its task up where "
            "its journal ends.",
            "Restart",
        ):
            return
        try:
            await crew.control(self._desk, self._caller, self._name, verb)
            parts.done(f"{self._name} {DONE[verb]}.")
            await self._look()
        except AIError as error:
            parts.tell(error, f"{self._name} did not {verb}")


async def _one(desk: Desk, caller: Caller, client: Client, request: Request) -> None:
    name = request.path_params["name"]
    live = Live(desk, caller, client)
    found = await fleet.fleet(desk, caller)
    of_name = {one.agent.name: one for one in found.agents}
    windows = []
    if caller.admin:
        with suppress(WindowsError):
            windows = [one.name for one in await desk.terminals.windows()]
    if name not in of_name and name not in windows:
        known = ", ".join([*of_name, *(one for one in windows if one not in of_name)])
        raise NotFoundError(f"no agent or window named {name!r}; there are: {known}")
    made = await shell.build(desk, caller, client, here="/agents", title=name, styles=STYLES)
    card: Card | None = None
    journal: Journal | None = None

    async def look() -> None:
        if card is not None:
            now = await fleet.fleet(desk, caller)
            card.show(next(one for one in now.agents if one.agent.name == name))
        if journal is not None:
            await journal.look()

    with made.body, ui.element("div").classes("page wide"):
        if windows:
            _strip(windows, name, of_name)
        if name in of_name:
            card = Card(desk, caller, name, look, alone=True)
        if name in windows:
            Terminal(name, can_type=True)
        elif not caller.admin:
            ui.label(CLOSED).classes("notice")
        else:
            ui.label("This window is not there now: run: ai-infra status").classes("notice")
        if caller.admin and name not in {"monitor", "logs"}:
            journal = Journal(desk, caller, name)
            await journal.build()
        if name in of_name:
            ui.label("What it was given" + ("" if caller.admin else " for you")).classes("section")
            given = await work.tasks(desk, caller, agent=name, limit=20)
            titles = await work.conversation_titles(desk, caller, given.tasks)
            with ui.element("div").classes("panel flush"):
                task_table(given.tasks, titles, rehearsal=desk.settings.rehearsal)

    soon = Often(look)

    async def take(_: Any) -> None:
        await soon()

    await look()
    live.start(made, take, tick=look)


def _strip(windows: list[str], here: str, agents: dict[str, Standing]) -> None:
    """Every window of the session, to go from one to the next."""
    with ui.element("nav").classes("line strip").props('aria-label="Windows"'):
        for window in windows:
            one = agents.get(window)
            kind = standing.word(one) if one else ""
            now = " aria-current=page" if window == here else ""
            with ui.element("a").props(f'href="/agents/{window}"{now}'):
                ui.html(f'<b class="light {kind.replace(" ", "-")}"></b>')
                ui.label(window)
