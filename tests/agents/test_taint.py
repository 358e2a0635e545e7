"""What read untrusted text is marked, and the mark travels with all that follows from it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from agent_rig import Rig, order, script
from test_escalate import COUNT, DONE, FRAME, WRITE, equip

from agents.notes import Notes, note
from base import streams
from base.deadline import Deadline
from base.messages import Effort, Input, Status

INPUT = Input(task_id="t", agent="research", instruction="look", answer="it says", tainted=True)


async def test_an_order_or_an_input_brings_taint_into_every_request_and_the_outcome(
    rig: Rig,
) -> None:
    equip(rig)
    rig.start()
    clean = await rig.send(order(script(FRAME, COUNT, WRITE, DONE)))
    (asked,) = await rig.until("a request", lambda: rig.clerk.pending)
    assert not asked.request.tainted
    await rig.decide(False)
    assert not (await rig.ended(clean)).tainted
    for fields in ({"tainted": True}, {"inputs": (INPUT,)}):
        told = await rig.send(order(script(FRAME, COUNT, WRITE, DONE), **fields))
        (asked,) = await rig.until("a request", lambda: rig.clerk.pending)
        assert asked.request.tainted
        await rig.decide(False)
        outcome = await rig.ended(told)
        assert (outcome.status, outcome.tainted) == (Status.COMPLETED, True)
        (record,) = [r for r in rig.journal(told) if r["kind"] == "tainted"]
        assert record["source"] in {"the order", "the result of research"}


async def test_taint_outlives_a_restart_and_a_handoff_tells_it(rig: Rig) -> None:
    equip(rig, ["handoff", "request_permission"])
    rig.start()
    hand = {"tool": "handoff", "input": {"agent": "data", "notes": "n"}}
    told = await rig.send(order(script(FRAME, COUNT, hand), tainted=True))
    await rig.until("asked", lambda: "asked" in rig.kinds(told))
    await rig.until("shown", lambda: "PERMISSION ASKED" in rig.screen())
    rig.kill()
    rig.start()
    await rig.until("again", lambda: rig.screen().count("PERMISSION ASKED") == 2)
    await rig.decide(False)
    outcome = await rig.ended(told)
    assert (outcome.handoff_to, outcome.tainted) == ("data", True)
    assert rig.kinds(told).count("tainted") == 1


async def test_a_peers_answer_is_as_tainted_as_the_question(rig: Rig) -> None:
    rig.start("qa")
    await rig.until("beats", lambda: rig.beats)
    query = {"verb": "query", "from": "code", "question": "q", "task_id": "t", "level": 1}

    async def tainted(**more: object) -> bool:
        deadline = Deadline.after(20)
        answer = await rig.bus.ask(streams.peer("qa"), {**query, **more}, deadline=deadline)
        return bool(answer["tainted"])

    assert await tainted(tainted=True)
    assert not await tainted(tainted=False)
    assert await tainted()  # who does not say is not trusted


async def test_a_broadcast_from_a_tainted_task_taints_who_reads_it(rig: Rig) -> None:
    equip(rig)
    rig.start()
    tell = {"tool": "broadcast", "input": {"text": "the port is 9999"}}
    await rig.ended(await rig.send(order(script(FRAME, tell, WRITE, DONE), tainted=True)))
    rig.start("data")
    await rig.until("data is there", lambda: any(beat.agent == "data" for beat in rig.beats))
    await asyncio.sleep(0.5)
    for user, tainted in (("u1", True), ("u2", False)):
        minimal = order(script(DONE), agent="data", effort=Effort.MINIMAL, user_id=user)
        outcome = await rig.ended(await rig.send(minimal))
        assert outcome.tainted is tainted


def test_notes_forget_taint_with_the_note() -> None:
    notes = Notes("code")
    notes.take(note("data", "u1", "t", "fine"))
    assert not notes.tainted("u1")
    notes.take(note("data", "u1", "t", "from outside", tainted=True))
    assert notes.tainted("u1")
    assert not notes.tainted("u2")
    assert not notes.tainted("u1", datetime(2040, 1, 1, tzinfo=UTC))
