"""The server's sites: each with its certificate, and for admins what can be done with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from html import escape

from nicegui import ui

from base.errors import AIError
from base.messages import Kind
from base.plural import counted
from portal import deploys, domains
from portal.auth import Caller
from portal.broker import Tell
from portal.desk import Desk
from portal.domains import Domain
from portal.feed import Item
from portal.pages import parts
from portal.pages.marks import shown
from portal.pages.site_sheets import AddSite, DeploySite, PastChanges

#: Days that a certificate has left: renewal at a third of its life should have come before.
SOON_DAYS, LATE_DAYS = 14, 3
KINDS = {"static": "files", "proxy": "program", "redirect": "redirect"}

Do = Callable[[Tell], Awaitable[object]]


class Sites:
    """The list, and what is being done now."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller

    async def build(self) -> None:
        """Make the head and the list inside the present element."""
        with ui.element("div").classes("line"):
            ui.label("The sites of this server and their certificates.").classes("lead grow")
            if self._caller.admin:
                ui.button("History", icon="history", on_click=self._history, color=None).props(
                    "flat no-caps"
                ).classes("quiet")
                ui.button("Add a domain", icon="add", on_click=self._add, color=None).props(
                    "unelevated no-caps"
                ).classes("main")
        with ui.element("div").classes("panel doing").props("role=status") as self._doing:
            ui.spinner(size="18px")
            self._step = ui.label("")
        self._doing.set_visibility(False)
        self._list = ui.element("div").classes("sites")
        self._sheets = ui.element("div")  # what stands in the list goes when that is drawn anew
        await self.refresh()

    async def take(self, items: Sequence[Item]) -> None:
        """What the broker tells of its work: for this person, or for an agent of theirs."""
        told = [event for _, event in items if event.kind is Kind.BROKER]
        if not told:
            return
        last = told[-1]
        self._show(
            None if last.data.get("state") == "ended" else
            f"{last.data.get('verb')} {last.data.get('about')}: {last.data.get('step') or 'begun'}"
        )  # fmt: skip
        if any(event.data.get("state") == "ended" for event in told):
            await self.refresh()

    async def refresh(self) -> None:
        """Ask the server anew."""
        try:
            found = (await domains.domains(self._desk, self._caller)).domains
        except AIError as error:
            self._list.clear()
            with self._list:
                ui.label(f"The sites cannot be shown: {error}").classes("fault").props("role=alert")
            return
        self._list.clear()
        with self._list:
            if not found:
                parts.empty(
                    "language",
                    "No domains yet",
                    "Let a domain's DNS lead to this server, then add it here."
                    if self._caller.admin
                    else "An admin adds them here.",
                )
            for one in found:
                self._site(one)

    def _show(self, step: str | None) -> None:
        self._doing.set_visibility(step is not None)
        self._step.set_text(step or "")

    def _site(self, one: Domain) -> None:
        with ui.element("section").classes("panel site").props(f'aria-label="{one.domain_name}"'):
            ui.html(_head(one)).classes("about")
            if not self._caller.admin:
                return
            with ui.element("div").classes("acts"):
                if one.kind == "static":
                    self._button("Deploy", "upload", one, self._deploy)
                    if one.release:
                        self._button("Roll back", "undo", one, self._roll_back)
                if one.ssl_status != "none":
                    self._button("Renew", "autorenew", one, self._renew)
                on = one.status == "active"
                self._button(
                    "Disable" if on else "Enable",
                    "pause" if on else "play_arrow",
                    one,
                    self._switch,
                )
                self._button("Remove", "delete", one, self._remove, bad=True)

    def _button(
        self,
        word: str,
        icon: str,
        one: Domain,
        act: Callable[[Domain], Awaitable[None]],
        *,
        bad: bool = False,
    ) -> None:
        async def pressed() -> None:
            with self._sheets:
                await act(one)

        made = ui.button(word, icon=icon, on_click=pressed, color=None)
        made.props(f'flat no-caps dense aria-label="{word} {one.domain_name}"')
        made.classes("quiet bad" if bad else "quiet")

    # Doing -------------------------------------------------------------------------------------

    async def _add(self) -> None:
        if await AddSite(self._desk, self._caller).open():
            await self.refresh()

    async def _history(self) -> None:
        if await PastChanges(self._desk, self._caller).open():
            await self.refresh()

    async def _deploy(self, one: Domain) -> None:
        if await DeploySite(one).open():
            await self.refresh()

    async def _roll_back(self, one: Domain) -> None:
        more = f"{one.domain_name} serves the release before {one.release} at once."
        if await parts.sure("Roll back to the previous release?", more, "Roll back", bad=False):
            await self._do(
                "Rolled back",
                lambda _: deploys.rollback(self._desk, self._caller, one.id),
            )

    async def _renew(self, one: Domain) -> None:
        await self._do(
            "The certificate is good",
            lambda tell: domains.renew(self._desk, self._caller, one.id, tell=tell),
        )

    async def _switch(self, one: Domain) -> None:
        on = one.status == "active"
        more = "It answers no more until it is enabled again; files and certificate stay."
        if on and not await parts.sure(f"Disable {one.domain_name}?", more, "Disable"):
            return
        await self._do(
            "Disabled" if on else "Enabled",
            lambda _: domains.switch(self._desk, self._caller, one.id, enabled=not on),
        )

    async def _remove(self, one: Domain) -> None:
        more = "It answers no more. Its files are archived on the server, its certificate stays."
        if await parts.sure(f"Remove {one.domain_name}?", more, "Remove"):
            await self._do(
                "Removed",
                lambda tell: domains.remove(self._desk, self._caller, one.id, tell=tell),
            )

    async def _do(self, word: str, do: Do) -> None:
        async def tell(step: str) -> None:
            self._show(step)

        self._show("asking the server")
        try:
            await do(tell)
        except AIError as error:
            parts.tell(error)
        else:
            parts.done(word)
        finally:
            self._show(None)
        await self.refresh()


def _head(one: Domain) -> str:
    name = escape(one.domain_name, quote=True)
    scheme = "http" if one.ssl_status == "none" else "https"
    others = [other for other in one.names if other != one.domain_name]
    more = f"<small>{escape(', '.join(others))}</small>" if others else ""
    to = one.upstream or one.target or (f"release {one.release}" if one.release else "")
    serves = f"{KINDS[one.kind]}{': ' + to if to else ''}"
    fault = f'<p class="fault">{escape(one.problem)}</p>' if one.problem else ""
    return shown(
        f'<h2><a href="{scheme}://{name}" rel="noopener noreferrer" target="_blank">{name}</a>'
        f"</h2>{more}<p>{parts.pill(one.status, 'good' if one.status == 'active' else 'warn')}"
        f" {_certificate(one)} <span>{escape(serves)}</span></p>{fault}"
    )


def _certificate(one: Domain) -> str:
    if one.ssl_status == "none":
        return parts.pill("no certificate", "warn")
    if one.ssl_status != "active" or one.days_left is None:
        return parts.pill(
            f"certificate {one.ssl_status}", "busy" if one.ssl_status == "pending" else "bad"
        )
    days = one.days_left
    kind = "bad" if days <= LATE_DAYS else "warn" if days <= SOON_DAYS else "good"
    return parts.pill(f"certificate {counted(days, 'day')}", kind)
