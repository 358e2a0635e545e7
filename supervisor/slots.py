"""Slow work beside the loop: at most a few named tasks at a time, the most urgent first."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from base import log

LIMIT = 4

logger = log.get(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]


class Slots:
    """Runs each name at most once at a time; the rest wait by priority, then by arrival."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._waiting: list[tuple[int, int, str, Work]] = []
        self._running: dict[str, asyncio.Task[None]] = {}
        self._names: set[str] = set()
        self._order = itertools.count()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    @property
    def names(self) -> frozenset[str]:
        """Everything that runs or waits."""
        return frozenset(self._names)

    def add(self, name: str, priority: int, work: Work) -> bool:
        """Run `work` as soon as there is room; False when `name` runs or waits already."""
        if name in self._names:
            return False
        self._names.add(name)
        heapq.heappush(self._waiting, (-priority, next(self._order), name, work))
        self._fill()
        return True

    def cancel(self, name: str) -> None:
        """Stop it or take it out of the queue. Unknown names are none."""
        self._waiting = [one for one in self._waiting if one[2] != name]
        heapq.heapify(self._waiting)
        if (task := self._running.get(name)) is not None:
            task.cancel()
        else:
            self._names.discard(name)

    async def close(self) -> None:
        """Cancel all and wait until they are gone."""
        self._waiting.clear()
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._limit:
            _, _, name, work = heapq.heappop(self._waiting)
            task = asyncio.create_task(work(), name=name)
            self._running[name] = task
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        name = task.get_name()
        self._running.pop(name, None)
        self._names.discard(name)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("failed", work=name, error=str(error), exc_info=error)
        self._fill()
