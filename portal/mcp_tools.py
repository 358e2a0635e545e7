"""The tools of our MCP server. Beside `agents/mcp_client.py` the one file that knows the `mcp`
package, which is large: import it only once somebody asks, and in a thread.

Who asks was found out at the door (`portal/mcp_route.py`) and comes with each request; what they
may see and do is what REST lets them, since the tools call the same functions.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.types import ToolAnnotations
from pydantic import Field

from base.errors import AIError
from base.messages import Effort, Event, Kind, answer_id
from base.plural import counted
from portal import crew, memory, talk, work
from portal.api.openapi import VERSION
from portal.auth import Caller
from portal.desk import Desk
from portal.door import desk_of
from portal.feed import Listener
from portal.mcp_shapes import (
    AgentState,
    Crew,
    Memories,
    PartState,
    Remembered,
    Submitted,
    TaskState,
)
from portal.scopes import allow
from portal.shapes import MESSAGE_MAX_CHARS, WORKSPACE, Filters, Search, Send

INSTRUCTIONS = (
    "A team of agents with a server of their own. Hand work over with submit_task, wait for its "
    "answer with follow_task, and look at what they remember with search_memory. Tasks survive "
    "restarts and go on while nobody follows them."
)
WAIT_MAX_S = 600
#: How often a quiet task is looked at in the record, and said to be still at work.
LOOK_S = 10.0
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
TOLD = frozenset({Kind.TASK, Kind.PLAN, Kind.TOOL, Kind.CRITERION, Kind.APPROVAL})

TaskId = Annotated[str, Field(description="The id that submit_task gave.")]

#: The package logs what clients send.
for name in ("client", "server", "mcp", "mcp_types"):
    logging.getLogger(name).setLevel(logging.CRITICAL)


def sessions() -> StreamableHTTPSessionManager:
    """The server behind `/mcp`: stateless, so that every request shows its token anew, and a
    restart of the portal ends nobody's session. Progress comes in the answer's own stream.
    """
    server: MCPServer[Any] = MCPServer(
        name="ai-infra",
        title="AI Infrastructure",
        instructions=INSTRUCTIONS,
        version=VERSION,
        subscriptions=False,
    )
    server.add_tool(submit_task, title="Give the agents a task")
    server.add_tool(follow_task, title="Wait for a task", annotations=READS)
    server.add_tool(get_task, title="Look at a task", annotations=READS)
    server.add_tool(cancel_task, title="Stop a task")
    server.add_tool(search_memory, title="Search the memory", annotations=READS)
    server.add_tool(list_agents, title="List the agents", annotations=READS)
    server.streamable_http_app(stateless_http=True)
    return server.session_manager


async def submit_task(
    ctx: Context[Any, Any],
    task: Annotated[
        str, Field(description="What to do, in full.", min_length=1, max_length=MESSAGE_MAX_CHARS)
    ],
    conversation_id: Annotated[
        str | None, Field(description="Go on in this conversation; left out: a new one.")
    ] = None,
    effort: Annotated[
        Effort | None, Field(description="How thorough; left out: the supervisor decides.")
    ] = None,
    agent: Annotated[
        str | None, Field(description="One agent instead of a plan; see list_agents.")
    ] = None,
    workspace: Annotated[
        str, Field(description="The folder to work in.", pattern=WORKSPACE)
    ] = "main",
    idempotency_key: Annotated[
        str | None,
        Field(
            description="Anything unique: the same again gives the same task.",
            min_length=1,
            max_length=200,
        ),
    ] = None,
) -> Submitted:
    """Give the agents something to do. It is recorded before this returns and will be done whatever
    crashes; follow_task gives the answer.
    """
    with Telling():
        desk, caller = _asking(ctx, "tasks:write")
        send = Send(content=task, effort=effort, agent=agent, workspace=workspace, priority=5)
        if conversation_id is None:
            key = f"{idempotency_key} conversation" if idempotency_key else None
            made = await talk.create(desk, caller, None, key=key)
            conversation_id = made.id
        accepted = await talk.send(desk, caller, conversation_id, send, key=idempotency_key)
        return Submitted(
            task_id=accepted.task_id,
            conversation_id=accepted.conversation_id,
            message_id=accepted.message_id,
        )


async def follow_task(
    ctx: Context[Any, Any],
    task_id: TaskId,
    wait_s: Annotated[
        float, Field(description="How long to wait at most.", ge=0, le=WAIT_MAX_S)
    ] = 120.0,
) -> TaskState:
    """Wait until a task has ended, or `wait_s` are over, and tell where it stands then; progress is
    told meanwhile. When `ended` is false, call it again: the task goes on by itself.
    """
    with Telling():
        desk, caller = _asking(ctx, "tasks:read")
        with desk.feed.listen(caller.user_id) as listener:
            until_s = time.monotonic() + wait_s
            found = await _state(desk, caller, task_id)
            steps = 0
            while not found.ended and (left_s := until_s - time.monotonic()) > 0:
                event = await _next(listener, found.task_id, min(left_s, LOOK_S))
                if listener.closed:
                    break
                steps += 1
                said = _words(event) if event is not None else f"still {found.status.value}"
                await ctx.report_progress(steps, message=said)
                if event is None or event.kind in {Kind.TASK, Kind.APPROVAL}:
                    found = await _state(desk, caller, task_id)
        return found


async def get_task(ctx: Context[Any, Any], task_id: TaskId) -> TaskState:
    """Where a task stands now, and its answer if it has ended."""
    with Telling():
        desk, caller = _asking(ctx, "tasks:read")
        return await _state(desk, caller, task_id)


async def cancel_task(ctx: Context[Any, Any], task_id: TaskId) -> TaskState:
    """Stop a task, with everything that the agents do for it."""
    with Telling():
        desk, caller = _asking(ctx, "tasks:write")
        await work.cancel(desk, caller, task_id)
        return await _state(desk, caller, task_id)


async def search_memory(
    ctx: Context[Any, Any],
    query: Annotated[str, Field(description="What to look for, in words.", min_length=1)],
    limit: Annotated[int, Field(ge=1, le=50)] = 8,
    agent: Annotated[str | None, Field(description="Only what this agent noted.")] = None,
) -> Memories:
    """What was learned and said in earlier tasks, best first. It is material to judge."""
    with Telling():
        desk, caller = _asking(ctx, "memory:read")
        asked = Search(
            query=query,
            limit=limit,
            filters=Filters(agent=agent),
            neighbours=0,
            budget_tokens=None,
        )
        found = await memory.search(desk, caller, asked)
        return Memories(
            memories=[
                Remembered(
                    text=item.memory.text,
                    score=item.score,
                    kind=item.memory.kind,
                    agent=item.memory.agent,
                    said_at=item.memory.created_at,
                    tainted=item.memory.tainted,
                )
                for item in found.items
            ]
        )


async def list_agents(ctx: Context[Any, Any]) -> Crew:
    """Who works here, what each is good at, and whether it is busy."""
    with Telling():
        desk, caller = _asking(ctx, "agents:read")
        found = await crew.agents(desk, caller)
        return Crew(
            agents=[
                AgentState(**one.model_dump(include=set(AgentState.model_fields))) for one in found
            ]
        )


class Telling:
    """Our errors, and pydantic's about a field, become the tool's answer for the model to read."""

    def __enter__(self) -> None:
        """Nothing to open."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AIError | ValueError):
            raise ToolError(str(error)) from error


def _asking(ctx: Context[Any, Any], scope: str) -> tuple[Desk, Caller]:
    """The desk and the one who asks. Raises ForbiddenError when their token has not `scope`."""
    request: Any = ctx.request_context.request  # the one that the door let in
    caller: Caller = request.state.caller
    allow(caller, scope)
    return desk_of(request), caller


async def _state(desk: Desk, caller: Caller, task_id: str) -> TaskState:
    whole = await work.task_whole(desk, caller, task_id)
    task = whole.task
    answer = await desk.store.fetchval(
        "SELECT content FROM messages WHERE id = $1", answer_id(task.root_id or task.id)
    )
    return TaskState(
        task_id=task.id,
        conversation_id=task.conversation_id,
        title=task.title,
        status=task.status,
        ended=task.status.ended,
        answer=answer if task.status.ended else None,
        error=task.error,
        parts=[
            PartState(
                agent=part.assigned_agent,
                title=part.title,
                status=part.status,
                phase=part.pai_phase,
            )
            for part in whole.subtasks
        ],
        waits_for=[one.sentence for one in whole.approvals],
        cost_usd=float((task.usage or {}).get("cost_usd", 0.0)),
        created_at=task.created_at,
        completed_at=task.completed_at,
    )


async def _next(listener: Listener, root_id: str, left_s: float) -> Event | None:
    """The next event of the task that is worth telling; None: nothing came in time."""
    try:
        async with asyncio.timeout(left_s):
            while (item := await listener.get()) is not None:
                event = item[1]
                if root_id in {event.root_id, event.task_id} and event.kind in TOLD:
                    return event
    except TimeoutError:
        pass
    return None


def _words(event: Event) -> str:
    data = event.data
    match event.kind:
        case Kind.PLAN:
            return f"planned {counted(len(data.get('subtasks', ())), 'part')}"
        case Kind.TOOL:
            return f"{event.agent}: {data.get('summary') or data.get('name')}"
        case Kind.CRITERION:
            return f"{event.agent}: {data.get('verdict')}: {data.get('text')}"
        case Kind.APPROVAL:
            return f"{event.agent}: {data.get('status')}: {data.get('sentence')}"
        case _:
            phase = data.get("phase")
            return f"{event.agent}: {data.get('status')}" + (f", {phase}" if phase else "")
