"""The supervisor as its own process, killed with -9 at bad moments: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stage import Player, World, until
from test_supervisor_loop import planned, script, step

from base.messages import Outcome, WorkOrder
from base.program import EXIT_POST_TAKEN

ROOT = Path(__file__).resolve().parents[2]


def spawn(world: World) -> subprocess.Popen[bytes]:
    """`python -m supervisor` for this world."""
    settings = world.settings
    environment = {
        **os.environ,
        "AI_INFRA_HOME": str(settings.home),
        "AI_INFRA_REDIS_URL": settings.redis,
        "AI_INFRA_POSTGRES_DSN": settings.postgres,
        "AI_INFRA_REHEARSAL_PORT": str(settings.rehearsal_port),
        "AI_INFRA_HEARTBEAT_S": str(settings.heartbeat_s),
        "AI_INFRA_LEASE_S": str(settings.lease_s),
        "AI_INFRA_ASSIGN_LEASE_S": str(settings.assign_lease_s),
        "AI_INFRA_SWEEP_S": str(settings.sweep_s),
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "supervisor"], env=environment, stdin=subprocess.DEVNULL, cwd="/"
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def rows(world: World, where: str) -> Any:
    async def has() -> bool:
        return bool(await world.store.fetchval(f"SELECT COUNT(*) FROM tasks WHERE {where}"))

    return has


REQUEST = script(
    "make all of it",
    {"for": "planner", "delay_ms": 600},
    planned(step("a", "code"), step("b", "data"), step("c", "qa", "a", "b")),
    {"for": "join", "delay_ms": 600},
    {"for": "join", "say": "joined"},
)


@pytest.mark.parametrize(
    "moment",
    [
        "accepted",
        "planning",
        "assigned or at work",
        "two results waiting",
        "joining",
    ],
)
async def test_kill_loses_and_doubles_nothing(world: World, moment: str) -> None:
    gate = asyncio.Event()
    sent: list[str] = []

    async def act(player: Player, order: WorkOrder) -> Outcome | None:
        await gate.wait()
        sent.append(order.instruction)
        return player.outcome(order)

    world.act = act
    # No agent dies here: on a busy machine a short lease would run out by itself.
    world.settings = world.settings.model_copy(update={"lease_s": 30.0, "assign_lease_s": 10.0})
    await world.play("code", "data", "qa")
    process = spawn(world)
    try:
        ready = await world.ask("What is warm?")
        await until("the supervisor is up", rows(world, f"root_id = '{ready}' AND key = 's1'"), 20)
        gate.set()
        await world.ended(ready)
        gate.clear()
        sent.clear()
        if moment == "accepted":
            kill(process)
        task_id = await world.ask(REQUEST)
        mine = f"root_id = '{task_id}'"
        if moment == "planning":
            await asyncio.sleep(0.3)
            kill(process)
            assert await world.subtasks(task_id) == []
        if moment in {"assigned or at work", "two results waiting"}:
            await until("work began", rows(world, f"{mine} AND status = 'in_progress' AND key='a'"))
            await until("work began", rows(world, f"{mine} AND status = 'in_progress' AND key='b'"))
            kill(process)
        gate.set()
        if moment == "two results waiting":
            await until("two results", _sent(sent, 2), 20)
        if moment == "joining":
            ended = f"{mine} AND key = 'c' AND status = 'completed'"
            await until("all subtasks ended", rows(world, ended), 20)
            await asyncio.sleep(0.2)
            kill(process)
            assert (await world.row(task_id))["status"] == "in_progress"
        process = spawn(world)
        row = await world.ended(task_id, 30)
        assert row["status"] == "completed", row["error"]
        subtasks = await world.subtasks(task_id)
        assert [(one["key"], one["status"]) for one in subtasks] == [
            ("a", "completed"),
            ("b", "completed"),
            ("c", "completed"),
        ]
        assert sorted(sent) == ["do a", "do b", "do c"]
        answers = [one for one in await world.answers() if one["metadata"]["task_id"] == task_id]
        assert [one["content"] for one in answers] == ["joined"]
        assert await world.bus.dead() == []
    finally:
        process.terminate()
        process.wait(10)


async def test_second_process_leaves_with_75_and_a_freed_post_is_taken(world: World) -> None:
    await world.play("code")
    first = spawn(world)
    try:
        await world.ended(await world.ask("What is a heap?"), 30)
        second = spawn(world)
        assert await asyncio.to_thread(second.wait, 20) == EXIT_POST_TAKEN
        kill(first)
        first = spawn(world)
        await world.ended(await world.ask("What is a tree?"), 30)
    finally:
        first.terminate()
        assert first.wait(30) == 0


async def test_losing_the_post_ends_the_process(world: World) -> None:
    await world.play("code")
    process = spawn(world)
    try:
        await world.ended(await world.ask("What is a heap?"), 30)
        await world.store.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert await asyncio.to_thread(process.wait, 20) == 1
    finally:
        process.terminate()


def _sent(sent: list[str], count: int) -> Any:
    async def has() -> bool:
        return len(sent) >= count

    return has
