"""The SQL against a real PostgreSQL."""

from __future__ import annotations

import uuid

from stage import World

from base.messages import Budget, Effort, ModelCall, Status, Usage
from supervisor import earlier, plan, record, tally

TWO = plan.validate(
    {
        "summary": "two",
        "subtasks": [
            {"key": "a", "agent": "code", "instruction": "x", "effort": "standard"},
            {
                "key": "b",
                "agent": "data",
                "instruction": "y",
                "effort": "deep",
                "depends_on": ["a"],
                "budget_share": 0.25,
            },
        ],
    },
    ["code", "data"],
)
BUDGET = Budget(tokens=1000, usd=4.0)


async def begun(world: World) -> str:
    root_id = await world.ask("x", relay=False)
    async with world.store.transaction() as tx:
        root, _ = await record.lock(tx, root_id)
        await record.begin(tx, root, TWO, BUDGET, Usage())
    return root_id


async def test_begin_writes_the_plan_with_shares(world: World) -> None:
    root_id = await begun(world)
    first, second = await record.siblings(world.store, root_id)
    assert (first.budget, second.budget) == (
        Budget(tokens=750, usd=3.0),
        Budget(tokens=250, usd=1.0),
    )
    assert second.depends_on == (first.id,)
    assert (second.effort, second.status) == (Effort.DEEP, Status.PENDING)
    root = await record.find(world.store, root_id)
    assert root is not None
    assert (root.status, root.effort, root.title) == (Status.IN_PROGRESS, Effort.DEEP, "two")


async def test_ready_leaves_out_who_waits(world: World) -> None:
    root_id = await begun(world)
    (first,) = await record.ready(world.store, busy=[], barred=[], limit=9)
    assert first.key == "a"
    assert await record.ready(world.store, busy=["code"], barred=[], limit=9) == []
    await world.store.execute("UPDATE tasks SET status = 'completed' WHERE id = $1", first.id)
    assert [one.key for one in await record.ready(world.store, busy=[], barred=[], limit=9)] == [
        "b"
    ]
    assert [one.id for one in await record.to_join(world.store)] == []
    await world.store.execute("UPDATE tasks SET status = 'failed' WHERE key = 'b'")
    assert [one.id for one in await record.to_join(world.store)] == [root_id]


async def test_assign_only_once_and_every_epoch_is_new(world: World) -> None:
    await begun(world)
    (first,) = await record.ready(world.store, busy=[], barred=[], limit=9)
    async with world.store.transaction() as tx:
        row = await record.assign(tx, first.id, "code", BUDGET, 15)
        assert row is not None
        assert (row["epoch"], row["deliveries"]) == (1, 1)
        assert await record.assign(tx, first.id, "code", BUDGET, 15) is None
        assert await record.take(tx, first.id, 2, "code", 60) is None
        assert await record.take(tx, first.id, 1, "data", 60) is None
        assert await record.take(tx, first.id, 1, "code", 60) is not None
        assert await record.take(tx, first.id, 1, "code", 60) is None


async def test_end_of_a_root_is_written_once(world: World) -> None:
    root_id = await begun(world)
    for expected in (True, False):
        async with world.store.transaction() as tx:
            root, _ = await record.lock(tx, root_id)
            written = await record.end_root(
                tx,
                root,
                Status.COMPLETED,
                message_id="00000000-0000-0000-0000-000000000001",
                answer="done",
                agent="code",
                error=None,
                output={"answer": "done"},
                usage=Usage(model_calls=2),
            )
        assert written is expected
    assert len(await world.answers()) == 1


async def test_usage_counts_once_and_survives_an_unknown_task(world: World) -> None:
    call = ModelCall(
        id="00000000-0000-0000-0000-000000000002",
        task_id="00000000-0000-0000-0000-00000000dead",
        agent="code",
        purpose="execute",
        provider="p",
        model="m",
        usage=Usage(input_tokens=1, output_tokens=1, cost_usd=0.5),
        latency_ms=3,
    )
    assert await tally.add_usage(world.store, call)
    assert not await tally.add_usage(world.store, call)
    free = call.model_copy(update={"id": str(uuid.uuid4()), "provider": "rehearsal"})
    assert await tally.add_usage(world.store, free)
    assert await tally.spent_today(world.store) == {"code": 0.5}


async def test_unknown_ids_are_no_error(world: World) -> None:
    assert await record.find(world.store, "not an id") is None
    assert await record.find(world.store, "00000000-0000-0000-0000-00000000dead") is None


async def test_history_is_what_was_said_before(world: World) -> None:
    await world.ask("first", relay=False)
    second = await world.ask("second", relay=False)
    root = await record.find(world.store, second)
    assert root is not None
    assert [turn.content for turn in await earlier.history(world.store, root)] == ["first"]
