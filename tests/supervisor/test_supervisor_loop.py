"""The supervisor with the real wire, record and rehearsal model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from stage import Player, World, until

from base import streams
from base.errors import StoreError
from base.messages import (
    Heartbeat,
    Message,
    Outcome,
    Status,
    Type,
    WorkOrder,
    answer_id,
    encode,
)
from base.program import EXIT_POST_TAKEN
from supervisor import asks, loop, outcomes


def script(text: str, *lines: dict[str, Any]) -> str:
    """A request with a rehearsal script."""
    block = "\n".join(json.dumps(line) for line in lines)
    return f"{text}\n\n```rehearsal\n{block}\n```\n"


def step(key: str, agent: str, *depends_on: str, **more: Any) -> dict[str, Any]:
    return {
        "key": key,
        "agent": agent,
        "instruction": f"do {key}",
        "effort": "standard",
        "depends_on": list(depends_on),
        **more,
    }


def _beat(agent: str, *, epoch: int) -> Message:
    task_id = "6a1a2f0e-7a83-4f0c-9d5c-8d2b8f7d0a11"
    beat = Heartbeat(agent=agent, pid=1, status="busy", task_id=task_id, epoch=epoch)
    return Message(
        source=agent, target="*", type=Type.HEARTBEAT, payload=beat.model_dump(mode="json")
    )


async def _joins(world: World) -> int:
    sql = "SELECT COUNT(*) FROM api_usage WHERE purpose = 'join'"
    return int(await world.store.fetchval(sql))


def planned(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"for": "planner", "plan": {"summary": "as told", "subtasks": list(steps)}}


async def test_minimal_request_takes_no_planning_and_its_answer_is_the_agents(
    world: World,
) -> None:
    await world.play()
    world.start()
    task_id = await world.ask("What is a heap?")
    row = await world.ended(task_id)
    assert row["status"] == "completed"
    answers = await world.answers()
    assert [one["id"] for one in answers] == [answer_id(task_id)]
    assert answers[0]["content"].endswith("did What is a heap?")
    (subtask,) = await world.subtasks(task_id)
    order = next(order for one in world.players.values() for order in one.orders)
    assert order.answer_message_id == answer_id(task_id)
    assert (subtask["effort"], subtask["epoch"], subtask["deliveries"]) == ("minimal", 1, 1)
    assert order.budget.usd == 0.25
    assert await world.store.fetchval("SELECT COUNT(*) FROM api_usage") == 0


async def test_named_agent_gets_the_request_without_planning(world: World) -> None:
    await world.play()
    world.start()
    task_id = await world.ask("write hello.txt", agent="qa")
    await world.ended(task_id)
    (subtask,) = await world.subtasks(task_id)
    assert (subtask["assigned_agent"], subtask["effort"]) == ("qa", "standard")
    logs = await world.store.fetch(
        "SELECT message FROM task_logs WHERE task_id = $1", subtask["id"]
    )
    assert any("asked for by name" in one["message"] for one in logs)


async def test_unknown_agent_fails_with_one_clear_error(world: World) -> None:
    await world.play("code")
    world.start()
    row = await world.ended(await world.ask("x", agent="nobody"))
    assert row["status"] == "failed"
    assert "no agent named 'nobody'; there are: code" in row["error"]
    assert len(await world.answers()) == 1


async def test_plan_runs_in_order_and_inputs_reach_the_dependents(world: World) -> None:
    await world.play()
    world.start()
    task_id = await world.ask(
        script(
            "build it and check it",
            planned(step("a", "code"), step("b", "data"), step("c", "qa", "a", "b")),
            {"for": "join", "say": "all joined"},
        )
    )
    row = await world.ended(task_id)
    assert row["status"] == "completed", row["error"]
    order = world.players["qa"].orders[0]
    assert [one.agent for one in order.inputs] == ["code", "data"]
    assert order.inputs[0].answer == "code did do a"
    assert order.request.startswith("build it and check it")
    (answer,) = await world.answers()
    assert answer["content"] == "all joined"
    events = await world.bus.events_after("0")
    kinds = [event.kind.value for _, event in events if event.root_id == task_id]
    assert {"plan", "task", "chunk", "message"} <= set(kinds)
    chunks = [event.data for _, event in events if event.kind.value == "chunk"]
    assert "".join(one["content"] for one in chunks) == "all joined"
    assert {one["message_id"] for one in chunks} == {answer_id(task_id)}


async def test_second_supervisor_leaves_with_75(world: World) -> None:
    await world.play("code")
    world.start()
    await world.ended(await world.ask("What is a heap?"))
    assert await loop.main(world.settings, asyncio.Event()) == EXIT_POST_TAKEN


async def test_fifty_equal_results_end_a_task_once(world: World) -> None:
    async def fifty(player: Player, order: WorkOrder) -> Outcome | None:
        for _ in range(50):
            await player.send(player.outcome(order))
        return None

    world.act = fifty
    await world.play("code")
    world.start()
    task_id = await world.ask("What is a heap?")
    await world.ended(task_id)
    await until("all results read", _empty(world, "results"))
    assert len(await world.answers()) == 1
    row = await world.row(task_id)
    assert row["usage"]["model_calls"] == 1
    assert await world.bus.dead() == []


async def test_stale_epoch_is_refused(world: World) -> None:
    async def late(player: Player, order: WorkOrder) -> Outcome | None:
        stale = player.outcome(order, answer="stale").model_copy(update={"epoch": order.epoch - 1})
        await player.send(stale)
        await asyncio.sleep(0.2)
        return player.outcome(order, answer="fresh")

    world.act = late
    await world.play("code")
    world.start()
    await world.ended(await world.ask("What is a heap?"))
    assert [one["content"] for one in await world.answers()] == ["fresh"]


async def test_lost_agent_is_replaced_and_its_late_result_refused(world: World) -> None:
    async def vanish(player: Player, order: WorkOrder) -> Outcome | None:
        if order.delivery == 1:
            return None
        return player.outcome(order, answer=f"at epoch {order.epoch}")

    world.act = vanish
    await world.play("code")
    world.start()
    task_id = await world.ask("What is a heap?")
    row = await world.ended(task_id)
    assert row["status"] == "completed"
    (subtask,) = await world.subtasks(task_id)
    assert subtask["deliveries"] == 2
    assert (await world.answers())[0]["content"] == f"at epoch {subtask['epoch']}"


async def test_poison_ends_in_the_dead_letter_after_three(world: World) -> None:
    async def die(player: Player, order: WorkOrder) -> Outcome | None:
        return None

    world.act = die
    await world.play("code")
    world.start()
    task_id = await world.ask("What is a heap?")
    row = await world.ended(task_id, 30)
    assert row["status"] == "failed"
    assert "given up after 3 deliveries" in row["error"]
    assert len(world.players["code"].orders) == 3
    (letter,) = await world.bus.dead()
    assert "given up after 3" in letter.error_message

    world.act = world.obey
    await world.bus.replay(letter.id)
    await until("the retry", _count(world, "parent_task_id IS NULL AND status = 'completed'", 1))


async def test_priority_counts_between_waiting_tasks(world: World) -> None:
    gate = asyncio.Event()

    async def wait(player: Player, order: WorkOrder) -> Outcome | None:
        await gate.wait()
        return player.outcome(order)

    world.act = wait
    await world.play("code")
    world.start()
    first = await world.ask("What is first?")
    await until("the first at work", _count(world, "status = 'in_progress' AND key = 's1'", 1))
    ids = [
        await world.ask(f"What is number {number}?", priority=priority)
        for number, priority in enumerate((2, 9, 5, 9), 1)
    ]
    await asyncio.sleep(0.3)
    gate.set()
    for task_id in (first, *ids):
        await world.ended(task_id)
    got = [order.instruction for order in world.players["code"].orders]
    assert got == [
        "What is first?",
        "What is number 2?",
        "What is number 4?",
        "What is number 3?",
        "What is number 1?",
    ]


async def test_circular_plan_is_asked_again_once(world: World) -> None:
    await world.play()
    world.start()
    circle = planned(step("a", "code", "b"), step("b", "data", "a"))
    good = await world.ask(script("go on, make it", circle, planned(step("a", "code"))))
    assert (await world.ended(good))["status"] == "completed"
    bad = await world.ask(script("go on, make it", circle, circle))
    row = await world.ended(bad)
    assert row["status"] == "failed"
    assert "circle: a → b → a" in row["error"]
    assert await world.subtasks(bad) == []
    assert "circle" in (await world.answers())[-1]["content"]


async def test_cancel_stops_agents_and_refuses_what_comes_late(world: World) -> None:
    gate = asyncio.Event()

    async def wait(player: Player, order: WorkOrder) -> Outcome | None:
        await gate.wait()
        return player.outcome(order)

    world.act = wait
    await world.play("code")
    world.start()
    task_id = await world.ask("What is a heap?")
    await until("it is at work", _count(world, "status = 'in_progress' AND key = 's1'", 1))
    assert await world.verb("cancel", task_id=task_id) == {"status": "cancelled"}
    assert await world.verb("cancel", task_id=task_id) == {"status": "cancelled"}
    gate.set()
    player = world.players["code"]
    await until("the agent was told", _true(lambda: bool(player.controls)))
    assert (player.controls[0].verb, player.controls[0].epoch) == ("cancel", 1)
    await until("the late result was read", _empty(world, "results"))
    assert {one["status"] for one in await world.subtasks(task_id)} == {"cancelled"}
    assert await world.answers() == []


async def test_work_of_a_deactivated_account_is_cancelled(world: World) -> None:
    async def never(player: Player, order: WorkOrder) -> Outcome | None:
        return None

    world.act = never
    await world.play("code")
    world.start()
    at_work = await world.ask("What is a heap?", agent="code")
    await until("it is at work", _count(world, "status = 'in_progress' AND key = 's1'", 1))
    waits = await world.ask("And what is a tree?", agent="code")
    await world.store.execute(
        "UPDATE users SET is_active = FALSE WHERE id = (SELECT user_id FROM tasks WHERE id = $1)",
        at_work,
    )
    for task_id in (at_work, waits):
        row = await world.ended(task_id)
        assert (row["status"], row["error"]) == ("cancelled", loop.INACTIVE)
    player = world.players["code"]
    await until("the agent was told", _true(lambda: bool(player.controls)))
    assert player.controls[0].verb == "cancel"


async def test_retry_runs_the_same_request_again(world: World) -> None:
    async def fail(player: Player, order: WorkOrder) -> Outcome | None:
        return player.outcome(order, status=Status.FAILED, error="no luck", answer="")

    world.act = fail
    await world.play("code")
    world.start()
    task_id = await world.ask("What is a heap?")
    row = await world.ended(task_id)
    assert (row["status"], "no luck" in row["error"]) == ("failed", True)
    world.act = world.obey
    new_id = (await world.verb("retry", task_id=task_id))["task_id"]
    assert new_id != task_id
    assert (await world.ended(new_id))["status"] == "completed"


async def test_handoff_goes_to_the_named_agent_with_notes(world: World) -> None:
    async def pass_on(player: Player, order: WorkOrder) -> Outcome | None:
        if player.name == "code" and "nobody" not in order.notes:
            return player.outcome(order, status=Status.WAITING, handoff_to="nobody", notes="n1")
        if player.name == "code":
            return player.outcome(order, status=Status.WAITING, handoff_to="data", notes="n2")
        return player.outcome(order, answer=f"{order.notes} at {order.epoch}")

    world.act = pass_on
    await world.play("code", "data")
    world.start()
    task_id = await world.ask("do it", agent="code")
    await world.ended(task_id)
    (subtask,) = await world.subtasks(task_id)
    assert (subtask["assigned_agent"], subtask["handoffs"]) == ("data", 2)
    assert "From code: n2" in (await world.answers())[0]["content"]
    told = world.players["code"].orders[1].notes
    assert "no agent named 'nobody'" in told


async def test_failed_subtask_cancels_dependents_and_the_answer_says_so(world: World) -> None:
    async def partly(player: Player, order: WorkOrder) -> Outcome | None:
        if player.name == "data":
            return player.outcome(order, status=Status.FAILED, error="no data", answer="")
        return player.outcome(order)

    world.act = partly
    await world.play()
    world.start()
    task_id = await world.ask(
        script(
            "make all of it",
            planned(step("a", "code"), step("b", "data"), step("c", "qa", "b")),
            {"for": "join", "say": "half of it"},
        )
    )
    row = await world.ended(task_id)
    assert row["status"] == "failed"
    states = {one["key"]: one["status"] for one in await world.subtasks(task_id)}
    assert states == {"a": "completed", "b": "failed", "c": "cancelled"}
    content = (await world.answers())[0]["content"]
    assert content.startswith("half of it")
    assert "no data" in content
    assert "needs b, which failed" in content


async def test_contradiction_is_put_to_both_agents_once(world: World) -> None:
    await world.play()
    world.start()
    found = {
        "contradictions": [
            {"subject": "the port", "agents": ["code", "data"], "question": "Which port is it?"}
        ]
    }
    task_id = await world.ask(
        script(
            "find the port, both of you",
            planned(step("a", "code"), step("b", "data")),
            {"for": "join", "conflict": found},
            {"for": "join", "say": "They disagreed about the port; code is right."},
        )
    )
    row = await world.ended(task_id)
    assert row["status"] == "completed"
    assert "disagreed about the port" in (await world.answers())[0]["content"]
    assert row["output"]["contradictions"][0]["subject"] == "the port"
    for name in ("code", "data"):
        (question,) = world.players[name].questions
        assert "Which port is it?" in question["question"]


async def test_join_model_that_fails_loses_no_answer(world: World) -> None:
    await world.play()
    world.start()
    task_id = await world.ask(
        script(
            "make both of them",
            planned(step("a", "code"), step("b", "data")),
            {"for": "join", "fault": "400"},
            {"for": "join", "fault": "400"},
        )
    )
    row = await world.ended(task_id)
    assert row["status"] == "completed"
    content = (await world.answers())[0]["content"]
    assert "could not be joined" in content
    assert "code did do a" in content
    assert "data did do b" in content


async def test_joined_answer_that_cannot_be_stored_as_it_is_ends_the_request(world: World) -> None:
    await world.play()
    world.start()
    task_id = await world.ask(
        script(
            "make both of them",
            planned(step("a", "code"), step("b", "data")),
            *({"for": "join", "say": "half\0 of it"},) * 9,
        )
    )
    assert (await world.ended(task_id))["status"] == "completed"
    assert (await world.answers())[0]["content"] == "half\ufffd of it"
    async with asyncio.timeout(10):  # what was spent is written down after the answer
        while not (joins := await _joins(world)):
            await asyncio.sleep(0.05)
    assert joins == 1


async def test_join_that_never_ends_is_given_up_for_the_plain_answers(
    world: World, monkeypatch: Any
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise StoreError("a value of the wrong type")

    monkeypatch.setattr(outcomes.join, "join", broken)
    await world.play()
    world.start()
    task_id = await world.ask(
        script("make both of them", planned(step("a", "code"), step("b", "data")))
    )
    await world.ended(task_id)
    content = (await world.answers())[0]["content"]
    assert "could not be joined" in content
    assert "code did do a" in content


async def test_poisoned_heartbeats_stop_nothing(world: World) -> None:
    await world.play()
    world.start()
    good = json.loads(encode(_beat("code", epoch=1)))
    await world.bus.publish(streams.HEARTBEATS, _beat("code", epoch=2**40), _beat("c\0de", epoch=1))
    naive = json.dumps({**good, "timestamp": "2026-01-01T00:00:00"}).encode()
    await world.bus.publish_raw(streams.HEARTBEATS, naive)
    await asyncio.sleep(0.3)
    await world.ended(await world.ask("What is a heap?"))


async def test_retry_of_a_dead_letter_outlives_the_record(world: World, monkeypatch: Any) -> None:
    async def fail(player: Player, order: WorkOrder) -> Outcome | None:
        return player.outcome(order, status=Status.FAILED, error="no luck", answer="")

    failures = [StoreError("away")]
    real = asks.retry

    async def sometimes(*given: Any) -> str:
        if failures:
            raise failures.pop()
        return await real(*given)

    world.act = fail
    monkeypatch.setattr(asks, "retry", sometimes)
    monkeypatch.setattr(loop, "AGAIN_S", 0.2)
    await world.play("code")
    world.start()
    task_id = await world.ask("What is a heap?")
    await world.ended(task_id)
    order = Message(
        source="supervisor", target="supervisor", type=Type.TASK,
        payload={"task_id": task_id, "retry": True},
    )  # fmt: skip
    await world.bus.publish(streams.TASKS_NEW, order)
    await until("it was retried", _count(world, "input->>'retry_of' IS NOT NULL", 1))


async def test_flushall_in_mid_run_loses_nothing(world: World) -> None:
    async def slowly(player: Player, order: WorkOrder) -> Outcome | None:
        await asyncio.sleep(0.1)
        return player.outcome(order)

    world.act = slowly
    await world.play()
    world.start()
    ids = [await world.ask(f"What is number {number}?") for number in range(30)]
    await until("some ended", _count(world, "parent_task_id IS NULL AND status = 'completed'", 3))
    await world.bus.call(("FLUSHALL",))
    for task_id in ids:
        assert (await world.ended(task_id, 30))["status"] == "completed"
    assert len(await world.answers()) == 30


async def test_request_whose_message_was_lost_is_found(world: World) -> None:
    await world.play("code")
    task_id = await world.ask("What is a heap?", relay=False)
    await world.store.execute("UPDATE outbox SET sent_at = NOW()")
    world.start()
    assert (await world.ended(task_id))["status"] == "completed"
    later = await world.ask("What is a tree?", relay=False)
    await world.store.execute("UPDATE outbox SET sent_at = NOW()")
    assert (await world.ended(later))["status"] == "completed"


async def test_daily_limit_refuses_new_requests(world: World) -> None:
    (world.settings.config / "budgets.toml").write_text("[daily]\nhard_limit_usd = 1.0\n")
    await world.store.execute(
        "INSERT INTO api_usage (agent, provider, model, input_tokens, output_tokens, cost_usd)"
        " VALUES ('code', 'p', 'm', 1, 1, 1.5)"
    )
    await world.play("code")
    world.start()
    row = await world.ended(await world.ask("What is a heap?"))
    assert row["status"] == "failed"
    assert "daily limit of $1.00" in row["error"]


async def test_reservation_holds_others_back_until_it_is_refunded(world: World) -> None:
    (world.settings.config / "budgets.toml").write_text("[daily]\nhard_limit_usd = 0.3\n")
    gate = asyncio.Event()

    async def wait(player: Player, order: WorkOrder) -> Outcome | None:
        await gate.wait()
        return player.outcome(order)

    world.act = wait
    await world.play("code", "data")
    world.start()
    first = await world.ask("What is first?")
    await until("the first at work", _count(world, "status = 'in_progress' AND key = 's1'", 1))
    second = await world.ask("What is second?")
    await until("the second is planned", _count(world, "status = 'pending' AND key = 's1'", 1))
    await asyncio.sleep(0.5)
    assert (await world.subtasks(second))[0]["status"] == "pending"
    gate.set()
    await world.ended(first)
    assert (await world.ended(second))["status"] == "completed"


async def test_broadcast_asks_every_agent(world: World) -> None:
    await world.play()
    world.start()
    task_id = await world.ask(
        script("everybody report", planned(step("all", "*")), {"for": "join", "say": "five"})
    )
    assert (await world.ended(task_id))["status"] == "completed"
    agents = {one["assigned_agent"] for one in await world.subtasks(task_id)}
    assert agents == {"code", "data", "infra", "research", "qa"}


async def test_steer_and_control_reach_the_agent(world: World) -> None:
    gate = asyncio.Event()

    async def wait(player: Player, order: WorkOrder) -> Outcome | None:
        await gate.wait()
        return player.outcome(order)

    world.act = wait
    await world.play("code")
    world.start()
    task_id = await world.ask("What is a heap?")
    await until("it is at work", _count(world, "status = 'in_progress' AND key = 's1'", 1))
    await world.verb("steer", task_id=task_id, text="shorter")
    await world.verb("control", agent="code", control="pause")
    player = world.players["code"]
    await until("told twice", _true(lambda: len(player.controls) == 2))
    assert [(one.verb, one.text) for one in player.controls] == [
        ("steer", "shorter"),
        ("pause", ""),
    ]
    gate.set()
    await world.ended(task_id)


def _count(world: World, where: str, least: int) -> Any:
    async def has() -> bool:
        return int(await world.store.fetchval(f"SELECT COUNT(*) FROM tasks WHERE {where}")) >= least

    return has


def _empty(world: World, stream: str) -> Any:
    async def has() -> bool:
        return await world.bus.depth(stream) == 0

    return has


def _true(check: Any) -> Any:
    async def has() -> bool:
        return bool(check())

    return has
