"""The part of a branch that is on the page: bounded, whatever the conversation's length.

Older turns come when the reader nears the top, newer ones when they near the bottom; what is far
from where they read leaves the page. Each block knows up to which event it was read, so an event
that the record or the stream already gave counts once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from nicegui import ui

from base.approvals import Approval
from base.errors import NotFoundError
from base.messages import Event, Kind
from portal import approvals, feedback, thread, work
from portal.auth import Caller
from portal.desk import Desk
from portal.feed import Item, place
from portal.pages.blocks import Answer, Block
from portal.pages.view import Run
from portal.thread import Turn

#: Turns that a page opens with, that come at an edge, and that stay at most.
PAGE, STEP, KEPT = 20, 12, 60
REPLAY_BEFORE_MS = 2_000
EDGES_JS = "window.aiEdges && window.aiEdges()"
ACT_JS = """(event) => {
  const found = event.target.closest('[data-do]');
  if (!found || found.disabled) return;
  emit({do: found.dataset.do, turn: found.closest('[data-turn]').dataset.turn,
        id: found.dataset.id || '', value: found.dataset.value || ''});
}"""


class Window:
    """`tip`: the newest message of the branch that is shown; `newest`: no branch has a newer."""

    def __init__(self, desk: Desk, caller: Caller, rank: int) -> None:
        self._desk = desk
        self._caller = caller
        self._rank = rank
        self._conversation_id: str | None = None
        self._blocks: dict[str, Block] = {}
        self._roots: dict[str, Block] = {}
        #: Requests that are not on the page, so that nobody asks for them twice.
        self._elsewhere: set[str] = set()
        #: Turns below the last one on the page, in order.
        self._below: list[str] = []
        self._more = False
        self._dirty: set[str] = set()
        self._answer: Answer
        self.tip: str | None = None
        self.newest = True

    def build(self, answer: Answer, act: Callable[[Any], Awaitable[None]]) -> None:
        """Make the list inside the present element. act: gets what is clicked in it."""
        self._answer = answer
        self._above = ui.element("div").classes("edge older")
        self._thread = (
            ui.column()
            .classes("thread")
            .on("click", act, js_handler=ACT_JS)
            .props(
                'role=log aria-label="Conversation" aria-live="polite" aria-relevant="additions"'
            )
        )
        self._under = ui.element("div").classes("edge newer")

    @property
    def empty(self) -> bool:
        return not self._blocks

    def block(self, message_id: str) -> Block | None:
        return self._blocks.get(message_id)

    def run(self, root_id: str) -> Run | None:
        """The run of a request that is shown here, as it stands."""
        block = self._roots.get(root_id)
        return block.runs.get(root_id) if block is not None else None

    def open_roots(self) -> list[str]:
        """Requests on the page that have not ended."""
        return [root_id for block in self._blocks.values() for root_id in block.open_roots]

    # From the record -----------------------------------------------------------------------

    async def load(self, conversation_id: str | None, *, at: str | None = None) -> None:
        """Show the end of a branch: the newest, or the newest through `at`."""
        here = self._desk.feed.position
        found = (
            await thread.branch(self._desk, self._caller, conversation_id, at=at, limit=PAGE)
            if conversation_id is not None
            else thread.Branch(turns=[], more=False, tip=None, newest=True)
        )
        made = await self._made(found.turns, here)
        self._conversation_id = conversation_id
        self._blocks, self._roots, self._below = {}, {}, []
        self._elsewhere, self._dirty = set(), set()
        self._thread.clear()
        self.tip, self.newest, self._more = found.tip, found.newest, found.more
        self._put(made)

    async def end(self) -> None:
        """Back to the end of the branch."""
        if self._below and self._conversation_id is not None:
            await self.load(self._conversation_id, at=self.tip)

    async def older(self) -> None:
        """One page more above; as many leave below."""
        if not self._more or not self._blocks or self._conversation_id is None:
            return
        here, first = self._desk.feed.position, next(iter(self._blocks))
        found = await thread.branch(
            self._desk, self._caller, self._conversation_id, at=self.tip, before=first, limit=STEP
        )
        self._more = found.more
        self._put(await self._made(found.turns, here), above=True)
        while len(self._blocks) > KEPT:
            message_id = next(reversed(self._blocks))
            self._drop(message_id)
            self._below.insert(0, message_id)
        self._edges()

    async def newer(self) -> None:
        """One page more below; as many leave above."""
        if not self._below:
            return
        here = self._desk.feed.position
        wanted, self._below = self._below[:STEP], self._below[STEP:]
        turns = await thread.turns(self._desk, self._caller, wanted)
        self._put(await self._made(turns, here))
        while len(self._blocks) > KEPT:
            self._drop(next(iter(self._blocks)))
            self._more = True
        self._edges()

    async def follow(self, conversation_id: str, message_id: str) -> None:
        """Show a message that was just sent: below the last one, or in a branch of its own."""
        if message_id in self._blocks:
            return
        here = self._desk.feed.position
        found = await thread.turns(self._desk, self._caller, [message_id])
        parent = found[0].message.parent_message_id if found else None
        if not found or self._below or parent != self.tip or self._conversation_id is None:
            await self.load(conversation_id, at=message_id)
            return
        self.tip = message_id
        self._put(await self._made(found, here))

    async def again(self, message_id: str) -> None:
        """Read one turn anew, such as after a further version of it came."""
        block = self._blocks.get(message_id)
        found = await thread.turns(self._desk, self._caller, [message_id])
        if block is not None and found:
            block.turn = found[0]
            self._dirty.add(message_id)
            self.paint()

    def took(self, block: Block) -> None:
        """A block has further requests now."""
        self._roots |= dict.fromkeys(block.runs, block)
        self.paint(block.id)

    async def _made(self, turns: Sequence[Turn], here: str) -> list[Block]:
        roots = [root_id for turn in turns for root_id in turn.roots]
        known = {one.task.id: one for one in await work.wholes(self._desk, self._caller, roots)}
        rated = await feedback.ratings(self._desk, self._caller, roots) if roots else {}
        made = [Block(turn, known, here, rehearsal=self._desk.settings.rehearsal) for turn in turns]
        by_root = {root_id: block for block in made for root_id in block.runs}
        for block in made:
            block.ratings = {root_id: rated[root_id] for root_id in block.runs if root_id in rated}
        running = [one.task for one in known.values() if not one.task.status.ended]
        if running:  # fold in what the stream kept about requests that still run
            began_s = min(one.created_at for one in running).timestamp()
            cursor = f"{max(0, int(began_s * 1000) - REPLAY_BEFORE_MS)}-0"
            async for _, event in self._desk.feed.between(cursor, here, self._caller.user_id):
                mine = by_root.get(event.root_id or "")
                if mine is not None and not mine.runs[str(event.root_id)].ended:
                    mine.fold(event)
        return made

    def _put(self, made: list[Block], *, above: bool = False) -> None:
        made = [block for block in made if block.id not in self._blocks]
        with self._thread:
            for at, block in enumerate(made):
                block.build(at if above else -1)
        new = {block.id: block for block in made}
        self._blocks = {**new, **self._blocks} if above else {**self._blocks, **new}
        for block in made:
            self._roots |= dict.fromkeys(block.runs, block)
        self._dirty |= set(new)
        self.paint()
        self._edges()

    def _drop(self, message_id: str) -> None:
        block = self._blocks.pop(message_id)
        for root_id in block.runs:
            self._roots.pop(root_id, None)
            self._elsewhere.add(root_id)
        self._dirty.discard(message_id)
        block.remove()

    def _edges(self) -> None:
        self._above.set_visibility(self._more)
        self._under.set_visibility(bool(self._below))
        ui.run_javascript(EDGES_JS)

    # From the stream -----------------------------------------------------------------------

    async def take(self, items: Sequence[Item]) -> bool:
        """Take in what happened; True when a message came to this person, here or elsewhere."""
        told = False
        for cursor, event in items:
            told = told or event.kind is Kind.MESSAGE
            if event.root_id is None or event.conversation_id != self._conversation_id:
                continue
            if event.root_id not in self._roots and not await self._found(event):
                continue
            block = self._roots[event.root_id]
            if place(cursor) <= place(block.since):
                continue
            block.fold(event)
            self._dirty.add(block.id)
            if event.kind is Kind.APPROVAL:
                await self._approval(block, event)
        self.paint()
        return told

    async def _found(self, event: Event) -> bool:
        """Whether the event's request belongs on the page, having put it there."""
        root_id = str(event.root_id)
        if root_id in self._elsewhere:
            return False
        try:
            task = await work.task(self._desk, self._caller, root_id)
        except NotFoundError:
            return False
        block = self._blocks.get(task.message_id or "")
        if block is not None:
            block.add_root(root_id)
            self._roots[root_id] = block
            self._dirty.add(block.id)
            return True
        found = await thread.turns(self._desk, self._caller, [task.message_id or task.id])
        if found and found[0].message.parent_message_id == self.tip and not self._below:
            self.tip = found[0].message.id
            self._put(await self._made(found, self._desk.feed.position))
            return root_id in self._roots
        self._elsewhere.add(root_id)
        for version in found[0].versions if found else ():
            if version in self._blocks:  # somebody edited it in another tab
                await self.again(version)
                self.newest = False
        return False

    async def _approval(self, block: Block, event: Event) -> None:
        approval_id = str(event.data.get("id") or "")
        if event.data.get("status") == "pending":
            try:
                found = await approvals.approval(self._desk, self._caller, approval_id)
            except NotFoundError:
                return
            if found.status == "pending":
                block.approvals[approval_id] = found
        else:
            block.approvals.pop(approval_id, None)

    def may(self, approval: Approval) -> bool:
        """Whether this person may approve it; the supervisor decides in the end."""
        return approval.request.level <= self._rank

    def paint(self, *message_ids: str) -> None:
        """Bring the changed blocks onto the page, and those named."""
        for message_id in self._dirty | set(message_ids):
            if (block := self._blocks.get(message_id)) is not None:
                block.paint(self._answer, self.may)
        self._dirty.clear()
