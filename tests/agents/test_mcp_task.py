"""An agent at work with an MCP server: the whole way, with real processes."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from agent_rig import Rig, file_criterion, order, script

from base.messages import Status

PLAIN = Path(__file__).parent / "mcp_plain.py"
USED = {"mcp__one__add", "write"}


async def test_the_agent_that_is_named_has_the_tools_and_the_other_has_not(rig: Rig) -> None:
    folder = Path("/var/tmp") / f"mcp-{rig.home.name}"
    folder.mkdir()
    shutil.copy(PLAIN, folder / "plain.py")
    (rig.home / "config").mkdir(exist_ok=True)
    (rig.home / "config" / "mcp.toml").write_text(
        f'[servers.one]\ncommand = ["python3", "{folder}/plain.py"]\nread = ["{folder}"]\n'
        'agents = ["code"]\n[servers.bad]\nagents = ["code"]\n'
    )
    call = {"tool": "mcp__one__add", "input": {"a": 40, "b": 2}}
    wrong = {"tool": "mcp__one__add", "input": {"a": "x"}}
    keep = {"tool": "write", "input": {"path": "a.txt", "content": "42"}}
    request = script(wrong, call, keep, {"say": "It is 42."})
    given = (file_criterion("a.txt"),)
    rig.start("code")
    try:
        with_it = await rig.send(order(request, criteria=given))
        outcome = await rig.ended(with_it)
        rig.start("data")
        without = await rig.send(order(request, agent="data", criteria=given))
        await rig.ended(without)
    finally:
        shutil.rmtree(folder)
    assert outcome.status is Status.COMPLETED, outcome
    results = [r for r in rig.journal(with_it) if r["kind"] == "result" and r["name"] in USED]
    assert [r["ok"] for r in results] == [False, True, True]
    assert "'b' is missing" in results[0]["text"]
    assert "\n42\n" in results[1]["text"]
    assert outcome.tainted
    assert "mcp: " in rig.screen()
    assert "servers.bad: give either" in rig.screen()
    kinds = rig.kinds(with_it)
    assert kinds.count("offered") == 1
    assert "tainted" in kinds
    others = [r for r in rig.journal(without) if r["kind"] == "result" and r["name"] in USED]
    assert [r["ok"] for r in others] == [False, False, True]
    assert "no tool named 'mcp__one__add'" in others[0]["text"]


async def test_nothing_of_the_task_moves_while_a_call_of_a_server_waits(rig: Rig) -> None:
    folder = Path("/var/tmp") / f"mcp-{rig.home.name}"
    folder.mkdir()
    shutil.copy(PLAIN, folder / "plain.py")
    (rig.home / "config").mkdir(exist_ok=True)
    (rig.home / "config" / "mcp.toml").write_text(
        f'[servers.one]\ncommand = ["python3", "{folder}/plain.py"]\nread = ["{folder}"]\n'
        'agents = ["code"]\n[servers.one.tools.add]\nlevel = 2\n'
    )
    loop = "echo > ticks; (while :; do echo >> ticks; sleep 0.05; done) >/dev/null 2>&1 &"
    lines = [
        {"tool": "shell", "input": {"command": loop}},
        {"tool": "mcp__one__add", "input": {"a": 40, "b": 2}},
    ]
    rig.start("code")
    try:
        told = await rig.send(order(script(*lines, {"say": "It is 42."})))
        (asked,) = await rig.until("a request", lambda: rig.clerk.pending)
        assert [one.path for one in asked.request.operands] == [str(rig.workspace())]
        ticks = (rig.workspace() / "ticks").read_bytes()
        await asyncio.sleep(0.5)
        assert (rig.workspace() / "ticks").read_bytes() == ticks
        await rig.decide(True)
        await rig.ended(told)
    finally:
        shutil.rmtree(folder)
    (result,) = [r for r in rig.journal(told) if r["kind"] == "result" and r["name"] in USED]
    assert "\n42\n" in result["text"]
