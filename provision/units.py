"""The units of this machine that the rules list: how each stands, and starting it anew."""

from __future__ import annotations

from typing import Any

from base.errors import ConflictError, ForbiddenError, NotFoundError
from provision.box import Box
from provision.command import run

LOOK_S = 15.0
RESTART_S = 120.0
#: What systemd is asked for, and what it is called in the answer.
SHOWN = {
    "LoadState": "load",
    "ActiveState": "active",
    "SubState": "sub",
    "Description": "description",
    "MainPID": "pid",
    "NRestarts": "restarts",
    "ActiveEnterTimestamp": "since",
    "Result": "result",
}


def listed(unit: str, box: Box) -> str:
    """`unit` itself. Raises ForbiddenError for one that the rules do not list."""
    if unit not in box.units:
        there = ", ".join(box.units) or "none"
        raise ForbiddenError(f"{unit} is not one of the units of the broker's rules: {there}")
    return unit


async def status(unit: str, box: Box) -> dict[str, Any]:
    """How a listed unit stands, in systemd's words. Raises NotFoundError when there is none."""
    asked = ["systemctl", "show", f"--property={','.join(SHOWN)}", "--", listed(unit, box)]
    ended = await run(asked, box, deadline_s=LOOK_S)
    if ended.code != 0:
        raise ConflictError(f"systemd did not say how {unit} stands: {ended.said}")
    said = dict(line.split("=", 1) for line in ended.out.splitlines() if "=" in line)
    if said.get("LoadState") == "not-found":
        raise NotFoundError(f"there is no unit {unit} on this machine")
    return {"unit": unit} | {name: said.get(key, "") for key, name in SHOWN.items()}


async def restart(unit: str, box: Box) -> dict[str, Any]:
    """Start it anew, and how it stands then. Raises ConflictError with systemd's own words."""
    await status(unit, box)
    ended = await run(["systemctl", "restart", "--", unit], box, deadline_s=RESTART_S)
    if ended.code != 0:
        raise ConflictError(f"{unit} did not start again: {ended.said}")
    found = await status(unit, box)
    if found["active"] not in {"active", "reloading", "activating"}:
        raise ConflictError(f"{unit} is {found['active']} ({found['result']}) after the restart")
    return found
