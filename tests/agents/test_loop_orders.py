"""Orders, leases and what people say while a task runs."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from agent_rig import Rig, order, script

from base import streams
from base.messages import Control, Effort, Message, Status, Type
from pai.record import Journal, folder_name

FRAME = {
    "frame": {
        "context": "c",
        "criteria": [
            {"text": "The file a exists", "probe": {"kind": "command", "command": "test -f a"}}
        ],
    }
}
WRITE = {"tool": "write", "input": {"path": "a", "content": "x"}}
DONE = {"say": "Done."}


def slow(line: dict[str, Any], delay_ms: int = 1_500) -> dict[str, Any]:
    return {**line, "delay_ms": delay_ms}


def minimal(**fields: Any) -> Any:
    return order(script(DONE), effort=Effort.MINIMAL, **fields)


async def test_nothing_is_begun_without_the_supervisors_word(rig: Rig) -> None:
    rig.silent = True
    rig.start(AI_INFRA_HEARTBEAT_S="0.1")
    told = await rig.send(minimal())
    await rig.until("idle beats", lambda: sum(b.status == "idle" for b in rig.beats) > 5)
    assert not rig.folder(told).exists()
    rig.kill()
    await rig.close()
    again = await Rig(rig.home, rig.redis_url, int(rig.model_url.rpartition(":")[2])).open()
    try:
        again.start()
        assert (await again.ended(told)).status is Status.COMPLETED
    finally:
        await again.close()
        await rig.open()


async def test_a_stale_order_is_dropped_without_a_trace(rig: Rig) -> None:
    rig.stale = {1}
    rig.start()
    told = await rig.send(minimal())
    fresh = await rig.send(minimal(epoch=2))
    await rig.ended(fresh)
    assert not rig.folder(told).exists()
    assert not [one for one in rig.outcomes if one.task_id == told.task_id]
    await rig.until_empty("code")


async def test_a_message_that_is_no_order_is_buried_and_the_next_one_runs(rig: Rig) -> None:
    rig.start()
    bad = Message(source="x", target="code", type=Type.TASK, payload={"task_id": "t"})
    await rig.bus.publish(streams.agent("code"), bad)
    await rig.ended(await rig.send(minimal()))
    (letter,) = await rig.bus.dead(streams.agent("code"))
    assert "no work order" in letter.error_message


async def test_the_same_order_twice_is_worked_on_once(rig: Rig) -> None:
    rig.start()
    told = minimal()
    for _ in range(3):
        await rig.send(told)
    await rig.ended(told, count=3)
    assert rig.prompts(told) == ["minimal"]


async def test_orders_run_one_at_a_time_and_beats_say_which(rig: Rig) -> None:
    rig.start()
    one = await rig.send(order(script(FRAME, slow(WRITE), DONE)))
    two = await rig.send(minimal())
    await rig.ended(two)
    assert [o.task_id for o in rig.outcomes] == [one.task_id, two.task_id]
    busy = [beat for beat in rig.beats if beat.task_id == one.task_id]
    assert busy
    assert {beat.status for beat in busy} == {"busy"}
    assert busy[-1].epoch == one.epoch
    assert busy[-1].rss_bytes > 10_000_000


@pytest.mark.parametrize("by", ["wire", "keyboard", "epoch"])
async def test_cancel_stops_the_running_task_at_once(rig: Rig, by: str) -> None:
    process = rig.start()
    told = await rig.send(order(script(FRAME, slow(WRITE, 60_000), DONE)))
    await rig.until("execute", lambda: "frozen" in rig.kinds(told))
    if by == "keyboard":
        assert process.stdin is not None
        process.stdin.write(b"/cancel\n")
        process.stdin.flush()
    else:
        epoch = told.epoch if by == "epoch" else None
        await rig.control(Control(verb="cancel", task_id=told.task_id, epoch=epoch))
    outcome = await rig.ended(told)
    assert outcome.status is Status.CANCELLED
    assert ("end" in rig.kinds(told)) == (by != "epoch")
    assert (await rig.ended(await rig.send(minimal()))).status is Status.COMPLETED


async def test_a_cancel_for_another_epoch_or_task_does_nothing(rig: Rig) -> None:
    rig.start()
    told = await rig.send(order(script(FRAME, slow(WRITE), DONE), epoch=5))
    await rig.until("framed", lambda: "framed" in rig.kinds(told))
    await rig.control(Control(verb="cancel", task_id=told.task_id, epoch=4))
    await rig.control(Control(verb="cancel", task_id="another"))
    assert (await rig.ended(told)).status is Status.COMPLETED


async def test_pause_holds_before_the_next_step_and_resume_goes_on(rig: Rig) -> None:
    rig.start()
    told = await rig.send(order(script(slow(FRAME), WRITE, DONE)))
    await rig.until("asked", lambda: "told" in rig.kinds(told))
    await rig.control(Control(verb="pause"))
    await rig.until("paused", lambda: "paused" in rig.kinds(told))
    assert rig.prompts(told) == ["frame"]
    await rig.until("the waiting outcome", lambda: rig.outcomes)
    assert rig.outcomes[0].status is Status.WAITING
    await rig.until("paused beats", lambda: rig.beats[-1].paused)
    assert not rig.workspace().exists()
    await rig.control(Control(verb="resume"))
    assert (await rig.ended(told)).status is Status.COMPLETED
    assert [one.status for one in rig.outcomes] == ["waiting", "in_progress", "completed"]


async def test_a_pause_outlives_a_restart(rig: Rig) -> None:
    rig.start()
    await rig.until("beats", lambda: rig.beats)
    await rig.control(Control(verb="pause"))
    await rig.until("paused", lambda: rig.beats[-1].paused)
    rig.kill()
    rig.beats.clear()
    rig.start()
    told = await rig.send(minimal())
    await rig.until("paused beats", lambda: sum(beat.paused for beat in rig.beats) > 3)
    assert not rig.outcomes
    await rig.control(Control(verb="resume"))
    assert (await rig.ended(told)).status is Status.COMPLETED


async def test_steering_reaches_the_next_model_call_once(rig: Rig) -> None:
    process = rig.start()
    request = script(FRAME, WRITE, slow(DONE), {"say": "Done with the comma."})
    told = await rig.send(order(request))
    await rig.until("the tool", lambda: rig.kinds(told).count("result") >= 2)
    assert process.stdin is not None
    process.stdin.write("mind the comma, näh\n".encode())
    process.stdin.flush()
    outcome = await rig.ended(told)
    assert outcome.answer == "Done with the comma."
    steers = [r["text"] for r in rig.journal(told) if r["kind"] == "steer"]
    assert steers == ["mind the comma, näh"]
    kinds = rig.kinds(told)
    assert "reply" in kinds[kinds.index("steer") :]


async def test_steering_on_the_wire_survives_a_crash_without_doubling(rig: Rig) -> None:
    rig.start()
    told = await rig.send(order(script(slow(FRAME), slow(WRITE), DONE)))
    await rig.until("asked", lambda: "told" in rig.kinds(told))
    await rig.control(Control(verb="steer", task_id=told.task_id, text="be brief"))
    await rig.until("steered", lambda: "steer" in rig.kinds(told))
    rig.kill()
    rig.start()
    await rig.ended(told)
    assert rig.kinds(told).count("steer") == 1


async def test_the_keyboard_says_what_it_can_do(rig: Rig) -> None:
    process = rig.start()
    await rig.until("banner", lambda: rig.beats)
    assert process.stdin is not None
    process.stdin.write(b"/help\n/status\n/dance\nhello\n\xff\xfe\n")
    process.stdin.flush()
    screen = await rig.until("answers", lambda: "nothing runs" in rig.screen() and rig.screen())
    assert "/pause     stop at the next safe point" in screen
    assert "idle" in screen


async def test_sigterm_finishes_the_step_and_gives_the_task_back(rig: Rig) -> None:
    process = rig.start()
    told = await rig.send(order(script(FRAME, slow(WRITE), DONE)))
    await rig.until("execute", lambda: "frozen" in rig.kinds(told))
    assert rig.kill(number=signal.SIGTERM) == 0
    assert process.returncode == 0
    assert rig.prompts(told)[-1] == "execute"
    assert "intent" not in rig.kinds(told)
    await rig.until("the last beat", lambda: rig.beats[-1].status == "stopped")
    await rig.until_empty("code")
    assert [one.status for one in rig.outcomes] == [Status.PENDING]
    rig.start()
    told = await rig.send(told.model_copy(update={"epoch": told.epoch + 1}))
    assert (await rig.ended(told)).status is Status.COMPLETED
    assert rig.prompts(told) == ["frame", "execute", "execute"]
    await rig.until_empty("code")


async def test_sigterm_while_idle_ends_at_once_and_idle_costs_no_model_call(rig: Rig) -> None:
    calls = rig.model_calls()
    rig.start()
    await rig.until("beats", lambda: len(rig.beats) > 3)
    assert rig.kill(number=signal.SIGTERM) == 0
    assert rig.model_calls() == calls


async def test_an_unknown_agent_is_one_line_and_code_1(rig: Rig) -> None:
    process = rig.start("nobody")
    assert process.wait(30) == 1
    assert rig.screen("nobody") == (
        "nobody: no agent named 'nobody'; there are: code, data, infra, research, qa\n"
    )


async def test_a_drain_that_takes_too_long_cuts_the_step_and_says_unknown_later(rig: Rig) -> None:
    rig.start(AI_INFRA_DRAIN_S="0.5")
    sleep = {"tool": "shell", "input": {"command": "touch a; sleep 60"}}
    told = await rig.send(order(script(FRAME, sleep, DONE)))
    await rig.until("the tool", (rig.workspace() / "a").exists)
    assert rig.kill(number=signal.SIGTERM) == 0
    await rig.until_empty("code")
    await rig.until("an outcome", lambda: rig.outcomes)
    assert [one.status for one in rig.outcomes] == [Status.PENDING]
    rig.start()
    told = await rig.send(told.model_copy(update={"epoch": told.epoch + 1}))
    assert (await rig.ended(told)).status is Status.COMPLETED
    (result,) = [r for r in rig.journal(told) if r["kind"] == "result" and r["name"] == "shell"]
    assert result["text"].startswith("UNKNOWN")


async def test_an_order_whose_journal_is_held_goes_back(rig: Rig) -> None:
    told = order(script({"say": "x"}), effort="minimal")
    journal, _ = Journal.open(rig.home / "MEMORY" / "Work" / "active" / folder_name(told))
    rig.start()
    await rig.send(told)
    try:
        await rig.until("an outcome", lambda: rig.outcomes)
        assert (rig.outcomes[0].status, rig.outcomes[0].epoch) == (Status.PENDING, 1)
    finally:
        journal.close()
    await rig.send(told.model_copy(update={"epoch": 2}))
    assert (await rig.ended(told)).status is Status.COMPLETED
