"""The domains page: the server's sites. In local mode there are none: it says so, and what to do;
it has no controls that could do nothing.
"""

from __future__ import annotations

from html import escape

from fastapi import FastAPI, Request
from nicegui import Client, ui

from portal.auth import Caller
from portal.desk import Desk
from portal.pages import shell
from portal.pages.live import Live
from portal.pages.sites import Sites

WHY = (
    ("The web server", "nginx answers for the domains, with their certificates. In local mode the"
     " portal alone listens, on this machine's own address."),
    ("The rights", "Certificates and the web server's configuration belong to root. The appliance"
     " changes them by fixed verbs, each recorded; local mode has no such verbs."),
    ("The ports", "A domain needs the ports 80 and 443 of a server that the internet reaches."),
)  # fmt: skip
INSTEAD = (
    'Let agents build the site in their workspace: ask for it in the <a href="/chat">chat</a>.'
    " What they make lies in the folder <code>{workspace}</code>.",
    "Serve that folder with the web server that you have, or upload it to where your domain is.",
)


def install(app: FastAPI) -> None:
    """`/domains`."""
    shell.page(app, "/domains", _draw)


async def _draw(desk: Desk, caller: Caller, client: Client, request: Request) -> None:
    live = Live(desk, caller, client)
    if desk.settings.broker is not None:
        made = await shell.build(
            desk, caller, client, here="/domains", title="Domains",
            styles=("domains",), scripts=("domains",),
        )  # fmt: skip
        page = Sites(desk, caller)
        with made.body, ui.element("div").classes("page"):
            await page.build()
        live.start(made, page.take)
        return
    made = await shell.build(desk, caller, client, here="/domains", title="Domains")
    place = desk.settings.workspace(caller.user_id)
    with made.body, ui.element("div").classes("page narrow"):
        with ui.column().classes("empty").style("margin-top: 2vh"):
            ui.icon("language").props("aria-hidden=true")
            ui.label("Not available in local mode").classes("headline")
            ui.label(
                "Domains with their own sites and certificates need a server of their own, where"
                " this is installed as an appliance. This installation runs in local mode."
            ).classes("lead")
        with ui.element("div").classes("panel"):
            ui.label("Why").classes("section")
            for title, said in WHY:
                ui.html(f"<b>{title}.</b> {said}")
        with ui.element("div").classes("panel"):
            ui.label("What you can do now").classes("section")
            for said in INSTEAD:
                ui.html(said.format(workspace=escape(str(place))))

    async def take(_: object) -> None: ...

    live.start(made, take)
