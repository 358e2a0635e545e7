"""Agents, hooks and MCP servers: as they are configured, and where to change them."""

from __future__ import annotations

from html import escape

from nicegui import Client, ui

from base.levels import NAMES
from portal import configuring, extensions
from portal.auth import Caller
from portal.desk import Desk
from portal.pages import parts
from portal.pages.marks import shown
from portal.pages.settings_form import FileForm, Group, Item


async def added(desk: Desk, caller: Caller, client: Client) -> None:
    """The lists; an agent's row opens what is changed most."""
    name = client.request.query_params.get("agent", "")
    if name:
        await _agent(desk, caller, name)
        return
    found = await extensions.extensions(desk, caller)
    _agents(found)
    _servers(found)
    _hooks(found)


def _agents(found: extensions.Extensions) -> None:
    _faults(found.agent_faults)
    rows = [
        {
            "id": one.name,
            "name": f"<b>{escape(one.name)}</b> {shown(escape(one.title))}",
            "level": escape(str(one.level)),
            "model": shown(escape(one.model)),
            "usd": f"{parts.usd(one.daily_usd)} a day",
            "file": parts.pill("yours" if one.own else "as shipped", "good" if one.own else "")
            + f' <span class="mono">agents/{escape(one.name)}.toml</span>',
        }
        for one in found.agents
    ]
    columns = {"name": "Agent", "level": "Level", "model": "Model", "usd": "Budget", "file": "File"}

    def open_one(agent: str) -> None:
        ui.navigate.to(f"/settings/agents?agent={agent}")

    with ui.element("div").classes("panel flush"):
        parts.table(columns, rows, on_row=open_one)
    ui.label(f"Files lie in {found.config}; another one there is another agent.").classes("hint")


async def _agent(desk: Desk, caller: Caller, name: str) -> None:
    found = await configuring.read(desk, caller, f"agents/{name}")
    levels = (await configuring.read(desk, caller, "levels")).values.get("levels", {})
    models = (await configuring.read(desk, caller, "models")).values.get("models", {})
    ui.link("All agents", "/settings/agents")
    ui.label(f"{name}: {found.values.get('title', '')}").classes("lead")
    items = [
        Item(
            at=("level",),
            label="Level",
            kind="choice",
            options={level["rank"]: f"{level['rank']} {key}" for key, level in levels.items()}
            | {key: key for key in levels if key not in NAMES},
            hint="The highest it may work at, where the task's user may too",
        ),
        Item(
            at=("model",),
            label="Model",
            kind="choice",
            options={"": "as Models says"} | {key: key for key in models},
        ),
        Item(at=("daily_usd",), label="Budget of a day", kind="number", unit="USD"),
    ]
    FileForm(desk, caller, found, [Group(title="What is changed most", items=items)]).build()
    ui.link("Prompt, tools and all else, as text", f"/settings/files?file=agents/{name}")


def _servers(found: extensions.Extensions) -> None:
    ui.label("MCP servers").classes("section")
    if not found.servers:
        ui.label("None. Their tools come to the agents that mcp.toml names.").classes("hint")
    else:
        rows = [
            {
                "name": shown(escape(one.name)),
                "state": parts.pill("ok" if one.ok else "faulty", "good" if one.ok else "bad"),
                "detail": shown(escape(one.detail)),
                "mend": "" if one.ok else shown(escape(one.mend)),
            }
            for one in found.servers
        ]
        columns = {"name": "Server", "state": "State", "detail": "What it is", "mend": "To mend it"}
        with ui.element("div").classes("panel flush"):
            parts.table(columns, rows)
    ui.link("Change them in mcp.toml", "/settings/files?file=mcp")


def _hooks(found: extensions.Extensions) -> None:
    ui.label("Hooks").classes("section")
    _faults(found.hook_faults)
    if not found.hooks:
        ui.label("None. Commands of yours at eight moments of the work.").classes("hint")
    else:
        rows = [
            {
                "event": escape(one.event),
                "matcher": shown(escape(one.matcher or "*")),
                "command": f'<code class="mono">{shown(escape(one.command[:300]))}</code>',
                "limit": f"{one.limit_s:g} s" if one.limit_s is not None else "",
                "where": parts.pill("outside the sandbox", "warn")
                if one.trusted
                else "in the sandbox",
            }
            for one in found.hooks
        ]
        columns = {
            "event": "At",
            "matcher": "Of",
            "command": "Runs",
            "limit": "At most",
            "where": "Where",
        }
        with ui.element("div").classes("panel flush"):
            parts.table(columns, rows)
    ui.label(f"They are changed on the server alone: {found.hooks_path}").classes("hint mono")


def _faults(faults: list[str]) -> None:
    if faults:
        with ui.element("div").classes("notice bad").props("role=alert"):
            for fault in faults:
                ui.label(fault)
