"""A cancellation holds even when something under the task swallowed it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agents.reins import Reins
from base.messages import Control, Outcome


class Held:
    """As much of a task as the reins look at."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.order = type("Order", (), {"task_id": "t", "epoch": 1})


async def test_a_swallowed_cancellation_ends_the_task_at_the_next_safe_point() -> None:
    async def publish(_: Outcome) -> None: ...

    reins, task = Reins(asyncio.Event(), publish), Held()
    went_on = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:  # as a library may
            went_on.set()
        await reins.safe_point(task)  # type: ignore[arg-type]

    assert reins.begin(task)  # type: ignore[arg-type]
    reins.runner = asyncio.create_task(work(), name="work")  # type: ignore[assignment]
    await asyncio.sleep(0)
    assert reins.take("1-0", Control(verb="cancel", task_id="t"), fresh=True) is None
    with pytest.raises(asyncio.CancelledError):
        await reins.runner  # type: ignore[misc]
    assert went_on.is_set()
    reins.end()
    await reins.safe_point(task)  # type: ignore[arg-type]
