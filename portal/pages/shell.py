"""What every page has around it: the rail of places, the top line, the help sheet.

A page is a coroutine `(desk, caller, client, request) -> None` that calls `build` once and fills
`Shell.body`; `page` puts it on the application, behind the login and, where it says so, the role.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from nicegui import Client, ui
from nicegui.elements.html import Html

from base.errors import NotFoundError, UnauthenticatedError
from portal import accounts, approvals
from portal.auth import Caller
from portal.desk import Desk
from portal.door import caller_of

STYLES = ("portal", "app")
SCRIPTS = ("app",)
LOGOUT_JS = "() => fetch('/logout', {method: 'POST'}).then(() => location.assign('/login'))"
#: Below this width the rail lies over the page; the style sheets have the same number.
NARROW_PX = 900
RAIL_PX, SIDE_PX = 76, 264
WAITING_MAX = 99
#: A machine with much to do builds a page slowly; NiceGUI would show an error after three seconds.
BUILD_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A page of the rail. key: pressed after `g` it goes there."""

    path: str
    name: str
    icon: str
    key: str
    admin: bool = False


PLACES = (
    Place(path="/chat", name="Chat", icon="forum", key="c"),
    Place(path="/agents", name="Agents", icon="smart_toy", key="a"),
    Place(path="/tasks", name="Tasks", icon="account_tree", key="t"),
    Place(path="/approvals", name="Approvals", icon="how_to_reg", key="p"),
    Place(path="/memory", name="Memory", icon="psychology", key="m"),
    Place(path="/domains", name="Domains", icon="language", key="d"),
    Place(path="/usage", name="Usage", icon="bar_chart", key="u"),
    Place(path="/events", name="Events", icon="bolt", key="e"),
    Place(path="/audit", name="Audit", icon="policy", key="l", admin=True),
    Place(path="/backups", name="Backups", icon="settings_backup_restore", key="b", admin=True),
    Place(path="/health", name="Health", icon="monitor_heart", key="h", admin=True),
    Place(path="/settings", name="Settings", icon="settings", key="s"),
)

Draw = Callable[[Desk, Caller, Client, Request], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """The parts that pages fill or change. side: beside the rail, None where none was wanted."""

    drawer: ui.left_drawer
    side: ui.column | None
    title: ui.label
    actions: ui.element
    body: ui.column
    badge: Html

    def show_waiting(self, count: int) -> None:
        """How many approvals wait, on the rail; nothing for none."""
        shown = str(count) if count <= WAITING_MAX else f"{WAITING_MAX}+"
        self.badge.set_content(f'<b aria-label="{shown} waiting">{shown}</b>' if count else "")


def page(app: FastAPI, path: str, draw: Draw, *, admin: bool = False) -> None:
    """Serve `draw` at `path`. Without a login it leads to the login page and back; without the
    role, or with NotFoundError, to a page that says so.
    """

    @ui.page(path, response_timeout=BUILD_S)
    async def shown(request: Request, client: Client) -> Response | None:
        desk: Desk = app.state.desk
        try:
            caller = await caller_of(request, desk)
        except UnauthenticatedError:
            return RedirectResponse(login_path(request), 303)
        if admin and not caller.admin:
            await _nothing(desk, caller, client, "This page is for admins.")
            return None
        try:
            await draw(desk, caller, client, request)
        except NotFoundError as error:
            client.content.clear()
            await _nothing(desk, caller, client, f"There is {error}.")
        return None


def login_path(request: Request) -> str:
    """The login page, which leads back to what was asked for."""
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return "/login" if here == "/" else f"/login?next={quote(here, safe='')}"


def back_path(wanted: str | None) -> str:
    """Where a login leads: a path of ours, "/" for anything else."""
    own = wanted is not None and wanted.startswith("/") and wanted.isprintable()
    return wanted if own and wanted and wanted[1:2] not in {"/", "\\"} else "/"


async def build(
    desk: Desk,
    caller: Caller,
    client: Client,
    *,
    here: str,
    title: str,
    side: bool = False,
    styles: tuple[str, ...] = (),
    scripts: tuple[str, ...] = (),
) -> Shell:
    """Make the frame inside the present client. here: the `Place` it belongs to. styles, scripts:
    names of files in `static/` that this page needs beside the common ones.
    """
    zone = (await accounts.me(desk, caller)).time_zone
    ui.add_head_html(_head((*STYLES, *styles), (*SCRIPTS, *scripts), zone))
    ui.colors(primary="#4f5bd5")
    theme = client.request.cookies.get("ai-theme")
    if theme in {"dark", "light"}:  # chosen before; else the system's preference holds
        ui.dark_mode(theme == "dark")
    ui.page_title(f"{title} · AI Infrastructure")
    width = RAIL_PX + (SIDE_PX if side else 0)
    with (
        ui.left_drawer(top_corner=True, bottom_corner=True)
        .props(f"width={width} breakpoint={NARROW_PX}")
        .classes("shell") as drawer
    ):
        badge = _rail(caller, here)
        column = ui.column().classes("side") if side else None
    with ui.header(elevated=False).classes("top"):
        with ui.element("div").classes("topline"):
            ui.button(icon="menu", on_click=drawer.toggle, color=None).props(
                'flat round dense aria-label="Menu"'
            ).classes("menu")
            heading = ui.label(title).classes("title").props("role=heading aria-level=1")
            actions = ui.element("div").classes("actions")
            _small("help_outline", "Keyboard shortcuts", "() => window.aiHelp()")
            _small("contrast", "Light or dark", "() => window.aiTheme()")
        if desk.settings.rehearsal:
            ui.html(
                "<b>Rehearsal model: no AI is answering.</b> Answers follow a fixed script. "
                'Add an API key under <a href="/settings">Settings</a> for real ones.'
            ).classes("rehearsal")
    shell = Shell(
        drawer=drawer,
        side=column,
        title=heading,
        actions=actions,
        body=ui.column().classes("body"),
        badge=badge,
    )
    shell.show_waiting(await approvals.waiting(desk, caller))
    return shell


def _head(styles: tuple[str, ...], scripts: tuple[str, ...], zone: str | None) -> str:
    keys = {place.key: place.path for place in PLACES}
    lines = [
        '<link rel="manifest" href="/static/manifest.webmanifest">',
        '<meta name="theme-color" content="#4f5bd5">',
        '<link rel="apple-touch-icon" href="/static/icon-192.png">',
        *(f'<link rel="stylesheet" href="/static/{name}.css">' for name in styles),
        f"<script>window.aiPlaces = {json.dumps(keys)}; {_zone(zone)}</script>",
        *(f'<script defer src="/static/{name}.js"></script>' for name in scripts),
    ]
    return "\n".join(lines)


def _zone(zone: str | None) -> str:
    """Sets the zone of all times, unless this browser does not know it."""
    if zone is None:
        return ""
    name = json.dumps(zone).replace("<", "\\u003c")
    return (
        f"try {{ new Intl.DateTimeFormat(undefined, {{ timeZone: {name} }}); "
        f"window.aiZone = {name}; }} catch {{ }}"
    )


def _rail(caller: Caller, here: str) -> Html:
    badge: Html | None = None
    with ui.element("nav").classes("rail").props('aria-label="Pages"'):
        ui.html('<a href="/chat" class="mark"><img src="/static/favicon.svg" alt="Home"></a>')
        for place in PLACES:
            if place.admin and not caller.admin:
                continue
            now = " aria-current=page" if place.path == here else ""
            with ui.element("a").props(f'href="{place.path}"{now}').classes("place"):
                ui.icon(place.icon).props("aria-hidden=true")
                ui.label(place.name)
                if place.path == "/approvals":
                    badge = ui.html("").classes("badge")
        ui.element("div").classes("grow")
        with ui.element("button").classes("place").on("click", js_handler=LOGOUT_JS):
            ui.icon("logout").props("aria-hidden=true")
            ui.label("Log out")
            ui.tooltip(caller.email)
    assert badge is not None
    return badge


def _small(icon: str, name: str, script: str) -> None:
    ui.button(icon=icon, color=None).props(f'flat round dense aria-label="{name}"').on(
        "click", js_handler=script
    ).tooltip(name)


async def _nothing(desk: Desk, caller: Caller, client: Client, said: str) -> None:
    shell = await build(desk, caller, client, here="", title="Nothing here")
    with shell.body, ui.column().classes("empty"):
        ui.icon("search_off")
        ui.label(said).classes("headline")
        ui.link("Back to the chat", "/chat")
