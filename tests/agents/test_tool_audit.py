"""Every tool call is written down once, before its result is used; the rate and the level hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from agent_rig import Rig, order, script
from test_escalate import DONE, FRAME, WRITE, command, equip, results, shell

from agents import tool_audit
from agents.tools import TOOLS
from base import streams
from base.bus import Bus
from base.errors import BusError
from base.messages import Control, Status

SECRET = "sk-ant-api03-abcdefghijklmnop1234"


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("shell", {"command": f"curl -H 'x: {SECRET}' h"}, ("command", "curl -H 'x: [secret]' h")),
        ("shell", {"command": "a\n" * 600}, ("command", ("a " * 600).strip()[:499] + "…")),
        ("write", {"path": "a", "content": "text"}, ("file", "a")),
        ("grep", {"pattern": "p"}, ("file", ".")),
        ("patch", {"patch": "*** Begin Patch\n*** Add File: n\n+text\n"}, ("file", "n")),
        ("patch", {"patch": "--- a/f\n+++ b/f\n+++ text\n"}, ("file", "b/f")),
        ("git", {"verb": "push", "url": "https://u:p@h.example/x"},
         ("command", "git push h.example:443")),
        ("sql", {"query": "SELECT 'text'", "database": "postgresql://u:pw@db/x"},
         ("command", "sql on db:5432")),
        ("web_fetch", {"url": "https://h.example/p?q=text"}, ("endpoint", "h.example:443")),
        ("ask_peer", {"agent": "data", "question": "text"}, ("service", "ask_peer data")),
        ("request_permission", {"kind": "domain", "host": "h.example"}, ("endpoint", "h.example")),
        ("mcp__x__y", {"path": "text"}, ("service", "mcp__x__y")),
    ],
)  # fmt: skip
def test_what_is_written_down_is_no_content(
    name: str, given: dict[str, Any], told: tuple[str, str]
) -> None:
    assert tool_audit.resource(name, given) == told


async def test_each_call_ends_in_one_event_and_none_is_left_out(rig: Rig) -> None:
    equip(rig)
    rig.start()
    lines = [
        {"tools": [shell("echo hi"), shell("exit 3")]},
        {"tool": "sql", "input": {"query": "SELECT 1"}},
        {"tool": "dance", "input": {}},
        {"tool": "write", "input": {"path": 5}},
        {"tool": "trace", "input": {"phase": "PLAN"}},
        {"tool": "ask_peer", "input": {"agent": "nobody", "question": "q"}},
    ]
    told = await rig.send(order(script(FRAME, *lines, WRITE, DONE)))
    assert (await rig.ended(told)).status is Status.COMPLETED
    events = rig.audited(told)
    got = Counter((one.details["tool"], one.outcome) for one in events)
    assert got == Counter(
        {
            ("shell", "success"): 1,
            ("shell", "failure"): 1,
            ("sql", "denied"): 1,
            ("dance", "failure"): 1,
            ("write", "failure"): 1,
            ("trace", "failure"): 1,
            ("ask_peer", "failure"): 1,
            ("write", "success"): 1,
            ("probe", "success"): 1,
        }
    )
    assert len({one.id for one in events}) == len(rig.audit)
    assert {one.actor_id for one in events} == {"code"}
    assert {one.details["user_id"] for one in events} == {"u1"}


async def test_an_interrupted_call_is_one_event(rig: Rig) -> None:
    equip(rig)
    rig.start()
    told = await rig.send(order(script(FRAME, shell("touch seen; sleep 3"), WRITE, DONE)))
    await rig.until("it runs", (rig.workspace() / "seen").exists)
    rig.kill()
    rig.start()
    await rig.ended(told)
    (event,) = [one for one in rig.audited(told) if one.details["tool"] == "shell"]
    assert event.details["reason"] == "unknown: interrupted while it ran"
    again = await rig.send(order(script(FRAME, shell("touch two; sleep 9"), WRITE, DONE)))
    await rig.until("it runs", (rig.workspace() / "two").exists)
    await rig.control(Control(verb="cancel", task_id=again.task_id))
    await rig.ended(again)
    (event,) = [one for one in rig.audited(again) if one.details["tool"] == "shell"]
    assert (event.outcome, event.details["reason"]) == ("failure", "the task was cancelled")


async def test_an_elevated_call_is_written_down_before_it_runs(rig: Rig) -> None:
    equip(rig, ["shell", "write"], "infra")
    rig.start("infra")
    told = await rig.send(order(script(FRAME, shell("true"), WRITE, DONE), agent="infra", level=2))
    await rig.ended(told)
    before = [one.details["tool"] for one in rig.audited(told, "begin")]
    assert before == ["shell", "write"]
    assert [one.details["tool"] for one in rig.audited(told)] == ["shell", "write", "probe"]


async def test_an_event_waits_for_redis_and_what_comes_first_refuses(
    redis_url: str, short_tmp: Path
) -> None:
    bus = await Bus.open(redis_url, "code")
    parts: Any = SimpleNamespace(bus=bus, spec=SimpleNamespace(name="code"))
    task: Any = SimpleNamespace(
        order=order("x"), known=TOOLS, level=SimpleNamespace(rank=2), workspace=short_tmp
    )
    call = {"id": "c1", "name": "shell", "input": {"command": "true"}}
    await bus.call(("SET", streams.AUDIT, "no stream"))
    ending = asyncio.create_task(tool_audit.ended(parts, task, call, "success"), name="ended")
    with pytest.raises(BusError):
        await tool_audit.before(parts, task, call, 2)
    await asyncio.sleep(0.2)
    assert not ending.done()
    await bus.call(("DEL", streams.AUDIT))
    await asyncio.wait_for(ending, 20)
    assert await bus.depth(streams.AUDIT) == 1
    await bus.close()


async def test_more_calls_than_the_rate_wait_and_can_be_cancelled(rig: Rig) -> None:
    equip(rig)
    (rig.home / "config" / "limits.toml").write_text('[agents]\ntool_calls = "3/6second"\n')
    rig.start()
    told = await rig.send(order(script(FRAME, *[shell("echo x >> n")] * 4, WRITE, DONE)))
    assert (await rig.ended(told)).status is Status.COMPLETED
    assert (rig.workspace() / "n").read_text() == "x\n" * 4
    assert "waiting: 3/6second calls are allowed" in rig.screen()
    (rig.home / "config" / "limits.toml").write_text('[agents]\ntool_calls = "1/hour"\n')
    rig.kill()
    rig.start()
    again = await rig.send(order(script(FRAME, *[shell("true")] * 4, WRITE, DONE)))
    await rig.until("it waits", lambda: "waiting: 1/hour" in rig.screen())
    await rig.control(Control(verb="cancel", task_id=again.task_id))
    assert (await rig.ended(again)).status is Status.CANCELLED


async def test_a_task_never_works_above_its_orders_level(rig: Rig) -> None:
    equip(rig, ["shell", "write", "request_permission"], "infra")
    rig.start("infra")
    told = await rig.send(
        order(script(FRAME, command("true", level=1), WRITE, DONE), agent="infra", level=1)
    )
    await rig.ended(told)
    (result,) = results(rig, told)
    assert "your level is 1 already" in result["text"]
    assert rig.audited(told, "begin") == []
    assert {one.details["level"] for one in rig.audited(told)} == {1}


async def test_a_question_is_answered_at_the_least_level(rig: Rig) -> None:
    rig.start("infra")
    equip(rig)
    rig.start()
    ask = {"tool": "ask_peer", "input": {"agent": "infra", "question": "q"}}
    told = await rig.send(order(script(FRAME, ask, WRITE, DONE), level=1))
    await rig.ended(told)
    (result,) = results(rig, told, "ask_peer")
    assert result["ok"]
