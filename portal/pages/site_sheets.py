"""Sheets of the domains page: add a site with its plan first, deploy to it, the history."""

from __future__ import annotations

from html import escape
from typing import Any

from nicegui import ui
from pydantic import ValidationError

from base.errors import AIError
from portal import domains
from portal.auth import Caller
from portal.desk import Desk
from portal.domains import Change, Domain
from portal.pages import parts
from portal.pages.marks import shown
from portal.shapes import NewDomain

FIELD = "outlined dense"
KINDS = {
    "static": "Files that are deployed",
    "proxy": "A program of this machine",
    "redirect": "Sent on to another domain",
}
CHALLENGES = {"http-01": "By the web server (HTTP-01)", "dns-01": "By DNS (DNS-01)"}


class AddSite:
    """A form whose plan is looked at before anything is done."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self._planned: NewDomain | None = None

    async def open(self) -> bool:
        """Show it until it is closed; whether a site was added."""
        with ui.dialog().props("persistent") as self._dialog, ui.card().classes("sheet site-sheet"):
            ui.label("Add a domain").classes("headline")
            ui.label("Its DNS has to lead to this server already.").classes("lead")
            self._name = ui.input("Domain, such as example.org", on_change=self._changed)
            self._name.props(f"{FIELD} maxlength=253 autofocus autocapitalize=off")
            self._kind = ui.select(
                KINDS, value="static", label="It serves", on_change=self._changed
            )
            self._kind.props(FIELD)
            self._upstream = ui.input(
                "Program, such as http://127.0.0.1:3000", on_change=self._changed
            ).props(f"{FIELD} maxlength=60")
            self._target = ui.input("To domain", on_change=self._changed).props(
                f"{FIELD} maxlength=253"
            )
            self._others = ui.input("Subdomains, with commas: www, blog", on_change=self._changed)
            self._others.props(f"{FIELD} maxlength=400 autocapitalize=off")
            self._tls = ui.switch("With a certificate", value=True, on_change=self._changed)
            self._challenge = ui.select(
                CHALLENGES, value="http-01", label="Proved", on_change=self._changed
            ).props(FIELD)
            self._plan = ui.html("").classes("steps").props("role=status")
            self._fault = ui.label("").classes("fault").props("role=alert")
            with ui.element("div").classes("line end"):
                ui.button("Cancel", on_click=lambda: self._dialog.submit(False), color=None).props(
                    "flat no-caps"
                )
                self._go = ui.button("Look at the plan", on_click=self._pressed, color=None)
                self._go.props("unelevated no-caps").classes("main")
        self._changed()
        added = bool(await self._dialog)
        self._dialog.delete()
        return added

    def _changed(self, _: object = None) -> None:
        """What is planned is what stands in the form, or nothing."""
        self._planned = None
        self._upstream.set_visibility(self._kind.value == "proxy")
        self._target.set_visibility(self._kind.value == "redirect")
        self._challenge.set_visibility(bool(self._tls.value))
        self._plan.set_content("")
        self._say("")
        self._go.set_text("Look at the plan")

    async def _pressed(self) -> None:
        self._go.props("loading")
        self._say("")
        try:
            await (self._add(self._planned) if self._planned is not None else self._look())
        except ValidationError as error:
            self._say(error.errors()[0]["msg"].removeprefix("Value error, "))
        except AIError as error:
            self._say(str(error))
        finally:
            self._go.props(remove="loading")

    async def _look(self) -> None:
        wanted = self._wanted()
        plan = (await domains.planned(self._desk, self._caller, wanted)).plan
        steps = "".join(f"<li>{escape(step)}</li>" for step in plan)
        self._plan.set_content(shown(f"<p>Nothing is done yet. It would:</p><ol>{steps}</ol>"))
        self._planned = wanted
        self._go.set_text(f"Add {wanted.domain_name}")

    async def _add(self, wanted: NewDomain) -> None:
        async def tell(step: str) -> None:
            self._plan.set_content(shown(f'<p class="now">{escape(step)} …</p>'))

        found = await domains.add(self._desk, self._caller, wanted, tell=tell)
        parts.done(f"{found.domain_name} is served")
        self._dialog.submit(True)

    def _wanted(self) -> NewDomain:
        others = [one.strip() for one in (self._others.value or "").split(",") if one.strip()]
        kind = self._kind.value
        return NewDomain(
            domain_name=(self._name.value or "").strip(),
            kind=kind,
            upstream=(self._upstream.value or "").strip() or None if kind == "proxy" else None,
            target=(self._target.value or "").strip() or None if kind == "redirect" else None,
            subdomains=others,
            setup_ssl=bool(self._tls.value),
            challenge=self._challenge.value,
        )

    def _say(self, fault: str) -> None:
        self._fault.set_text(fault)
        self._fault.set_visibility(bool(fault))


class DeploySite:
    """Files from the person's machine: the browser sends them, see `static/domains.js`."""

    def __init__(self, site: Domain) -> None:
        self._site = site
        self._done = False

    async def open(self) -> bool:
        """Show it until it is closed; whether there is a new release."""
        with ui.dialog().props("persistent") as self._dialog, ui.card().classes("sheet site-sheet"):
            ui.label(f"Deploy to {self._site.domain_name}").classes("headline")
            ui.label(
                "A folder, files, or one archive (.zip, .tar, .tar.gz). The site changes at once"
                " when all of it is there; the release before is kept."
            ).classes("lead")
            with ui.element("div").classes("line"):
                self._pick("Choose a folder", "folder_open", True)
                self._pick("Choose files", "upload_file", False)
            self._bar = ui.html("").classes("bar")
            self._said = ui.label("").classes("hint").props("role=status")
            self._fault = ui.label("").classes("fault").props("role=alert")
            self._fault.set_visibility(False)
            with ui.element("div").classes("line end"):
                ui.button("Close", on_click=lambda: self._dialog.submit(None), color=None).props(
                    "flat no-caps"
                )
        await self._dialog
        self._dialog.delete()
        return self._done

    def _pick(self, word: str, icon: str, folder: bool) -> None:
        made = ui.button(word, icon=icon, color=None).props("flat no-caps").classes("quiet")
        whole = "true" if folder else "false"
        js = f"() => window.aiDeploy('{self._site.id}', {whole}, emit)"
        made.on("click", self._told, js_handler=js)

    def _told(self, event: Any) -> None:
        """What the browser says of it: part, said, fault, done."""
        told = event.args if isinstance(event.args, dict) else {}
        part, fault = told.get("part"), told.get("fault")
        if isinstance(part, int | float):
            self._bar.set_content(parts.meter(float(part), label="Sent", warn=2))
        self._said.set_text(str(told.get("said") or "")[:300])
        self._fault.set_text(str(fault or "")[:1000])
        self._fault.set_visibility(bool(fault))
        if told.get("done") is True:
            self._done = True
            parts.done(f"{self._site.domain_name} has a new release")
            self._dialog.submit(True)


class PastChanges:
    """What was changed at the web server, with a way back."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self._undone = False

    async def open(self) -> bool:
        """Show it until it is closed; whether something was taken back."""
        with ui.dialog() as self._dialog, ui.card().classes("sheet wide history"):
            ui.label("Changes of the web server").classes("headline")
            self._list = ui.element("div").classes("changes")
            with ui.element("div").classes("line end"):
                ui.button("Close", on_click=lambda: self._dialog.submit(None), color=None).props(
                    "flat no-caps"
                )
        self._dialog.open()
        await self._fill()
        await self._dialog
        self._dialog.delete()
        return self._undone

    async def _fill(self) -> None:
        try:
            found = (await domains.history(self._desk, self._caller)).changes
        except AIError as error:
            with self._list:
                ui.label(str(error)).classes("fault").props("role=alert")
            return
        self._list.clear()
        with self._list:
            if not found:
                ui.label("Nothing was changed yet.").classes("lead")
            for one in found:
                self._row(one)

    def _row(self, one: Change) -> None:
        async def undo() -> None:
            await self._undo(one)

        with ui.element("div").classes("change"):
            about = f"{one.verb} {one.domain}".strip() or one.id
            state = parts.pill(one.state, "good" if one.state == "done" else "warn")
            by = f" by {escape(one.who)}" if one.who else ""
            ui.html(
                shown(
                    f"<details><summary><b>{escape(about)}</b> {state if one.state else ''}"
                    f" <small>{parts.when(one.at)}{by}</small></summary>"
                    f"<pre tabindex=0>{escape(one.diff) or 'no difference'}</pre></details>"
                )
            )
            made = ui.button("Undo", icon="undo", on_click=undo, color=None)
            made.props(f'flat no-caps dense aria-label="Undo {escape(about, quote=True)}"')
            made.classes("quiet")

    async def _undo(self, one: Change) -> None:
        about = f"{one.verb} {one.domain}".strip() or one.id
        more = "The web server is as it was before this change, if that still works."
        if not await parts.sure(f"Undo {about}?", more, "Undo"):
            return None
        try:
            await domains.undo(self._desk, self._caller, one.id)
        except AIError as error:
            return parts.tell(error)
        self._undone = True
        parts.done("Taken back")
        await self._fill()
        return None
