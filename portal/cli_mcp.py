"""The lines of `ai-infra doctor` about MCP servers: one a server, one a fault of mcp.toml."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from base import mcp, roster, secrets
from base.errors import AIError
from base.settings import Settings

#: Where a program without a path is looked for inside the sandbox.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def rows(settings: Settings) -> list[dict[str, Any]]:
    """What is wrong with each server before anything is started or called."""
    file = settings.config / "mcp.toml"
    servers = mcp.load(settings, roster.load(settings).agents)
    found = [_row("mcp", False, fault, f"mend {file}") for fault in servers.faults]
    for name, server in sorted(servers.known.items()):
        fault, mend = _fault(server, settings)
        whose = f"for {', '.join(server.agents)} at level {server.level}"
        detail = fault or f"{server.url or server.command[0]} {whose}; not started or called"
        found.append(_row(f"mcp {name}", not fault, detail, mend or f"mend {file}"))
    return found


def _fault(server: mcp.Server, settings: Settings) -> tuple[str, str]:
    """What is missing, and what mends it; empty when nothing is."""
    program = server.command[0] if server.command else ""
    if program and not (shutil.which(program, path=PATH) or program.startswith(".")):
        return f"servers.{server.name}.command: there is no program {program}", ""
    for folder in server.read:
        if not Path(folder).is_dir():
            return f"servers.{server.name}.read: there is no folder {folder}", ""
    for name in server.secrets.values():
        try:
            if secrets.of(settings).get(name) is None:
                told = f"servers.{server.name}.secrets: there is no secret {name!r}"
                return told, f"ai-infra secrets set {name}"
        except AIError as error:
            return f"servers.{server.name}.secrets: {error}", ""
    return "", ""


def _row(name: str, ok: bool, detail: str, mend: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "mend": mend}
