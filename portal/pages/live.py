"""What keeps an open page alive: events as they come, the end of its session, the badge."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from nicegui import Client, ui

from base import log
from base.errors import AIError
from base.messages import Kind
from portal import approvals
from portal.auth import Caller
from portal.desk import Desk
from portal.feed import Item, Listener
from portal.pages.shell import Shell

#: Events of so long are painted at once.
PAINT_S = 0.05
#: A page looks this often whether its session still holds and what waits; a page ends within it.
CHECK_S = 4.0

Take = Callable[[Sequence[Item]], Awaitable[None]]


class Live:
    """One open page. Make it before the page's data is read, so that no event is missed between;
    `start` when there is something to paint on.
    """

    def __init__(self, desk: Desk, caller: Caller, client: Client) -> None:
        self._desk = desk
        self._caller = caller
        self._client = client
        self._held = contextlib.ExitStack()
        self._listener: Listener = self._held.enter_context(desk.feed.listen(caller.user_id))
        self._task: asyncio.Task[None] | None = None
        client.on_delete(self.close)

    def close(self) -> None:
        """Stop following. Safe twice."""
        self._held.close()
        if self._task is not None:
            self._task.cancel()

    def start(
        self, shell: Shell, take: Take, *, tick: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """`take` gets what happened, in order, in batches; `tick` is called every `CHECK_S`."""
        self._task = asyncio.create_task(self._follow(shell, take, tick), name="page")

    async def _follow(
        self, shell: Shell, take: Take, tick: Callable[[], Awaitable[None]] | None
    ) -> None:
        loop = asyncio.get_running_loop()
        looked_s = loop.time()
        with self._held, self._client:
            while True:
                items = await self._next(looked_s + CHECK_S - loop.time())
                if items is None:
                    # While the portal stops there is nothing to reload from; the browser goes on
                    # asking and reloads once a portal answers.
                    if not self._listener.closed:
                        ui.navigate.reload()
                    return
                try:
                    if items:
                        await take(items)
                    due = loop.time() >= looked_s + CHECK_S
                    if due and await self._desk.auth.over(self._caller):
                        ui.navigate.to("/login")
                        return
                    if due or any(event.kind is Kind.APPROVAL for _, event in items):
                        shell.show_waiting(await approvals.waiting(self._desk, self._caller))
                    if due and tick is not None:
                        await tick()
                except AIError as error:
                    log.get("portal").warning("page not refreshed", error=str(error))
                if loop.time() >= looked_s + CHECK_S:
                    looked_s = loop.time()

    async def _next(self, wait_s: float) -> Sequence[Item] | None:
        """What comes within `wait_s`, with all that comes right after; None: the page fell behind
        or the portal stops, and it has to be made anew.
        """
        try:
            async with asyncio.timeout(max(0.0, wait_s)):
                first = await self._listener.get()
        except TimeoutError:
            return ()
        if first is None:
            return None
        await asyncio.sleep(PAINT_S)
        return [first, *self._listener.waiting()]
