"""Everybody with an account: invite, role, deactivate, a link to set a new password."""

from __future__ import annotations

from html import escape

from nicegui import Client, ui
from pydantic import ValidationError

from base.errors import AIError
from portal import accounts
from portal.account_shapes import ChangeUser, NewUser
from portal.auth import Caller
from portal.desk import Desk
from portal.door import address_of
from portal.links import Link
from portal.pages import parts
from portal.pages.marks import shown
from portal.pages.settings_own import FIELD, once, said

ROLES = {"user": "User", "admin": "Admin"}
PAGE_ROWS = 50


async def people(desk: Desk, caller: Caller, client: Client) -> None:
    """The list, newest first; a row opens what can be done."""
    at = address_of(client.request, desk.settings)
    cursors: list[str | None] = [None]
    known: dict[str, accounts.User] = {}

    @ui.refreshable
    async def list_people() -> None:
        found = await accounts.users(desk, caller, limit=PAGE_ROWS, cursor=cursors[-1])
        known.clear()
        known.update((one.id, one) for one in found.users)
        rows = [
            {
                "id": one.id,
                "who": _who(one, caller),
                "role": parts.pill(one.role, "busy" if one.role == "admin" else ""),
                "state": _state(one),
                "since": parts.when(one.created_at),
                "seen": parts.when(one.last_login_at, ago=True),
            }
            for one in found.users
        ]
        columns = {
            "who": "Who",
            "role": "Role",
            "state": "State",
            "since": "Since",
            "seen": "Last login",
        }
        with ui.element("div").classes("panel flush"):
            parts.table(columns, rows, on_row=open_one)
        with ui.element("div").classes("line end"):
            if len(cursors) > 1:
                ui.button("Newer", on_click=newer, color=None).props("flat no-caps").classes(
                    "quiet"
                )
            if found.next_cursor is not None:
                ui.button("Older", on_click=lambda: older(found.next_cursor), color=None).props(
                    "flat no-caps"
                ).classes("quiet")

    def newer() -> None:
        cursors.pop()
        list_people.refresh()

    def older(cursor: str | None) -> None:
        cursors.append(cursor)
        list_people.refresh()

    async def open_one(user_id: str) -> None:
        if user_id in known and await _change(desk, caller, known[user_id], at):
            list_people.refresh()

    async def invite() -> None:
        if await _invite(desk, caller, at):
            list_people.refresh()

    with ui.element("div").classes("line"):
        ui.label("Each has conversations, tasks and memories of their own.").classes("lead grow")
        ui.button("Invite", icon="person_add", on_click=invite, color=None).props(
            "unelevated no-caps"
        ).classes("main")
    await list_people()


def _who(one: accounts.User, caller: Caller) -> str:
    name = f"<b>{shown(escape(one.display_name))}</b> " if one.display_name else ""
    you = " " + parts.pill("you", "good") if one.id == caller.user_id else ""
    return f"{name}{shown(escape(one.email))}{you}"


def _state(one: accounts.User) -> str:
    if not one.is_active:
        return parts.pill("deactivated", "bad")
    return parts.pill("invited", "warn") if one.invited else parts.pill("active", "good")


async def _invite(desk: Desk, caller: Caller, at: str) -> bool:
    with ui.dialog() as asked, ui.card().classes("sheet"):
        ui.label("Invite somebody").classes("headline")
        ui.label("You get a link for them, good once and for seven days.").classes("lead")
        email = ui.input("Email").props(f"{FIELD} type=email maxlength=255 autofocus")
        name = ui.input("Name").props(f"{FIELD} maxlength=100")
        role = ui.select(ROLES, value="user", label="Role").props(FIELD)
        parts.choices(asked, "Invite")
    try:
        while await asked:
            try:
                wanted = NewUser(
                    email=email.value or "", display_name=name.value or "", role=role.value
                )
                made = await accounts.create(desk, caller, wanted, at)
            except ValidationError as error:
                ui.notify(said(error), type="negative", position="top")
            except AIError as error:
                parts.tell(error)
            else:
                if made.invitation is not None:
                    await _show(made.invitation, made.user.email)
                return True
        return False
    finally:
        asked.delete()


async def _change(desk: Desk, caller: Caller, one: accounts.User, at: str) -> bool:
    """What an admin may do to one account; whether something was done."""
    with ui.dialog() as asked, ui.card().classes("sheet"):
        ui.label(one.display_name or one.email).classes("headline")
        ui.label(one.email).classes("lead")
        role = ui.select(ROLES, value=one.role, label="Role").props(FIELD)
        with ui.element("div").classes("line"):
            if one.is_active:
                ui.button(
                    "Invitation link" if one.invited else "Link to set a new password",
                    on_click=lambda: asked.submit("link"),
                    color=None,
                ).props("flat no-caps").classes("quiet")
            ui.button(
                "Deactivate" if one.is_active else "Activate",
                on_click=lambda: asked.submit("turn"),
                color=None,
            ).props("flat no-caps").classes("quiet")
        parts.choices(asked, "Save")
    does = await asked
    asked.delete()
    try:
        if does == "link":
            await _show(await accounts.link(desk, caller, one.id, at), one.email)
        elif does == "turn":
            more = (
                "They are logged out at once, their API tokens are gone, their work is cancelled."
            )
            if one.is_active and not await parts.sure(
                f"Deactivate {one.email}?", more, "Deactivate"
            ):
                return False
            await accounts.change(desk, caller, one.id, ChangeUser(is_active=not one.is_active))
        elif does and role.value != one.role:
            await accounts.change(desk, caller, one.id, ChangeUser(role=role.value))
        else:
            return False
    except AIError as error:
        parts.tell(error)
        return False
    parts.done("Done")
    return True


async def _show(link: Link, email: str) -> None:
    await once("The link", f"Give it to {email}. It works once and is not shown again.", link.url)
