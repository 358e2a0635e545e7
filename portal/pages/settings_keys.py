"""API keys: where each comes from, a place to put one in, and whether it works."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from html import escape

from nicegui import Client, ui
from pydantic import SecretStr

from base import secrets
from base.errors import AIError
from portal import api_keys
from portal.api_keys import ApiKey
from portal.auth import Caller
from portal.desk import Desk
from portal.kept import kept
from portal.pages import parts
from portal.pages.marks import shown
from portal.pages.settings_form import restart_panel
from portal.pages.settings_own import FIELD

SOURCES = {
    "none": ("not set", ""),
    "file": ("set, in a file", "good"),
    "aws": ("set, in AWS", "good"),
    "credential": ("set, by systemd", "good"),
    "environment": ("set, in the environment", "good"),
    "-": ("cannot be read", "bad"),
}
#: Who has to start anew when the first key is set: they chose the rehearsal model at the start.
CHOOSERS = ("supervisor", "agents", "portal")


async def first(desk: Desk, caller: Caller, *, here: bool) -> None:
    """No AI answers yet: the three ways to change that, or the restart that is left to do."""
    known = (
        {one.name: one for one in kept(desk.settings)} if desk.settings.aws_region is None else {}
    )
    key = known.get(secrets.ANTHROPIC_API_KEY)
    if key is not None and key.fault is None:
        await restart_panel(
            desk,
            caller,
            "A key is set. The agents use it once they have started anew.",
            CHOOSERS,
        )
        return
    with ui.element("div").classes("panel first"):
        ui.label("No AI is answering yet").classes("headline").props("role=heading aria-level=2")
        ui.label(
            "The rehearsal model follows a fixed script. With an Anthropic API key the agents "
            "think. There are three ways to set one:"
        ).classes("lead")
        with ui.element("ol"):
            with ui.element("li"):
                if here:
                    ui.html("<b>Here:</b> “Set” beside anthropic-api-key below.")
                else:
                    ui.html('<b>Here:</b> under <a href="/settings/keys">API keys</a>.')
            with ui.element("li"):
                ui.html(
                    "<b>On the server:</b> <code>ai-infra secrets set anthropic-api-key</code>, "
                    "then <code>ai-infra down</code> and <code>ai-infra up</code>."
                )
            with ui.element("li"):
                ui.html(
                    "<b>From a store:</b> AWS Secrets Manager (<code>aws_region</code> under "
                    '<a href="/settings/system">Voice and system</a>), or a systemd credential of '
                    "that name."
                )


async def keys(desk: Desk, caller: Caller, client: Client) -> None:
    """Every secret the product may ask for, set or not, and the owner's own."""
    ui.label("A key goes in and never comes out: no page, log or answer shows it again.").classes(
        "lead"
    )

    @ui.refreshable
    async def list_keys() -> None:
        with ui.element("div").classes("panel flush keys"):
            for one in await api_keys.keys(desk, caller):
                _row(one)

    def _row(one: ApiKey) -> None:
        word, kind = SOURCES.get(one.source, (one.source, ""))
        with ui.element("div").classes("key").props(f'data-key="{one.name}"'):
            ui.html(
                f"<b>{escape(one.name)}</b><small>{escape(one.fault or one.about)}</small>"
            ).classes("what")
            ui.html(
                shown(parts.pill(word, kind))
                + (f" <small>{parts.when(one.since, ago=True)}</small>" if one.since else "")
            ).classes("state")
            with ui.element("div").classes("does"):
                if one.can_try:
                    _act("Try it", one, try_one)
                if one.settable:
                    _act("Set" if one.source == "none" else "Replace", one, set_one)
                    if one.source == "file":
                        _act("Remove", one, remove_one)
                else:
                    ui.label(one.why).classes("hint")

    async def set_one(one: ApiKey) -> None:
        if await _set(desk, caller, one.name):
            list_keys.refresh()
            if one.name == secrets.ANTHROPIC_API_KEY and desk.settings.rehearsal:
                changed.clear()
                with changed:
                    await restart_panel(desk, caller, "The key is set.", CHOOSERS)

    async def remove_one(one: ApiKey) -> None:
        more = "What needs it stops working at its next use. The value cannot be shown first."
        if await parts.sure(f"Remove {one.name}?", more, "Remove"):
            try:
                await api_keys.remove(desk, caller, one.name)
            except AIError as error:
                parts.tell(error)
            list_keys.refresh()

    async def try_one(one: ApiKey) -> None:
        waiting = ui.notification(
            "Asking the provider …", spinner=True, timeout=None, position="top"
        )
        try:
            found = await api_keys.attempt(desk, caller, one.name)
        except AIError as error:
            parts.tell(error)
            return
        finally:
            waiting.dismiss()
        price = f", {parts.usd(found.cost_usd)}" if found.cost_usd else ""
        ui.notify(
            f"{found.said} ({found.latency_ms} ms{price})",
            type="positive" if found.ok else "negative",
            position="top",
            multi_line=True,
            timeout=0,
            close_button="Close",
        )

    async def another() -> None:
        if await _set(desk, caller, None):
            list_keys.refresh()

    changed = ui.element("div").classes("changed")
    await list_keys()
    with ui.element("div").classes("line"):
        ui.button("Another secret", icon="add", on_click=another, color=None).props(
            "flat no-caps"
        ).classes("quiet")
        ui.label("For an MCP server that needs one, by the name that mcp.toml says.").classes(
            "hint"
        )


def _act(word: str, one: ApiKey, does: Callable[[ApiKey], Awaitable[None]]) -> None:
    ui.button(word, on_click=functools.partial(does, one), color=None).props(
        f'flat no-caps dense aria-label="{word} {one.name}"'
    ).classes("quiet")


async def _set(desk: Desk, caller: Caller, known: str | None) -> bool:
    """Ask for a value, and for a name when there is none; whether it was kept."""
    with ui.dialog() as asked, ui.card().classes("sheet"):
        ui.label(f"Set {known}" if known else "Another secret").classes("headline")
        name = ui.input("Name", value=known or "").props(f"{FIELD} maxlength=64")
        name.set_visibility(known is None)
        value = ui.input("Value").props(
            f"{FIELD} type=password autocomplete=off spellcheck=false autofocus"
        )
        ui.label("It is kept on the server in a file that only the owner can read.").classes("hint")
        parts.choices(asked, "Keep it")
        value.on("keydown.enter", lambda: asked.submit(True))
    try:
        while await asked:
            try:
                given = SecretStr(value.value or "")
                await api_keys.put(desk, caller, (name.value or "").strip(), given)
            except AIError as error:
                parts.tell(error)
            else:
                parts.done("Kept")
                return True
        return False
    finally:
        value.set_value("")
        asked.delete()
