"""What people change about themselves: profile, password, sessions, API tokens."""

from __future__ import annotations

import functools
import json
import zoneinfo
from html import escape

from nicegui import Client, ui
from pydantic import ValidationError

from base.errors import AIError
from portal import accounts, identities, sessions
from portal import tokens as given
from portal.account_shapes import PASSWORD_MIN_CHARS, NewToken, Profile
from portal.auth import Caller
from portal.desk import Desk
from portal.oauth import TITLES
from portal.pages import parts
from portal.pages.marks import shown
from portal.scopes import SCOPES

THEMES = {"system": "As the system", "light": "Light", "dark": "Dark"}
#: How long a token lives: days, 0 for ever.
LIVES = {30: "30 days", 90: "90 days", 365: "A year", 0: "For ever"}
FIELD = "outlined dense"
ZONE_JS = "Intl.DateTimeFormat().resolvedOptions().timeZone"


async def profile(desk: Desk, caller: Caller, client: Client) -> None:
    """Name, time zone, theme."""
    me = await accounts.me(desk, caller)
    zones = {"": "As this browser says"}
    zones |= {zone: zone.replace("_", " ") for zone in sorted(zoneinfo.available_timezones())}
    with ui.element("form").classes("panel") as form:
        ui.html(f"Logged in as <b>{shown(escape(me.email))}</b>, {escape(me.role)}.")
        name = ui.input("Display name", value=me.display_name).props(f"{FIELD} maxlength=100")
        zone = ui.select(zones, label="Time zone", value=me.time_zone or "", with_input=True)
        zone.props(FIELD)
        ui.label("Times on all pages are shown in it.").classes("hint")
        _submit("Save")

    async def save() -> None:
        try:
            asked = Profile(display_name=name.value or "", time_zone=zone.value or None)
            await accounts.set_profile(desk, caller, asked)
        except ValidationError as error:
            ui.notify(said(error), type="negative", position="top")
        except AIError as error:
            parts.tell(error)
        else:
            parts.done("Saved")
            ui.run_javascript(f"window.aiZoneSet({json.dumps(zone.value or None)})")

    form.on("submit.prevent", save)
    theme = client.request.cookies.get("ai-theme")
    with ui.element("div").classes("panel"):
        ui.label("Theme").classes("section").props("id=theme")
        ui.toggle(THEMES, value=theme if theme in {"light", "dark"} else "system").props(
            "no-caps unelevated aria-labelledby=theme"
        ).on_value_change(lambda chosen: ui.run_javascript(f"window.aiThemeSet('{chosen.value}')"))
        ui.label("Kept in this browser.").classes("hint")


async def security(desk: Desk, caller: Caller, client: Client) -> None:
    """Password, where one is logged in, and what the account is linked with."""
    me = await accounts.me(desk, caller)
    with ui.element("form").classes("panel") as form:
        ui.label("Change the password" if me.has_password else "Set a password").classes("section")
        kind = f"{FIELD} type=password maxlength=1024"
        current = ui.input("Current password").props(f"{kind} autocomplete=current-password")
        current.set_visibility(me.has_password)
        new = ui.input("New password").props(f"{kind} autocomplete=new-password")
        again = ui.input("New password, once more").props(f"{kind} autocomplete=new-password")
        ui.label(
            f"At least {PASSWORD_MIN_CHARS} characters. Everywhere else you are logged out."
        ).classes("hint")
        _submit("Change the password" if me.has_password else "Set the password")

    async def change() -> None:
        if len(new.value or "") < PASSWORD_MIN_CHARS:
            ui.notify(f"At least {PASSWORD_MIN_CHARS} characters", type="negative", position="top")
            return
        if new.value != again.value:
            ui.notify("The two are not the same", type="negative", position="top")
            return
        try:
            await accounts.set_password(desk, caller, new.value, current.value or None)
        except AIError as error:
            parts.tell(error)
            return
        for field in (current, new, again):
            field.set_value("")
        parts.done("The password is changed")
        list_sessions.refresh()

    form.on("submit.prevent", change)

    @ui.refreshable
    async def list_sessions() -> None:
        found = (await sessions.sessions(desk, caller)).sessions
        rows = [
            {
                "id": "" if one.current else one.id,
                "device": shown(escape(one.device)) + (_here() if one.current else ""),
                "address": escape(one.address or "unknown"),
                "how": escape(one.how.replace("_", " ")),
                "begun": parts.when(one.created_at),
                "seen": parts.when(one.last_seen_at or one.created_at, ago=True),
                "end": "" if one.current else _button("End", f"End the session on {one.device}"),
            }
            for one in found
        ]
        table = parts.table(
            {
                "device": "Device",
                "address": "Address",
                "how": "By",
                "begun": "Logged in",
                "seen": "Last seen",
                "end": "",
            },
            rows,
        )
        table.on("click", lambda event: end(event.args), js_handler=BUTTON_JS)
        if len(found) > 1:
            with ui.element("div").classes("line end pad"):
                ui.button("End all others", on_click=end_others, color=None).props(
                    "flat no-caps"
                ).classes("quiet")

    async def end(session_id: str) -> None:
        try:
            await sessions.end(desk, caller, session_id)
        except AIError as error:
            parts.tell(error)
        else:
            parts.done("Ended; its pages close within seconds")
        list_sessions.refresh()

    async def end_others() -> None:
        more = "Every browser and program but this one has to log in again."
        if await parts.sure("End all other sessions?", more, "End them"):
            ended = await sessions.end_others(desk, caller)
            parts.done(f"{ended.ended} ended")
            list_sessions.refresh()

    ui.label("Where you are logged in").classes("section")
    with ui.element("div").classes("panel flush"):
        await list_sessions()
    await _identities(desk, caller)


async def tokens(desk: Desk, caller: Caller, client: Client) -> None:
    """API tokens: make, see, revoke."""
    ui.label(
        "A token lets a program of yours use the API as you, within its scopes. "
        "It is shown once, when it is made."
    ).classes("lead")

    @ui.refreshable
    async def list_tokens() -> None:
        found = (await given.tokens(desk, caller)).tokens
        if not found:
            parts.empty("token", "No tokens yet", "Make one for a script or another program.")
            return
        rows = [
            {
                "name": shown(escape(one.name)) + f" <code>{escape(one.hint)}…</code>",
                "scopes": " ".join(parts.pill(scope, "") for scope in one.scopes),
                "until": parts.when(one.expires_at) if one.expires_at else "for ever",
                "used": parts.when(one.last_used_at, ago=True),
                "id": one.id,
                "end": _button("Revoke", f"Revoke {one.name}"),
            }
            for one in found
        ]
        columns = {"name": "Name", "scopes": "May", "until": "Until", "used": "Used", "end": ""}
        with ui.element("div").classes("panel flush"):
            table = parts.table(columns, rows)
            table.on("click", lambda event: revoke(event.args), js_handler=BUTTON_JS)

    async def revoke(token_id: str) -> None:
        more = "Programs that use it are refused from now on."
        if not await parts.sure("Revoke this token?", more, "Revoke"):
            return
        try:
            await given.revoke(desk, caller, token_id)
        except AIError as error:
            parts.tell(error)
        list_tokens.refresh()

    async def make() -> None:
        if await _make_token(desk, caller):
            list_tokens.refresh()

    with ui.element("div").classes("line"):
        ui.button("New token", icon="add", on_click=make, color=None).props(
            "unelevated no-caps"
        ).classes("main")
    await list_tokens()


async def _make_token(desk: Desk, caller: Caller) -> bool:
    """Ask for what it needs, make it, show it. Whether one was made."""
    known = [scope for scope in SCOPES if caller.admin or scope != "admin"]
    with ui.dialog() as asked, ui.card().classes("sheet"):
        ui.label("New API token").classes("headline")
        name = ui.input("Name").props(f"{FIELD} maxlength=100 autofocus")
        with ui.element("fieldset").classes("scopes"):
            with ui.element("legend"):
                ui.label("It may")
            boxes = {scope: ui.checkbox(f"{SCOPES[scope]} ({scope})") for scope in known}
        life = ui.select(LIVES, value=90, label="It ends after").props(FIELD)
        parts.choices(asked, "Make it")
    try:
        while await asked:
            if not any(box.value for box in boxes.values()):
                ui.notify("Choose what it may", type="negative", position="top")
                continue
            try:
                wanted = NewToken(
                    name=(name.value or "").strip(),
                    scopes=frozenset(scope for scope, box in boxes.items() if box.value),
                    expires_in_days=life.value or None,
                )
                made = await given.make(desk, caller, wanted)
            except ValidationError as error:
                ui.notify(said(error), type="negative", position="top")
            except AIError as error:
                parts.tell(error)
            else:
                await once("Your token", "Copy it now: it is not shown again.", made.token)
                return True
        return False
    finally:
        asked.delete()


async def once(title: str, more: str, secret: str) -> None:
    """Show what is shown this once, with a button that copies it."""
    with ui.dialog().props("persistent") as seen, ui.card().classes("sheet"):
        ui.label(title).classes("headline")
        ui.label(more).classes("lead")
        ui.input(title, value=secret).props(f"{FIELD} readonly").classes("secret")
        with ui.element("div").classes("line end"):
            ui.button("Copy", icon="content_copy", color=None).props("flat no-caps").classes(
                "quiet"
            ).on("click", js_handler="() => window.aiCopy('.secret input')")
            ui.button("Done", on_click=lambda: seen.submit(True), color=None).props(
                "unelevated no-caps"
            ).classes("main")
    await seen
    seen.delete()


async def _identities(desk: Desk, caller: Caller) -> None:
    """What the account is linked with, and what it may be. Nothing where no provider is set up."""
    names = await desk.providers.names()
    linked = {one.provider: one for one in (await accounts.me(desk, caller)).identities}
    if not names and not linked:
        return
    titles = {str(name): title for name, title in TITLES.items()}
    ui.label("Other ways to log in").classes("section")

    @ui.refreshable
    async def list_linked() -> None:
        linked = {one.provider: one for one in (await accounts.me(desk, caller)).identities}
        for name in sorted({*names, *linked}):
            one = linked.get(name)
            title = titles.get(name, name)
            with ui.element("div").classes("line"):
                ui.label(title).classes("grow")
                if one is None:
                    ui.link(f"Link with {title}", f"/api/auth/oauth/{name}?link=true")
                    continue
                ui.label(one.email).classes("hint")
                ui.button("Unlink", on_click=functools.partial(unlink, name), color=None).props(
                    f'flat no-caps dense aria-label="Unlink {title}"'
                ).classes("quiet")

    async def unlink(name: str) -> None:
        try:
            await identities.unlink(desk, caller, name)
        except AIError as error:
            parts.tell(error)
        list_linked.refresh()

    with ui.element("div").classes("panel"):
        await list_linked()


def _submit(word: str) -> None:
    with ui.element("div").classes("line end"):
        ui.button(word, color=None).props("unelevated no-caps type=submit").classes("main")


def _button(word: str, label: str) -> str:
    return f'<button class="small" aria-label="{escape(label, quote=True)}">{word}</button>'


def _here() -> str:
    return " " + parts.pill("this one", "good")


def said(error: ValidationError) -> str:
    """The first thing that is wrong, in words."""
    first = error.errors(include_input=False, include_url=False)[0]
    field = str(first["loc"][0]).replace("_", " ") if first["loc"] else "this"
    return f"{field.capitalize()}: {str(first['msg']).removeprefix('Value error, ')}"


#: A click on a row's button gives the row's id.
BUTTON_JS = """(event) => {
  const button = event.target.closest('button');
  const row = button && button.closest('tr[data-id]');
  if (row && row.dataset.id) emit(row.dataset.id);
}"""
