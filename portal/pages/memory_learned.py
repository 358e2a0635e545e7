"""What tasks taught, by phase, with how useful it proved."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from base.errors import AIError
from base.messages import Phase
from pai.shapes import Browse, Card, Collection
from portal import memory
from portal.auth import Caller
from portal.desk import Desk
from portal.pages import parts, recalled
from portal.pages.memory_words import change, forget

PAGE = 20
PHASES = {
    "": "All phases",
    **{one.value: one.value.capitalize() for one in Phase},
    "ALGORITHM": "The way of working",
}


class Learned:
    """The chosen phase and what was read of it so far."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self._phase = ""
        self._next: str | None = None
        self._cards: dict[str, Card] = {}

    def build(self) -> None:
        """Make the list inside the present element."""
        with ui.element("div").classes("line"):
            ui.select(PHASES, value="", on_change=self._choose).props(
                'outlined dense options-dense aria-label="Phase"'
            )
            ui.label(
                "A learning is used again where its trigger fits, and fades when it does not help."
            ).classes("hint")
        self._note, self._list, self._more = recalled.frame(self._act, self._older)
        self._empty = parts.empty(
            "school",
            "Nothing was learned yet",
            "At the end of a task its agent writes down what it would do again, or not.",
        )
        self._empty.set_visibility(False)

    async def read(self) -> None:
        """The youngest of the phase."""
        self._cards, self._next = {}, None
        await self._older()

    async def _older(self, _: Any = None) -> None:
        asked = Browse(
            user_id=self._caller.user_id,
            collections=(Collection.LEARNINGS,),
            phase=self._phase or None,
            limit=PAGE,
            after=self._next,
        )
        said, phase = "", self._phase
        try:
            page = await memory.browse(self._desk, self._caller, asked)
            if phase != self._phase:  # another is on its way
                return
            self._cards |= {card.memory.id: card for card in page.cards}
            self._next = page.next
        except AIError as error:
            said = f"Memory does not answer: {error}"
        self._note.set_text(said)
        self._note.set_visibility(bool(said))
        self._paint()

    def _paint(self) -> None:
        self._list.set_content(recalled.listed(list(self._cards.values()), self._caller.user_id))
        self._more.set_visibility(self._next is not None)
        self._empty.set_visibility(not self._cards and not self._note.text)

    async def _choose(self, event: Any) -> None:
        self._phase = event.value or ""
        await self.read()

    async def _act(self, event: Any) -> None:
        what, id = event.args
        card = self._cards.get(id)
        if card is None:
            return
        if what == "edit":
            new = await change(self._desk, self._caller, card)
            if new is not None:
                self._cards[id] = new
        elif what == "forget" and await forget(self._desk, self._caller, card):
            self._cards.pop(id, None)
        self._paint()
