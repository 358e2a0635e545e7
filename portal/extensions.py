"""What the owner added to the system, as it stands: agents, hooks, MCP servers."""

from __future__ import annotations

import asyncio

from base import roster
from base.errors import SettingsError
from base.messages import Wire
from base.prices import Models
from base.redact import redact
from base.settings import Settings
from pai.hooks import Hooks
from portal import cli_mcp
from portal.auth import Caller, admin_only
from portal.desk import Desk


class Seat(Wire):
    """An agent as it is configured. model: what its own work is done with, "" when models.toml is
    faulty; path: the owner's file, which is laid over the shipped one where there is one; own:
    whether it is there.
    """

    name: str
    title: str
    level: int | str
    model: str
    daily_usd: float
    tools: int
    path: str
    own: bool
    shipped: bool


class Hook(Wire):
    """limit_s None: as `hook_s` says; trusted: it runs outside the sandbox."""

    event: str
    matcher: str
    command: str
    limit_s: float | None
    trusted: bool
    place: str


class McpServer(Wire):
    """An MCP server, or a fault of mcp.toml, as `ai-infra doctor` says it."""

    name: str
    ok: bool
    detail: str
    mend: str


class Extensions(Wire):
    """`config`: the folder that all of it lies in."""

    config: str
    agents: list[Seat]
    agent_faults: list[str]
    hooks: list[Hook]
    hooks_path: str
    hook_faults: list[str]
    servers: list[McpServer]


async def extensions(desk: Desk, caller: Caller) -> Extensions:
    """Read anew; nothing is started or called."""
    admin_only(caller)
    return await asyncio.to_thread(_found, desk.settings)


def _found(settings: Settings) -> Extensions:
    known = roster.load(settings)
    try:
        models: Models | None = Models.load(settings)
    except SettingsError:
        models = None
    faults: list[str] = []
    hooks = Hooks(settings.config, faults.append)
    return Extensions(
        config=str(settings.config),
        agents=[
            _seat(spec, models, settings) for spec in (known.supervisor, *known.agents.values())
        ],
        agent_faults=list(known.faults),
        hooks=[
            Hook(
                event=one.event.value,
                matcher=one.matcher,
                command=redact(one.command),
                limit_s=one.limit_s,
                trusted=one.trusted,
                place=one.place,
            )
            for one in hooks.due_any()
        ],
        hooks_path=str(hooks.path),
        hook_faults=[redact(fault).removeprefix("hooks: ") for fault in faults],
        servers=[McpServer(**row) for row in cli_mcp.rows(settings)],
    )


def _seat(spec: roster.AgentSpec, models: Models | None, settings: Settings) -> Seat:
    path = settings.config / "agents" / f"{spec.name}.toml"
    purpose = "plan" if spec.name == roster.SUPERVISOR else "execute"
    picked = models.pick(spec.name, "standard", purpose) if models else ""
    return Seat(
        name=spec.name,
        title=spec.title,
        level=spec.level,
        model=spec.model or picked,
        daily_usd=spec.daily_usd,
        tools=len(spec.tools),
        path=str(path),
        own=path.is_file(),
        shipped=(roster.SHIPPED / path.name).is_file(),
    )
