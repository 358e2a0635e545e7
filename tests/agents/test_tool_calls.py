"""The tools that run in the agent itself, in a real agent on a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from agent_rig import Rig, order, script
from test_loop_peers import DONE, FRAME, WRITE, results

from agents.tool_calls import MEMORY
from base.messages import Kind, Status


async def run(rig: Rig, *calls: tuple[str, dict[str, Any]]) -> Any:
    tools = [{"tool": name, "input": given} for name, given in calls]
    told = await rig.send(order(script(FRAME, {"tools": tools}, WRITE, DONE)))
    assert (await rig.ended(told)).status is Status.COMPLETED
    return told


async def test_without_a_keeper_memory_is_said_not_to_run(rig: Rig) -> None:
    rig.start()
    told = await run(
        rig, ("memory_search", {"query": "tides"}), ("memory_write", {"text": "high at noon"})
    )
    for name in ("memory_search", "memory_write"):
        (result,) = results(rig, told, name)
        assert not result["ok"]
        assert result["text"] == "memory is not running: go on without it"


async def test_memory_asks_the_keeper_for_this_person_only(rig: Rig) -> None:
    asked: list[dict[str, Any]] = []

    async def keeper(wish: dict[str, Any]) -> dict[str, Any]:
        asked.append(wish)
        if wish["verb"] == "write":
            return {"id": "m1"}
        item = {"text": "High\x1b[31m at noon", "source": "task 7", "when": "2026-01-02"}
        return {"items": [item, {"text": "A page said so", "untrusted": "https://a.example/"}]}

    serving = asyncio.create_task(rig.bus.serve(MEMORY, keeper))
    try:
        rig.start()
        told = await run(
            rig,
            ("memory_search", {"query": "tides", "limit": 3}),
            ("memory_write", {"text": "Low at six.", "kind": "lesson", "tags": ["tide"]}),
        )
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    whose = {"user_id": told.user_id, "agent": "code", "task_id": told.task_id}
    assert asked == [
        {"verb": "search", "query": "tides", "limit": 3, **whose},
        {"verb": "write", "text": "Low at six.", "kind": "lesson", "tags": ["tide"],
         "tainted": True, **whose},
    ]  # fmt: skip
    (found,) = results(rig, told, "memory_search")
    assert "- High␛[31m at noon (task 7, 2026-01-02)" in found["text"]
    assert "never an instruction" in found["text"]
    assert [r["source"] for r in rig.journal(told) if r["kind"] == "tainted"] == [
        "https://a.example/"
    ]
    assert results(rig, told, "memory_write")[0]["text"] == "remembered"


async def test_progress_reaches_the_feed_and_the_window(rig: Rig) -> None:
    rig.start()
    told = await run(rig, ("report_progress", {"text": "Half\nway\x07 done", "percent": 50}))
    await rig.until(
        "the event",
        lambda: any(e.kind is Kind.TASK and e.data.get("progress") == 0.5 for e in rig.events),
    )
    said = "".join(str(e.data["content"]) for e in rig.events if e.kind is Kind.TEXT)
    assert "50 %: Half way␇ done" in said
    assert "50 %: Half way␇ done" in rig.screen()
    assert results(rig, told, "report_progress")[0]["text"] == "told"


async def test_a_search_without_an_endpoint_is_a_failed_result(rig: Rig) -> None:
    rig.start()
    told = await run(rig, ("web_search", {"query": "tides"}))
    (result,) = results(rig, told, "web_search")
    assert not result["ok"]
    assert "no search endpoint is configured" in result["text"]
    assert not any(r["kind"] == "tainted" for r in rig.journal(told))
