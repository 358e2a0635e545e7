"""The appliance's programs as systemd has them: what `up`, `down` and `status` are there."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from base.errors import ForbiddenError, NotRunningError

TARGET = "ai-infrastructure.target"
#: In the order in which they are shown. What a condition keeps from running is left out.
UNITS = {
    "redis": "ai-redis.service",
    "memory": "ai-memory.service",
    "workers": "ai-workers@embed.service",
    "rehearsal": "ai-rehearsal.service",
    "portal": "ai-api.service",
    "tmux": "ai-agents.service",
    "watch": "ai-supervisor.service",
    "broker": "ai-provision.service",
}
_FIELDS = "Id,LoadState,ActiveState,MainPID,ExecMainStatus,NRestarts,MemoryCurrent,Result"
#: What each ActiveState is called elsewhere in the product.
_WORDS = {
    "active": "running",
    "activating": "starting",
    "reloading": "running",
    "deactivating": "stopping",
    "failed": "fatal",
}
#: Workers load their model, the agents come one after the other.
START_S = 300.0


def start() -> None:
    """Start all that does not run. Raises ForbiddenError, NotRunningError naming what failed."""
    _systemctl("start", TARGET)
    _systemctl("start", *(unit for name, unit in UNITS.items() if _wanted(name, rows())))
    failed = [name for name, row in rows().items() if row["state"] == "fatal"]
    if failed:
        words = " ".join(UNITS[name] for name in failed)
        raise NotRunningError(f"did not start: {', '.join(failed)}; see: journalctl -u {words}")


def stop() -> None:
    """Stop all of it, in order. Raises ForbiddenError, NotRunningError."""
    _systemctl("stop", TARGET, *UNITS.values())


def rows() -> dict[str, dict[str, Any]]:
    """Each program's row as `supervisor.status` shows it."""
    line = ["systemctl", "show", "--property", _FIELDS, *UNITS.values()]
    said = _run(line).split("\n\n")
    found: dict[str, dict[str, Any]] = {}
    for name, block in zip(UNITS, said, strict=False):
        fields = dict(part.split("=", 1) for part in block.splitlines() if "=" in part)
        if fields.get("LoadState") != "loaded" or fields.get("Result") == "exec-condition":
            continue
        pid, memory = int(fields.get("MainPID") or 0), fields.get("MemoryCurrent", "")
        found[name] = {
            "state": _WORDS.get(fields.get("ActiveState", ""), "stopped"),
            "pid": pid or None,
            "exit_code": None if pid else int(fields.get("ExecMainStatus") or 0),
            "restarts": int(fields.get("NRestarts") or 0),
            "rss_bytes": int(memory) if memory.isdigit() and len(memory) < 19 else None,
        }
    return found


def _wanted(name: str, found: dict[str, dict[str, Any]]) -> bool:
    return name in found and found[name]["state"] in {"stopped", "fatal"}


def _systemctl(verb: str, *units: str) -> None:
    if not units:
        return
    if os.geteuid() != 0:
        raise ForbiddenError(f"only root can {verb} the appliance's units: sudo ai-infra ...")
    _run(["systemctl", verb, *units])


def _run(line: list[str]) -> str:
    try:
        done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=START_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotRunningError(f"systemd cannot be asked: {error}") from error
    if done.returncode != 0:
        raise NotRunningError(f"{' '.join(line[:2])}: {done.stderr.strip() or done.returncode}")
    return done.stdout
