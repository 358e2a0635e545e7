"""Gathers what many callers ask into batches, and computes them in rounds.

One `Core` a process, so that its kinds of work share the threads and take turns: queries before
bulk, the oldest first. What arrives while a round runs waits together and goes in the next. A
round is one batch on all cores, or several at a time on lanes of fewer cores each. Lanes of bulk
wait for nobody: each takes its next batch when it is done with one, until something else is due.
Knows nothing of what is computed.

    submit ──▶ waiting ──▶ take (oldest, by length, up to the budget) ──▶ forward ──▶ futures
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

from base import log

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
T = TypeVar("T")

IDLE_S = 10.0
#: After this many full batches that fitted, a budget that was halved grows again.
REGROW_BATCHES = 64
#: A batch of bulk shall not keep a query waiting for longer than about this.
SLICE_S = 0.15
#: Below this a batch is not made smaller: products of fewer rows waste the cores.
LEAST_TOKENS = 512
RECENT = 100

logger = log.get("batch")


class Machine(Protocol):
    """What the core must know of the device under it. `lanes`: batches that it computes well at
    a time.
    """

    @property
    def lanes(self) -> int: ...

    def share(self, lanes: int, tokens: int | None = None) -> None:
        """From now on as many batches are computed at a time. Called on each compute thread.
        tokens: in the batch that comes, where they tell how long it takes.
        """
        ...

    def out_of_memory(self, error: BaseException) -> bool: ...

    def relieve(self) -> None:
        """Give back memory that is cached and not in use. Called on the compute thread."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece(Generic[I, R]):
    """One item that waits. `order` is the place of its request in time; equal within a request."""

    item: I
    tokens: int
    bulk: bool
    order: int
    future: asyncio.Future[R]


def take(
    waiting: Sequence[Piece[Any, Any]], budget_tokens: int, *, padded: bool
) -> list[Piece[Any, Any]]:
    """The next batch out of what waits, longest first; never empty when something waits.

    All queries or all bulk. Queries of a work that does not pad go by age; all else beginning
    with the longest of the oldest request and then those nearest below it in length. The batch
    costs the sum of its tokens, or count x the longest where it is `padded`, and that stays
    within the budget; a piece above the budget goes alone.
    """
    live = [one for one in waiting if not one.future.done()]
    queries = [one for one in live if not one.bulk]
    live = sorted(queries or live, key=_age)
    if live and (padded or not queries):
        longest = live[0].tokens
        live.sort(key=lambda one: (one.tokens > longest, -one.tokens, one.order))
    found, sum_tokens, longest_tokens = list[Piece[Any, Any]](), 0, 0
    for one in live:
        sum_tokens += one.tokens
        longest_tokens = max(longest_tokens, one.tokens)
        cost_tokens = longest_tokens * (len(found) + 1) if padded else sum_tokens
        if found and cost_tokens > budget_tokens:
            break
        found.append(one)
    return sorted(found, key=lambda one: -one.tokens)


def _age(one: Piece[Any, Any]) -> tuple[int, int]:
    return one.order, -one.tokens


class Work(Generic[I, R]):
    """One kind of work of a core. `forward` runs on the compute thread: items in, as many results
    out, in order. Make it with `Core.work`.
    """

    def __init__(
        self, core: Core, name: str, forward: Callable[[list[I]], Sequence[R]],
        budget_tokens: Callable[[], int], padded: bool, parallel: bool,
    ) -> None:  # fmt: skip
        self.name = name
        self.waiting: list[Piece[I, R]] = []
        self.batches = 0
        self.items = 0
        self.tokens = 0
        self.busy_s = 0.0
        self._recent: deque[int] = deque(maxlen=RECENT)
        self._core = core
        self._forward = forward
        self._limit_tokens = budget_tokens
        self._padded = padded
        self._parallel = parallel
        self._shrunk_tokens: int | None = None
        self._fitted = 0
        self._counted_s = 0.0

    @property
    def tokens_per_s(self) -> float:
        """Over the time spent computing, since the start; 0 before the first batch."""
        return self.tokens / self.busy_s if self.busy_s else 0.0

    @property
    def batch_items(self) -> float:
        """Items in one batch, on average of the last 100; 0 before the first."""
        return sum(self._recent) / len(self._recent) if self._recent else 0.0

    @property
    def budget_tokens(self) -> int:
        """Tokens of one batch as it stands: what fits the memory, less what did not."""
        limit_tokens = self._limit_tokens()
        return (
            limit_tokens if self._shrunk_tokens is None else min(self._shrunk_tokens, limit_tokens)
        )

    async def submit(
        self, items: Sequence[I], tokens: Sequence[int], *, bulk: bool = False
    ) -> list[R]:
        """The result of each item, in order. Raises what `forward` raised for its batch.

        Cancelled, what has not begun is not computed.
        """
        loop = asyncio.get_running_loop()
        order = next(self._core.order)
        pieces = [
            Piece(item=item, tokens=size, bulk=bulk, order=order, future=loop.create_future())
            for item, size in zip(items, tokens, strict=True)
        ]
        self.waiting += pieces
        self._core.wake()
        try:
            return [await one.future for one in pieces]
        finally:
            for one in pieces:
                if not one.future.cancel() and not one.future.cancelled():
                    one.future.exception()  # seen: the first fault was raised

    async def step(self) -> None:
        """Compute the next round. Out of memory halves the budget, and each half goes on."""
        batches = self._round()
        self._counted_s = asyncio.get_running_loop().time()
        lanes = len(batches)
        await asyncio.gather(*[self._lane(one, at, lanes) for at, one in enumerate(batches)])

    def _round(self) -> list[list[Piece[I, R]]]:
        """Take as many batches as there are lanes, none smaller than it must be."""
        lanes = self._core.machine.lanes if self._parallel else 1
        budget_tokens = self._budget_of(lanes)
        found: list[list[Piece[I, R]]] = []
        while len(found) < lanes and (batch := self._take(budget_tokens)):
            if found and batch[0].bulk != found[0][0].bulk:
                self.waiting += batch
                break
            found.append(batch)
        return found

    def _budget_of(self, lanes: int) -> int:
        """Tokens of a batch when so many lanes share what waits."""
        budget_tokens = self.budget_tokens
        live = [one for one in self.waiting if not one.future.done()]
        if not (self._parallel and live):
            return budget_tokens
        tokens = [one.tokens for one in live]
        cost_tokens = max(tokens) * len(tokens) if self._padded else sum(tokens)
        if self.tokens_per_s and all(one.bulk for one in live):
            cost_tokens = min(cost_tokens, int(self.tokens_per_s * SLICE_S))
        return min(budget_tokens, max(LEAST_TOKENS, math.ceil(cost_tokens / lanes)))

    def _take(self, budget_tokens: int) -> list[Piece[I, R]]:
        """The next batch, which waits no more; empty when nothing does."""
        batch = take(self.waiting, budget_tokens, padded=self._padded)
        taken = {id(one) for one in batch}
        self.waiting = [
            one for one in self.waiting if id(one) not in taken and not one.future.done()
        ]
        return batch

    async def _lane(self, batch: list[Piece[I, R]], lane: int, lanes: int) -> None:
        """Compute it and, of several lanes, one after the other as long as bulk of this is due."""
        while batch:
            await self._batch(batch, lane, lanes)
            on = lanes > 1 and self._core.next_bulk() is self
            batch = self._take(self._budget_of(lanes)) if on else []

    async def _batch(self, batch: list[Piece[I, R]], lane: int, lanes: int) -> None:
        parts = [batch]
        while parts:
            part = parts.pop(0)
            if fault := await self._compute(part, lane, lanes):
                if len(part) > 1 and self._core.machine.out_of_memory(fault):
                    half = (len(part) + 1) // 2
                    parts[:0] = [part[:half], part[half:]]
                    await self._shrink(part, lane)
                    continue
                for one in part:
                    if not one.future.done():
                        one.future.set_exception(fault)

    async def _compute(self, part: list[Piece[I, R]], lane: int, lanes: int) -> Exception | None:
        tokens = sum(one.tokens for one in part) if self._parallel else None

        def run() -> Sequence[R]:
            self._core.machine.share(lanes, tokens)
            return self._forward([one.item for one in part])

        try:
            found = await self._core.call(run, lane)
        except Exception as error:  # handed on: to the callers, or to a smaller batch
            return error
        self._count(part)
        for one, result in zip(part, found, strict=True):
            if not one.future.done():
                one.future.set_result(result)
        return None

    def _count(self, part: list[Piece[I, R]]) -> None:
        now_s = asyncio.get_running_loop().time()
        self.busy_s += now_s - self._counted_s
        self._counted_s = now_s
        self.batches += 1
        self.items += len(part)
        self.tokens += sum(one.tokens for one in part)
        self._recent.append(len(part))
        self._fitted += 1
        if self._shrunk_tokens is not None and self._fitted >= REGROW_BATCHES:
            self._fitted = 0
            self._shrunk_tokens *= 2
            if self._shrunk_tokens >= self._limit_tokens():
                self._shrunk_tokens = None

    async def _shrink(self, part: list[Piece[I, R]], lane: int) -> None:
        tokens = sum(one.tokens for one in part)
        self._shrunk_tokens = max(1, min(self.budget_tokens, tokens) // 2)
        self._fitted = 0
        logger.warning("ran out of memory", work=self.name, budget_tokens=self._shrunk_tokens)
        await self._core.call(self._core.machine.relieve, lane)


class Core:
    """The compute threads and whose turn it is. `run` it as a task; use it from that event loop.

    After `idle_s` without work the threads end, and their OpenMP threads with them; what the
    machine cached is given back. The next batch starts others.
    """

    def __init__(self, machine: Machine, *, idle_s: float = IDLE_S) -> None:
        self.machine = machine
        self.order = count()
        self._idle_s = idle_s
        self._works: list[Work[Any, Any]] = []
        self._awake = asyncio.Event()
        self._threads = [_Thread() for _ in range(machine.lanes)]

    def work(
        self, name: str, forward: Callable[[list[I]], Sequence[R]], *,
        budget_tokens: Callable[[], int], padded: bool = True, parallel: bool = False,
    ) -> Work[I, R]:  # fmt: skip
        """A kind of work of that name. `budget_tokens` is asked before each batch; `padded`:
        `forward` makes all items of a batch as long as the longest; `parallel`: several threads
        may be in `forward` at a time.
        """
        work = Work(self, name, forward, budget_tokens, padded, parallel)
        self._works.append(work)
        return work

    def wake(self) -> None:
        self._awake.set()

    async def call(self, function: Callable[[], T], lane: int = 0) -> T:
        """Run `function` on a lane's thread, after the batch that it computes now; its result."""
        return await self._threads[lane].call(function)

    async def run(self) -> None:
        """Compute what waits, for ever. Cancelled, what waits is given up."""
        try:
            while True:
                self._awake.clear()
                await asyncio.sleep(0)  # callers of the same moment go together
                if (work := self._next()) is not None:
                    await work.step()
                    continue
                try:
                    async with asyncio.timeout(self._idle_s):
                        await self._awake.wait()
                except TimeoutError:
                    await self._rest()
                    await self._awake.wait()
        finally:
            self._end()
            for work in self._works:
                for one in work.waiting:
                    one.future.cancel()

    def next_bulk(self) -> Work[Any, Any] | None:
        """Whose bulk is due; None while a query waits, too."""
        if (work := self._next()) is None or not all(one.bulk for one in work.waiting):
            return None
        return work

    def _next(self) -> Work[Any, Any] | None:
        """Whose turn it is: a query before bulk, the oldest first."""
        heads = [
            (min((one.bulk, one.order) for one in work.waiting), at)
            for at, work in enumerate(self._works)
            if work.waiting
        ]
        return self._works[min(heads)[1]] if heads else None

    async def _rest(self) -> None:
        if any(thread.alive for thread in self._threads):
            await self.call(self.machine.relieve)
            self._end()
            logger.debug("rested")

    def _end(self) -> None:
        for thread in self._threads:
            thread.end()


class _Thread:
    """A thread that starts when it is needed and ends when told."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] | None = None

    @property
    def alive(self) -> bool:
        return self._jobs is not None

    async def call(self, function: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def tell(result: T | None, fault: BaseException | None) -> None:
            if future.done():
                return
            if fault is not None:
                future.set_exception(fault)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def job() -> None:
            result, fault = None, None
            try:
                result = function()
            except BaseException as error:  # the caller's to answer
                fault = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(tell, result, fault)

        if self._jobs is None:
            self._jobs = queue.SimpleQueue()
            threading.Thread(
                target=_work_off, args=(self._jobs,), name="compute", daemon=True
            ).start()
        self._jobs.put(job)
        return await future

    def end(self) -> None:
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None


def _work_off(jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
