"""The batching core: who goes when, and what an out-of-memory does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from workers.batch import Core, Piece, take


class Machine:
    """A device that is out of memory when a fake says so."""

    def __init__(self, lanes: int = 1) -> None:
        self.lanes = lanes
        self.relieved = 0
        self.shares: set[int] = set()

    def share(self, lanes: int, tokens: int | None = None) -> None:
        self.shares.add(lanes)

    def out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError)

    def relieve(self) -> None:
        self.relieved += 1


class Doubler:
    """Doubles numbers, notes its batches, and fits `fits` of them."""

    def __init__(self, fits: int = 1_000) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.fits = fits
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: list[int]) -> list[int]:
        self.gate.wait(10)
        self.threads.add(threading.current_thread().name)
        if len(items) > self.fits:
            raise MemoryError
        if -1 in items:
            raise ValueError("a bad one")
        self.batches.append(list(items))
        return [2 * item for item in items]


@contextlib.asynccontextmanager
async def running(core: Core) -> AsyncIterator[Core]:
    task = asyncio.create_task(core.run(), name="core")
    try:
        yield core
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def pieces(*told: tuple[int, bool, int]) -> list[Piece[int, int]]:
    loop = asyncio.get_running_loop()
    return [
        Piece(item=at, tokens=tokens, bulk=bulk, order=order, future=loop.create_future())
        for at, (tokens, bulk, order) in enumerate(told)
    ]


def items(found: list[Piece[int, int]]) -> list[int]:
    return [one.item for one in found]


async def test_queries_go_before_bulk_that_came_first() -> None:
    waiting = pieces((10, True, 0), (20, False, 1), (5, True, 0), (30, False, 2))
    assert items(take(waiting, 1_000, padded=False)) == [3, 1]


async def test_bulk_is_taken_by_length_from_the_oldest_request() -> None:
    waiting = pieces((10, True, 0), (50, True, 0), (90, True, 1), (40, True, 1))
    assert items(take(waiting, 100, padded=False)) == [1, 3, 0]


async def test_a_batch_keeps_within_its_budget_and_one_too_long_goes_alone() -> None:
    waiting = pieces((60, False, 0), (60, False, 1))
    assert items(take(waiting, 100, padded=False)) == [0]
    assert items(take(pieces((500, False, 0), (1, False, 1)), 100, padded=False)) == [0]


async def test_padding_costs_where_the_work_pads() -> None:
    told = ((10, False, 0), (40, False, 1), (10, False, 2))
    assert len(take(pieces(*told), 70, padded=False)) == 3
    assert len(take(pieces(*told), 90, padded=True)) == 2


async def test_what_nobody_waits_for_is_left_out() -> None:
    waiting = pieces((10, False, 0), (10, False, 1))
    waiting[0].future.cancel()
    assert items(take(waiting, 100, padded=False)) == [1]
    waiting[1].future.cancel()
    assert take(waiting, 100, padded=False) == []


async def test_what_waits_goes_in_one_batch_and_each_gets_its_own() -> None:
    double = Doubler()
    async with running(Core(Machine())) as core:
        work = core.work("double", double, budget_tokens=lambda: 1_000)
        found = await asyncio.gather(*[work.submit([n, n + 100], [5, 5]) for n in range(10)])
    assert found == [[2 * n, 2 * n + 200] for n in range(10)]
    assert len(double.batches) == 1
    assert work.items == work.batch_items == 20


async def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    machine, double = Machine(), Doubler(fits=3)
    async with running(Core(machine)) as core:
        work = core.work("double", double, budget_tokens=lambda: 2_000)
        assert await work.submit(list(range(8)), [200] * 8) == [2 * n for n in range(8)]
        assert work.budget_tokens < 2_000
        assert machine.relieved >= 1
        before = len(double.batches)
        await work.submit(list(range(3)), [200] * 3)
        assert len(double.batches) > before + 1  # the smaller budget holds


async def test_one_item_that_does_not_fit_is_its_own_caller_s_error() -> None:
    async with running(Core(Machine())) as core:
        work = core.work("double", Doubler(fits=0), budget_tokens=lambda: 100)
        with pytest.raises(MemoryError):
            await work.submit([1], [10])


async def test_a_fault_reaches_every_caller_of_the_batch_and_the_core_goes_on() -> None:
    async with running(Core(Machine())) as core:
        work = core.work("double", Doubler(), budget_tokens=lambda: 100)
        with pytest.raises(ValueError, match="a bad one"):
            await work.submit([-1], [10])
        assert await work.submit([4], [10]) == [8]


async def test_a_query_passes_bulk_that_waits_also_of_another_work() -> None:
    double, other = Doubler(), Doubler()
    async with running(Core(Machine())) as core:
        bulk = core.work("bulk", double, budget_tokens=lambda: 10)
        quick = core.work("quick", other, budget_tokens=lambda: 10)
        double.gate.clear()
        slow = asyncio.create_task(bulk.submit(list(range(5)), [10] * 5, bulk=True), name="slow")
        await asyncio.sleep(0.05)  # the first bulk batch runs
        asked = asyncio.create_task(quick.submit([7], [1]), name="asked")
        await asyncio.sleep(0)
        double.gate.set()
        assert await asked == [14]
        assert not slow.done()
        await slow


async def test_an_idle_core_gives_its_thread_back_and_starts_another() -> None:
    machine, double = Machine(), Doubler()
    async with running(Core(machine, idle_s=0.05)) as core:
        work = core.work("double", double, budget_tokens=lambda: 100)
        await work.submit([1], [1])
        await until(lambda: machine.relieved == 1)
        await until(lambda: not any(one.name == "compute" for one in threading.enumerate()))
        assert await work.submit([2], [1]) == [4]


async def test_bulk_is_computed_on_lanes_side_by_side() -> None:
    machine, double = Machine(lanes=2), Doubler()
    both = threading.Barrier(2, timeout=10)

    def forward(items: list[int]) -> list[int]:
        both.wait()  # passes only when two batches run at a time
        return double(items)

    async with running(Core(machine)) as core:
        work = core.work("double", forward, budget_tokens=lambda: 10_000, parallel=True)
        found = await work.submit(list(range(8)), [200] * 8, bulk=True)
    assert found == [2 * n for n in range(8)]
    assert [len(batch) for batch in double.batches] == [4, 4]
    assert machine.shares == {2}


async def test_a_lane_of_bulk_waits_for_no_other() -> None:
    machine, done = Machine(lanes=2), list[int]()
    enough = threading.Event()

    def forward(items: list[int]) -> list[int]:
        if 0 in items:  # this lane's batch ends when the other lane has done three
            assert enough.wait(10)
        done.extend(items)
        if len(done) >= 3:
            enough.set()
        return items

    async with running(Core(machine)) as core:
        work = core.work("slow", forward, budget_tokens=lambda: 1_000, parallel=True)
        assert await work.submit(list(range(5)), [1_000] * 5, bulk=True) == list(range(5))
        assert work.tokens_per_s > 0
    assert done.index(0) >= 3


async def test_lanes_of_bulk_let_a_query_pass() -> None:
    machine, double = Machine(lanes=2), Doubler()
    async with running(Core(machine)) as core:
        work = core.work("double", double, budget_tokens=lambda: 1_000, parallel=True)
        double.gate.clear()
        slow = asyncio.create_task(work.submit(list(range(9)), [1_000] * 9, bulk=True), name="slow")
        await asyncio.sleep(0.05)  # a batch on each lane
        asked = asyncio.create_task(work.submit([70], [5]), name="asked")
        await asyncio.sleep(0)
        double.gate.set()
        assert await asked == [140]
        await slow
    assert double.batches.index([70]) == 2


async def test_what_is_short_or_not_parallel_has_one_lane() -> None:
    machine, double = Machine(lanes=2), Doubler()
    async with running(Core(machine)) as core:
        short = core.work("short", double, budget_tokens=lambda: 10_000, parallel=True)
        alone = core.work("alone", double, budget_tokens=lambda: 10_000)
        await short.submit([1, 2], [50, 50])
        await alone.submit([3, 4], [5_000, 5_000])
    assert machine.shares == {1}
    assert double.batches == [[1, 2], [3, 4]]


async def test_cancelled_callers_cost_nothing() -> None:
    double = Doubler()
    async with running(Core(Machine())) as core:
        work = core.work("double", double, budget_tokens=lambda: 1)
        double.gate.clear()
        asked = [asyncio.create_task(work.submit([n], [1]), name="a") for n in range(3)]
        await asyncio.sleep(0.05)
        asked[2].cancel()
        await asyncio.sleep(0)
        double.gate.set()
        assert await asyncio.gather(*asked[:2]) == [[0], [2]]
        await work.submit([9], [1])
    assert [2] not in double.batches


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)
