"""The settings: a part for everybody about themselves, and for admins all that can be changed.

Each part has an address of its own; this file has the list of them and what is around them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fastapi import FastAPI, Request
from nicegui import Client, ui

from base.errors import NotFoundError
from portal.auth import Caller
from portal.desk import Desk
from portal.feed import Item
from portal.pages import (
    settings_added,
    settings_files,
    settings_keys,
    settings_own,
    settings_people,
    shell,
)
from portal.pages.live import Live

Build = Callable[[Desk, Caller, Client], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One page of the settings. `name` is the last word of its address, "" for the first."""

    name: str
    title: str
    icon: str
    build: Build
    admin: bool = False


PARTS = (
    Part(name="", title="Profile", icon="person", build=settings_own.profile),
    Part(name="security", title="Security", icon="lock", build=settings_own.security),
    Part(name="tokens", title="API tokens", icon="token", build=settings_own.tokens),
    Part(name="people", title="People", icon="group", build=settings_people.people, admin=True),
    Part(name="keys", title="API keys", icon="key", build=settings_keys.keys, admin=True),
    Part(
        name="models", title="Models", icon="auto_awesome", build=settings_files.models, admin=True
    ),
    Part(name="budgets", title="Budgets", icon="savings", build=settings_files.budgets, admin=True),
    Part(
        name="levels", title="Permissions", icon="shield", build=settings_files.levels, admin=True
    ),
    Part(name="limits", title="Limits", icon="speed", build=settings_files.limits, admin=True),
    Part(
        name="system",
        title="Voice and system",
        icon="tune",
        build=settings_files.system,
        admin=True,
    ),
    Part(
        name="agents",
        title="Agents and tools",
        icon="smart_toy",
        build=settings_added.added,
        admin=True,
    ),
    Part(name="files", title="Files", icon="description", build=settings_files.files, admin=True),
)


#: The parts on top of which stands how to get from the rehearsal to a real model.
WITH_CARD = ("", "keys")


def install(app: FastAPI) -> None:
    """`/settings` and `/settings/PART`."""
    shell.page(app, "/settings", _draw)
    shell.page(app, "/settings/{part}", _draw)


async def _draw(desk: Desk, caller: Caller, client: Client, request: Request) -> None:
    name = request.path_params.get("part", "")
    mine = [part for part in PARTS if caller.admin or not part.admin]
    part = next((part for part in mine if part.name == name), None)
    if part is None:
        raise NotFoundError(f"no part {name!r} of the settings for you")
    live = Live(desk, caller, client)
    made = await shell.build(
        desk,
        caller,
        client,
        here="/settings",
        title="Settings",
        styles=("settings",),
        scripts=("settings",),
    )
    with made.body, ui.element("div").classes("page settings"):
        _parts(mine, part)
        with ui.element("section").classes("part").props(f'aria-label="{part.title}"'):
            if caller.admin and desk.settings.rehearsal and part.name in WITH_CARD:
                await settings_keys.first(desk, caller, here=part.name == "keys")
            ui.label(part.title).classes("section").props("role=heading aria-level=2")
            await part.build(desk, caller, client)

    async def take(items: Sequence[Item]) -> None:
        """Nothing here follows what happens; the page ends with its session."""

    live.start(made, take)


def _parts(mine: list[Part], here: Part) -> None:
    with ui.element("nav").classes("parts").props('aria-label="Parts of the settings"'):
        for part in mine:
            path = f"/settings/{part.name}" if part.name else "/settings"
            now = " aria-current=page" if part is here else ""
            with ui.element("a").props(f'href="{path}"{now}'):
                ui.icon(part.icon).props("aria-hidden=true")
                ui.label(part.title)
