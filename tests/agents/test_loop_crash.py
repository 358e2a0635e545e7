"""kill -9 in every phase: the task goes on from its journal and nothing is done twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from agent_rig import Rig, order, script

from base.messages import Effort, Status, WorkOrder
from pai.record import JOURNAL

SLOW_MS = 2_000
COUNT = {"tool": "shell", "input": {"command": "echo x >> count; echo counted"}}
SLOW_COUNT = {"tool": "shell", "input": {"command": "echo x >> count; sleep 2; echo counted"}}
CRITERION = {
    "text": "The file count holds exactly one line of x",
    "probe": {"kind": "command", "command": "sleep 0.7; test $(wc -l < count) = 1"},
}
FRAME = {"frame": {"context": "c", "plan": ["p"], "criteria": [CRITERION]}}
DONE = {"say": "Done."}


def slow(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "delay_ms": SLOW_MS}


def asked(key: str) -> Callable[[Rig, WorkOrder], bool]:
    return lambda rig, told: any(r.get("key", "").startswith(key) for r in rig.journal(told))


def holds(kind: str, count: int = 1) -> Callable[[Rig, WorkOrder], bool]:
    return lambda rig, told: rig.kinds(told).count(kind) >= count


def happened(rig: Rig, told: WorkOrder) -> bool:
    """The call had its effect and has no result yet."""
    return (rig.workspace() / "count").exists()


@pytest.mark.parametrize(
    ("lines", "moment"),
    [
        pytest.param([slow(FRAME), COUNT, DONE], asked("frame"), id="frame"),
        pytest.param([FRAME, slow(COUNT), DONE], asked("execute"), id="execute"),
        pytest.param([FRAME, SLOW_COUNT, DONE], happened, id="tool"),
        pytest.param([FRAME, COUNT, slow(DONE)], holds("result", 2), id="after the tool"),
        pytest.param([FRAME, COUNT, DONE], holds("worked"), id="verify"),
    ],
)
async def test_killed_in_a_phase_it_goes_on_and_repeats_nothing(
    rig: Rig, lines: list[dict[str, Any]], moment: Callable[[Rig, WorkOrder], bool]
) -> None:
    rig.start()
    told = await rig.send(order(script(*lines)))
    await rig.until("the moment", lambda: moment(rig, told))
    before = rig.prompts(told)
    rig.kill()
    assert "end" not in rig.kinds(told)
    rig.start()
    outcome = await rig.ended(told)
    assert outcome.status is Status.COMPLETED
    assert (rig.workspace() / "count").read_text() == "x\n"
    assert rig.prompts(told)[: len(before)] == before
    assert rig.prompts(told) == ["frame", "execute", "execute"]
    assert rig.kinds(told).count("intent") == 1


async def test_killed_while_tracing_and_reflecting(rig: Rig) -> None:
    rig.start()
    trace = {"trace": {"phase": "EXECUTE", "cause": "c", "fix": "f"}}
    reflect = {"reflect": {"lesson": "l"}}
    lines = script(FRAME, DONE, slow(trace), COUNT, DONE, slow(reflect))
    told = await rig.send(order(lines, effort=Effort.EXTENDED))
    for key in ("trace", "reflect"):
        await rig.until(key, lambda key=key: asked(key)(rig, told))
        rig.kill()
        rig.start()
    outcome = await rig.ended(told)
    assert (outcome.status, outcome.rounds) == (Status.COMPLETED, 2)
    assert rig.prompts(told).count("trace") == 1
    assert rig.prompts(told).count("reflect") == 1


async def test_an_interrupted_call_is_told_to_the_model_as_unknown(rig: Rig) -> None:
    rig.start()
    told = await rig.send(order(script(FRAME, SLOW_COUNT, DONE)))
    await rig.until("the intent", lambda: holds("intent")(rig, told))
    rig.kill()
    rig.start()
    await rig.ended(told)
    (result,) = [r for r in rig.journal(told) if r["kind"] == "result" and r["name"] == "shell"]
    assert not result["ok"]
    assert result["text"].startswith("UNKNOWN")


async def test_at_an_elevated_level_an_interrupted_call_stops_the_task(rig: Rig) -> None:
    rig.start("infra")
    told = await rig.send(order(script(FRAME, SLOW_COUNT, DONE), agent="infra", level=2))
    await rig.until("the intent", lambda: holds("intent")(rig, told))
    rig.kill("infra")
    rig.start("infra")
    outcome = await rig.ended(told)
    assert outcome.status is Status.FAILED
    assert "a person must look" in (outcome.error or "")


async def test_a_journal_with_an_end_is_published_again_with_the_new_epoch(rig: Rig) -> None:
    rig.start()
    told = await rig.send(order(script(FRAME, COUNT, DONE)))
    first = await rig.ended(told)
    calls = rig.model_calls()
    await rig.send(told.model_copy(update={"epoch": 7, "delivery": 2}))
    again = await rig.ended(told, count=2)
    assert again == first.model_copy(update={"epoch": 7})
    assert rig.model_calls() == calls


async def test_a_torn_journal_goes_on_and_a_damaged_one_fails_aloud(rig: Rig) -> None:
    rig.start()
    told = await rig.send(order(script(FRAME, slow(COUNT), DONE)))
    await rig.until("the moment", lambda: asked("execute")(rig, told))
    rig.kill()
    path = rig.folder(told) / JOURNAL
    with path.open("ab") as file:
        file.write(b'{"kind": "reply", "purp')
    rig.start()
    assert (await rig.ended(told)).status is Status.COMPLETED
    path.write_bytes(b"garbage\n" + path.read_bytes())
    await rig.send(told.model_copy(update={"epoch": 2}))
    outcome = await rig.ended(told, count=2)
    assert outcome.status is Status.FAILED
    assert "line 1 is damaged" in (outcome.error or "")
