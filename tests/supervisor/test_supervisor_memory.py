"""What the end of a request tells memory, with the real wire and record."""

from __future__ import annotations

from typing import Any

from stage import Player, World

from base import streams
from base.messages import Effort, Outcome, WorkOrder, answer_id
from pai.shapes import TEXT_CHARS, SignalKind, Told, memory_id


async def told(world: World) -> list[Told]:
    """Everything told to memory, in order; whether it was relayed yet or not."""
    rows = await world.store.fetch(
        "SELECT convert_from(body, 'UTF8')::jsonb->'payload' AS payload FROM outbox"
        " WHERE stream = $1 ORDER BY id",
        streams.MEMORY,
    )
    return [Told.model_validate(row["payload"]) for row in rows]


async def test_the_end_tells_what_was_said_how_it_ended_and_that_it_did(world: World) -> None:
    async def tainted(player: Player, order: WorkOrder) -> Outcome:
        return player.outcome(order, answer="A heap is a tree.", tainted=True)

    world.act = tainted
    await world.play()
    world.start()
    task_id = await world.ask("What is a heap?")
    row = await world.ended(task_id)
    remember, signal, ended = await told(world)
    assert (remember.verb, signal.verb, ended.verb) == ("remember", "signal", "ended")
    assert {one.root_id for one in (remember, signal, ended)} == {task_id}
    asked, answer = remember.memories
    assert asked.id == memory_id("message", row["message_id"])
    assert answer.id == memory_id("message", answer_id(task_id))
    assert (asked.text, answer.text) == ("What is a heap?", "A heap is a tree.")
    assert (asked.seq, answer.seq) == (0, 1)
    assert asked.speaker != answer.speaker
    assert answer.speaker == answer.agent
    assert (asked.tainted, answer.tainted) == (False, True)
    assert {one.collection for one in remember.memories} == {"conversations"}
    assert {one.user_id for one in remember.memories} == {world.user}
    assert {one.conversation_id for one in remember.memories} == {world.conversation}
    assert signal.signal is not None
    assert (signal.signal.kind, signal.signal.root_id) == (SignalKind.TASK_SUCCESS, task_id)
    assert ended.status == "completed"


async def test_the_second_question_has_the_next_places(world: World) -> None:
    await world.play()
    world.start()
    await world.ended(await world.ask("What is a heap?"))
    await world.ended(await world.ask("And a tree?"))
    places = [one.seq for what in await told(world) for one in what.memories]
    assert places == [0, 1, 2, 3]


async def test_a_failure_is_told_as_such(world: World) -> None:
    await world.play()
    world.start()
    task_id = await world.ask("Do it", agent="nobody")
    assert (await world.ended(task_id))["status"] == "failed"
    remember, signal, ended = await told(world)
    assert [one.text for one in remember.memories] == ["Do it"]
    assert signal.signal is not None
    assert signal.signal.kind is SignalKind.TASK_FAILURE
    assert ended.status == "failed"


async def test_a_cancel_is_an_abandon_and_a_retry_is_told_once(world: World) -> None:
    world.start()
    task_id = await world.ask("What is a heap?")
    await world.verb("cancel", task_id=task_id)
    await world.verb("cancel", task_id=task_id)
    kinds = [one.signal.kind for one in await told(world) if one.signal]
    assert kinds == [SignalKind.TASK_ABANDON]
    assert [one.status for one in await told(world) if one.verb == "ended"] == ["cancelled"]
    again = await world.verb("retry", task_id=task_id)
    assert await world.verb("retry", task_id=task_id) == again
    signals = [one.signal for one in await told(world) if one.signal]
    assert [one.kind for one in signals] == [SignalKind.TASK_ABANDON, SignalKind.TASK_RETRY]
    assert signals[1].root_id == task_id
    assert len({one.id for one in signals}) == 2


async def test_a_long_message_is_kept_whole_in_pieces(world: World) -> None:
    await world.play()
    world.start()
    text = "word " * (TEXT_CHARS // 4)
    await world.ended(await world.ask(text, effort=Effort.MINIMAL))
    (remember, *_) = await told(world)
    pieces: list[Any] = [one for one in remember.memories if one.kind == "message"]
    assert "".join(one.text for one in pieces) == text
    assert len({one.id for one in pieces}) == len(pieces) == 2
    assert {one.seq for one in pieces} == {0}
