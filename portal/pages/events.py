"""The events page: what happens, as it happens, with filters."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from html import escape
from typing import Any

from fastapi import FastAPI, Request
from nicegui import Client, ui

from base.messages import Event, Kind
from base.plural import counted
from portal.auth import Caller
from portal.desk import Desk
from portal.feed import Item, visible
from portal.pages import parts, shell
from portal.pages.live import Live
from portal.pages.marks import shown

KEPT = 1_000
SHOWN = 200
LOOK = 2_000
#: What is said of an event, by its kind: the fields of `data` in this order.
TOLD: dict[Kind, tuple[str, ...]] = {
    Kind.MESSAGE: ("role", "content"),
    Kind.CHUNK: ("content",),
    Kind.PLAN: (),
    Kind.TASK: ("status", "phase", "title", "error"),
    Kind.AGENT: ("status",),
    Kind.TEXT: ("content",),
    Kind.TOOL: ("state", "name", "summary"),
    Kind.CRITERION: ("verdict", "text"),
    Kind.APPROVAL: ("status", "sentence"),
    Kind.BROKER: ("state", "verb", "about", "step"),
}
TOLD_CHARS = 240


def install(app: FastAPI) -> None:
    """`/events`."""
    shell.page(app, "/events", _draw)


async def _draw(desk: Desk, caller: Caller, client: Client, request: Request) -> None:
    live = Live(desk, caller, client)
    made = await shell.build(desk, caller, client, here="/events", title="Events")
    page = Events()
    for item in await desk.bus.newest_events(LOOK):
        if visible(item[1], caller.user_id):
            page.add(item)
    with made.body, ui.element("div").classes("page"):
        page.build()

    async def take(items: Sequence[Item]) -> None:
        for item in items:
            page.add(item)
        page.paint()

    live.start(made, take)


class Events:
    """The rows that are kept, the filters, and whether new rows are shown."""

    def __init__(self) -> None:
        self._kept: deque[Item] = deque(maxlen=KEPT)
        self._kinds: list[str] = []
        self._agent = ""
        self._words = ""
        self._held = False

    def add(self, item: Item) -> None:
        """Keep one more; the oldest goes."""
        self._kept.append(item)

    def build(self) -> None:
        """Make the filters and the list inside the present element."""
        with ui.element("div").classes("line"):
            ui.input(placeholder="Words", on_change=self._filter_words).props(
                'outlined dense clearable debounce=200 data-search aria-label="Words"'
            )
            ui.select(
                [kind.value for kind in Kind],
                multiple=True,
                label="Kinds",
                on_change=self._filter_kinds,
            ).props("outlined dense use-chips options-dense").style("min-width: 180px")
            self._agents = ui.select({"": "All agents"}, value="", on_change=self._filter_agent)
            self._agents.props('outlined dense options-dense aria-label="Agent"')
            ui.element("div").classes("grow")
            self._hold = ui.button("Pause", icon="pause", on_click=self._toggle, color=None)
            self._hold.props("flat no-caps").classes("quiet")
        self._list = ui.html("").classes("panel flush events").props("role=log")
        self._empty = parts.empty(
            "bolt",
            "Nothing has happened yet",
            "Ask the agents something in the chat: every step they take shows up here at once.",
        )
        self.paint()

    def paint(self) -> None:
        """Show the newest rows that the filters let through, unless held."""
        if self._held:
            return
        names = sorted({event.agent for _, event in self._kept if event.agent})
        options = {"": "All agents", **{name: name for name in names}}
        if options != self._agents.options:
            self._agents.set_options(options, value=self._agent if self._agent in options else "")
        found = [item for item in reversed(self._kept) if self._fits(item[1])][:SHOWN]
        self._list.set_content("".join(_row(event) for _, event in found))
        self._list.set_visibility(bool(self._kept))
        if self._kept and not found:
            self._list.set_content('<p class="hint pad">Nothing fits these filters.</p>')
        self._empty.set_visibility(not self._kept)

    def _fits(self, event: Event) -> bool:
        return (
            (not self._kinds or event.kind.value in self._kinds)
            and (not self._agent or event.agent == self._agent)
            and (not self._words or self._words in told(event).casefold())
        )

    def _filter_words(self, event: Any) -> None:
        self._words = (event.value or "").casefold()
        self.paint()

    def _filter_kinds(self, event: Any) -> None:
        self._kinds = list(event.value or ())
        self.paint()

    def _filter_agent(self, event: Any) -> None:
        self._agent = event.value or ""
        self.paint()

    def _toggle(self) -> None:
        self._held = not self._held
        self._hold.set_text("Go on" if self._held else "Pause")
        self._hold.set_icon("play_arrow" if self._held else "pause")
        self.paint()


def told(event: Event) -> str:
    """One line of what an event says."""
    if event.kind is Kind.PLAN:
        steps = event.data.get("subtasks") or ()
        return f"{counted(len(steps), 'step')}: " + "; ".join(
            str(one.get("title") or one.get("instruction") or "") for one in steps
        )
    found = (str(event.data.get(name) or "") for name in TOLD[event.kind])
    return " ".join(" ".join(one for one in found if one).split())


def _row(event: Event) -> str:
    said = told(event)
    short = said if len(said) <= TOLD_CHARS else said[: TOLD_CHARS - 1] + "…"
    place = f"/tasks/{event.root_id}" if event.root_id else ""
    link = (
        f'<a href="{escape(place, quote=True)}">{escape(event.root_id[:8])}</a>'
        if event.root_id
        else ""
    )
    return shown(
        f'<div class="event">{parts.when(event.timestamp)}<span class="pill">{event.kind.value}'
        f'</span><b>{escape(event.agent)}</b><span class="told" dir="auto">{escape(short)}</span>'
        f"<em>{link}</em></div>"
    )
