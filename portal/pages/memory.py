"""The memory page: find, look through, change and forget what is remembered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import FastAPI, Request
from nicegui import Client, ui
from pydantic import ValidationError

from base import roster
from base.errors import AIError
from pai.shapes import QUERY_CHARS, Browse, Card, Collection, Item, Tier
from portal import memory
from portal.auth import Caller
from portal.desk import Desk
from portal.pages import parts, recalled, shell
from portal.pages.live import Live
from portal.pages.memory_add import Add
from portal.pages.memory_counts import Counts
from portal.pages.memory_goals import Goals
from portal.pages.memory_learned import Learned
from portal.pages.memory_words import change, forget
from portal.shapes import Search

PAGE = 20
DAYS = {0: "Any time", 1: "Last day", 7: "Last 7 days", 30: "Last 30 days", 365: "Last year"}
TIERS = {"": "Hot and warm", "hot": "Hot", "warm": "Warm", "cold": "Cold (archive)"}
ORDERS = {"newest": "Newest first", "used": "Most used first", "utility": "Lowest utility first"}
TABS = {
    "memories": ("Memories", "psychology"),
    "learnings": ("Learnings", "school"),
    "goals": ("Goals", "flag"),
    "statistics": ("Statistics", "bar_chart"),
}


def install(app: FastAPI) -> None:
    """`/memory`."""
    shell.page(app, "/memory", _draw)


async def _draw(desk: Desk, caller: Caller, client: Client, request: Request) -> None:
    live = Live(desk, caller, client)
    made = await shell.build(
        desk, caller, client, here="/memory", title="Memory", styles=("memory",)
    )
    wanted = request.query_params.get("tab", "")
    first = wanted if wanted in TABS else "memories"
    page = Memories(desk, caller)
    learned, counts = Learned(desk, caller), Counts(desk, caller)
    goals = Goals(desk, caller)
    readers = {
        "memories": page.read,
        "learnings": learned.read,
        "goals": goals.read,
        "statistics": counts.read,
    }
    with made.body, ui.element("div").classes("page memories"):
        with ui.tabs().props('no-caps align=left inline-label aria-label="Memory"') as tabs:
            for name, (title, icon) in TABS.items():
                ui.tab(name, title, icon)
        with ui.tab_panels(tabs, value=first, animated=False).props("keep-alive"):
            for name, build in (
                ("memories", page.build),
                ("learnings", learned.build),
                ("goals", goals.build),
                ("statistics", counts.build),
            ):
                with ui.tab_panel(name), ui.element("div").classes("stack"):
                    build()
    with made.actions:
        add = Add(desk, caller, page.read)
        ui.button("Remember", icon="add", on_click=add.open, color=None).props(
            "unelevated no-caps dense padding='4px 12px'"
        ).classes("main")

    async def show(event: Any) -> None:
        if event.value in readers:
            await readers[event.value]()

    tabs.on_value_change(show)

    async def take(_: Any) -> None: ...

    live.start(made, take)
    # After the page is there: the keeper may be slow to answer, or away.
    ui.timer(0.01, readers[first], once=True)


class Memories:
    """The question, the filters, and what was found so far."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self._words = ""
        self._tier = ""
        self._agent = ""
        self._kind = ""
        self._collection = ""
        self._days = 0
        self._order = "newest"
        self._next: str | None = None
        self._cards: dict[str, Card] = {}
        self._hits: dict[str, Item] = {}
        self._asked = 0

    def build(self) -> None:
        """Make the filters and the list inside the present element."""
        with ui.element("div").classes("line find"):
            ui.input(placeholder="What is it about? Any words.", on_change=self._ask).props(
                f"outlined dense clearable debounce=350 maxlength={QUERY_CHARS} data-search"
                ' aria-label="Search memory"'
            ).classes("grow")
            self._order_select = self._select("order", ORDERS, "newest", "Order")
        with ui.element("div").classes("line"):
            self._select("tier", TIERS, "", "Tier")
            collections = {one.value: one.value.capitalize() for one in Collection}
            self._select("collection", {"": "All collections", **collections}, "", "Collection")
            names = [spec.name for spec in roster.load(self._desk.settings).agents.values()]
            self._select("agent", {"": "All agents", **{n: n for n in names}}, "", "Agent")
            ui.input(
                placeholder="Kind", on_change=lambda event: self._choose(kind=event.value or "")
            ).props('outlined dense clearable debounce=350 maxlength=40 aria-label="Kind"').classes(
                "small"
            )
            self._select("days", DAYS, 0, "Time")
        self._busy = ui.linear_progress(show_value=False).props(
            'indeterminate aria-label="Looking"'
        )
        self._note, self._list, self._more = recalled.frame(self._act, self._older)
        self._empty = parts.empty(
            "psychology",
            "Nothing is remembered yet",
            "What you say, what agents find out and what their tasks teach is kept here. Talk to"
            " the agents in the chat, or press Remember to add a text or a file.",
        )
        self._empty.set_visibility(False)

    def _select(self, name: str, options: dict[Any, str], value: Any, label: str) -> ui.select:
        return ui.select(
            options, value=value, on_change=lambda event: self._choose(**{name: event.value})
        ).props(f'outlined dense options-dense aria-label="{label}"')

    async def _ask(self, event: Any) -> None:
        await self._choose(words=(event.value or "").strip())

    async def _choose(self, **what: Any) -> None:
        for name, value in what.items():
            setattr(self, f"_{name}", value)
        self._order_select.set_visibility(not self._words)
        await self.read()

    async def read(self) -> None:
        """What fits the filters: by the question, or without one in the order that is chosen."""
        self._asked += 1
        asked = self._asked
        self._busy.set_visibility(True)
        try:
            if self._words:
                said = await self._search()
            else:
                said = await self._browse(None)
        except (AIError, ValidationError) as error:
            self._cards, self._hits, self._next = {}, {}, None
            said = f"Memory does not answer: {error}" if isinstance(error, AIError) else str(error)
        if asked != self._asked:  # a later question is on its way
            return
        self._busy.set_visibility(False)
        self._note.set_text(said)
        self._paint()

    async def _search(self) -> str:
        since = datetime.now(UTC) - timedelta(days=self._days) if self._days else None
        filters = {
            "tier": self._tier or None,
            "collection": [self._collection] if self._collection else [],
            "agent": self._agent or None,
            "kind": self._kind.strip() or None,
            "since": since,
        }
        body = {"query": self._words, "limit": PAGE, "filters": filters, "neighbours": 1}
        found = await memory.search(self._desk, self._caller, Search.model_validate(body))
        ids = [item.memory.id for item in found.items]
        cards = await memory.about(self._desk, self._caller, ids)
        self._cards = {id: cards[id] for id in ids if id in cards}
        self._hits = {item.memory.id: item for item in found.items}
        self._next = None
        took = f"in {sum(found.took_ms.values()):.0f} ms"
        by = "" if found.dense else "; by words alone, the embedding worker does not answer"
        return f"{len(ids)} found {took}, best first{by}" if ids else f"Nothing fits{by}"

    async def _browse(self, after: str | None) -> str:
        since = datetime.now(UTC) - timedelta(days=self._days) if self._days else None
        asked = Browse.model_validate(
            {
                "user_id": self._caller.user_id,
                "tiers": [Tier(self._tier)] if self._tier else [Tier.HOT, Tier.WARM],
                "collections": [self._collection] if self._collection else [],
                "agent": self._agent or None,
                "kind": self._kind.strip() or None,
                "since": since,
                "order": self._order,
                "limit": PAGE,
                "after": after,
            }
        )
        page = await memory.browse(self._desk, self._caller, asked)
        found = {card.memory.id: card for card in page.cards}
        self._cards = {**self._cards, **found} if after else found
        self._hits, self._next = {}, page.next
        return "" if self._cards else "Nothing fits these filters"

    async def _older(self, _: Any = None) -> None:
        try:
            await self._browse(self._next)
        except AIError as error:
            parts.tell(error, "Not read")
        self._paint()

    def _paint(self) -> None:
        self._list.set_content(
            recalled.listed(list(self._cards.values()), self._caller.user_id, self._hits)
        )
        self._more.set_visibility(self._next is not None)
        filtered = self._words or self._tier or self._agent or self._kind or self._collection
        nothing = not self._cards and not filtered and not self._days
        away = self._note.text.startswith("Memory does not")
        self._empty.set_visibility(nothing and not away)
        self._note.set_visibility(bool(self._note.text) and not (nothing and not away))

    async def _act(self, event: Any) -> None:
        what, id = event.args
        card = self._cards.get(id)
        if card is None:
            return
        if what == "edit":
            new = await change(self._desk, self._caller, card)
            if new is not None:
                self._cards[id] = new
                self._paint()
        elif what == "forget" and await forget(self._desk, self._caller, card):
            self._cards.pop(id, None)
            self._paint()
