"""`/mcp` as a client of the protocol sees it: the tools, the progress, and who gets nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from base.messages import Kind
from base.store import Store
from portal import auth
from tests.portal.conftest import Portal, Stage, asked, person
from tests.portal.test_api import problem
from tests.portal.test_memory_api import Keeper, keeper

__all__ = ["keeper"]
TOOLS = {
    "submit_task",
    "follow_task",
    "get_task",
    "cancel_task",
    "search_memory",
    "list_agents",
}


@asynccontextmanager
async def client_of(portal: Portal, token: str, mode: str = "auto") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as over,
        Client(streamable_http_client(f"{portal.url}/mcp", http_client=over), mode=mode) as one,
    ):
        yield one


async def call(one: Client, tool: str, **given: Any) -> dict[str, Any]:
    said = await one.call_tool(tool, given)
    assert not said.is_error, said.content
    assert isinstance(said.structured_content, dict)
    return said.structured_content


async def refusal(one: Client, tool: str, **given: Any) -> str:
    said = await one.call_tool(tool, given)
    assert said.is_error, said.content
    return str(said.content)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_task_from_its_start_to_its_answer(
    portal: Portal, store: Store, stage: Stage, mode: str
) -> None:
    somebody = await person(portal, store)
    async with client_of(portal, somebody.token, mode) as one:
        assert {tool.name for tool in (await one.list_tools()).tools} == TOOLS
        sent = await call(one, "submit_task", task="find the fault", idempotency_key=mode)
        assert sent == await call(one, "submit_task", task="find the fault", idempotency_key=mode)
        task_id = sent["task_id"]
        before = await call(one, "get_task", task_id=task_id)
        assert (before["status"], before["ended"], before["answer"]) == ("pending", False, None)
        soon = await call(one, "follow_task", task_id=task_id, wait_s=0.1)
        assert not soon["ended"]

        told: list[tuple[float, str | None]] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            told.append((done, message))
            if len(told) == 1:
                await stage.tell(task_id, Kind.TASK, status="in_progress", phase="OBSERVE")
            elif len(told) == 2:
                await stage.end(task_id, "It was the disk.")

        async def begins() -> None:
            await asyncio.sleep(0.3)
            await stage.tell(task_id, Kind.TOOL, name="shell", summary="df -h", by="infra")

        starting = asyncio.create_task(begins(), name="begins")
        said = await one.call_tool(
            "follow_task", {"task_id": task_id, "wait_s": 30}, progress_callback=progress
        )
        await starting
        assert not said.is_error, said.content
        assert said.structured_content is not None
        assert said.structured_content["answer"] == "It was the disk."
        assert said.structured_content["status"] == "completed"
        assert told[0][1] == "infra: df -h"
        assert told[1][1] == "supervisor: in_progress, OBSERVE"
        assert [done for done, _ in told] == sorted({done for done, _ in told})


async def test_the_other_tools(portal: Portal, stage: Stage, keeper: Keeper) -> None:
    token = auth.local_token(portal.settings)
    async with client_of(portal, token) as one:
        crew = await call(one, "list_agents")
        assert next(agent["name"] for agent in crew["agents"]) == "supervisor"
        found = await call(one, "search_memory", query="which port?", limit=3)
        assert found["memories"][0]["text"] == "The port is 8000."
        assert keeper.asked[-1]["query"]["user_id"] == auth.ADMIN_ID
        sent = await call(one, "submit_task", task="go on and on")
        await call(one, "cancel_task", task_id=sent["task_id"])
        assert stage.asked[-1] == {"verb": "cancel", "task_id": sent["task_id"]}
        assert "no agent named 'nobody'" in await refusal(
            one, "submit_task", task="x", agent="nobody"
        )
        assert "empty" in await refusal(one, "submit_task", task="  ")
        assert "no conversation" in await refusal(one, "submit_task", task="x", conversation_id="c")
        assert "Error executing tool" in await refusal(one, "follow_task", task_id=1, wait_s=1e9)


async def test_somebody_elses_task_is_none(portal: Portal, store: Store, stage: Stage) -> None:
    owner, other = await person(portal, store), await person(portal, store, role="admin")
    conversation_id, sent = await asked(portal, owner.token)
    async with client_of(portal, other.token) as one:
        for tool in ("get_task", "follow_task", "cancel_task"):
            said = await refusal(one, tool, task_id=sent["task_id"])
            assert f"no task {sent['task_id']}" in said
        said = await refusal(one, "submit_task", task="x", conversation_id=conversation_id)
        assert "no conversation" in said
    assert stage.asked == []


async def test_who_gets_nothing(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    accept = {"Accept": "application/json, text/event-stream"}
    ours = {"Authorization": f"Bearer {somebody.token}"}

    def post(**headers: str) -> httpx.Response:
        return httpx.post(f"{portal.url}/mcp", json=body, headers=accept | headers)

    assert post(**ours).status_code == 200
    for wrong in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic eDp5"}):
        refused = post(**wrong)
        problem(refused, 401)
        assert refused.headers["WWW-Authenticate"] == "Bearer"
    problem(post(**ours, Origin="http://evil.example"), 403)
    assert post(**ours, Origin=portal.url).status_code == 200
    with portal.client() as browser, portal.admin() as admin:
        browser.get(admin.post("/api/auth/links").json()["path"])
        cookie = {"Origin": portal.url}
        problem(browser.post("/mcp", json=body, headers=accept | cookie), 401)
    with portal.client(somebody.token) as one:
        refused = one.get("/mcp")
        problem(refused, 405)
        assert refused.headers["Allow"] == "POST"
        one.post("/api/auth/logout")
    problem(post(**ours), 401)


async def test_a_token_reaches_as_far_as_its_scopes(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    with portal.client(somebody.token) as client:
        asking = {"name": "x", "scopes": ["agents:read", "tasks:read"]}
        token = client.post("/api/tokens", json=asking).json()["token"]
    async with client_of(portal, token) as one:
        assert (await call(one, "list_agents"))["agents"]
        assert "scope tasks:write" in await refusal(one, "submit_task", task="x")
        assert "scope memory:read" in await refusal(one, "search_memory", query="x")
