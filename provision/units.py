"""The units of this machine that the rules list: how each stands, and starting it anew."""

from __future__ import annotations

import os
from typing import Any

from base.errors import ConflictError, ForbiddenError, NotFoundError
from base.terminal import clipped, neutral
from provision.box import Box
from provision.child import Ended, command

LOOK_S = 15.0
RESTART_S = 120.0
SAID_CHARS = 2_000
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
    words = ["show", f"--property={','.join(SHOWN)}", "--", listed(unit, box)]
    ended = await _systemctl(words, box, LOOK_S)
    if not ended.well:
        raise ConflictError(f"systemd did not say how {unit} stands: {_words(ended)}")
    said = dict(line.split("=", 1) for line in ended.said.splitlines() if "=" in line)
    if said.get("LoadState") == "not-found":
        raise NotFoundError(f"there is no unit {unit} on this machine")
    return {"unit": unit} | {name: said.get(key, "") for key, name in SHOWN.items()}


async def restart(unit: str, box: Box) -> dict[str, Any]:
    """Start it anew, and how it stands then. Raises ConflictError with systemd's own words."""
    await status(unit, box)
    ended = await _systemctl(["restart", "--", unit], box, RESTART_S)
    if not ended.well:
        raise ConflictError(f"{unit} did not start again: {_words(ended)}")
    found = await status(unit, box)
    if found["active"] not in {"active", "reloading", "activating"}:
        raise ConflictError(f"{unit} is {found['active']} ({found['result']}) after the restart")
    return found


async def _systemctl(words: list[str], box: Box, deadline_s: float) -> Ended:
    path = os.pathsep.join(map(str, box.programs))
    try:
        return await command(["systemctl", *words], deadline_s=deadline_s, env={"PATH": path})
    except FileNotFoundError as error:
        raise NotFoundError("systemctl is not installed on this machine") from error


def _words(ended: Ended) -> str:
    """What it said, for people."""
    return clipped(neutral(ended.said.strip()), SAID_CHARS)
