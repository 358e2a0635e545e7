"""What runs of a local installation, as its tmux servers and its watchdog tell it."""

from __future__ import annotations

import asyncio
from typing import Any

import psutil

from base import streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import BusError, NoAnswerError
from base.settings import Settings
from supervisor import layout, units
from supervisor.windows import Pane, Presence, Windows

ASK_S = 2.0


async def report(settings: Settings) -> dict[str, Any]:
    """state: up (all of it runs), partial, down (nothing runs) or unknown (tmux is silent)."""
    kinds = {
        "services": (layout.services_session(settings), layout.services(settings)),
        "windows": (layout.agents_session(settings), layout.agents(settings)),
    }
    known = await ask_windows(settings)
    found: dict[str, Any] = {
        "home": str(settings.home),
        "state": "down",
        "portal": settings.address
        if settings.appliance
        else f"http://{settings.host}:{settings.port}",
        "model": "rehearsal" if settings.rehearsal else "provider",
        "watchdog": known is not None,
    }
    running, silent = [], False
    for kind, (session, programs) in kinds.items():
        if kind == "services" and settings.appliance:
            rows, reached = await asyncio.to_thread(units.rows), True
        else:
            names = [program.name for program in programs]
            rows, reached = await _rows(session, names, known or {})
        found[kind] = rows
        silent = silent or not reached
        running += [row["state"] == "running" for row in rows.values()]
    if silent:
        found["state"] = "unknown"
    elif all(running):
        found["state"] = "up"
    elif any(running):
        found["state"] = "partial"
    return found


def table(found: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"{found['home']}: {found['state']}   {found['portal']}   model {found['model']}"]
    for kind in ("services", "windows"):
        for name, row in found[kind].items():
            pid, mb = row["pid"] or "-", round((row["rss_bytes"] or 0) / 2**20)
            lines.append(f"  {name:<12} {row['state']:<9} pid {pid!s:<8} {mb:>4} MB")
    return "\n".join(lines)


async def ask_windows(settings: Settings) -> dict[str, Any] | None:
    """The watchdog's own view; None when it does not answer."""
    return await _ask(settings, {"verb": "windows"})


async def ask_restart(settings: Settings, name: str) -> None:
    """Have the watchdog start a window's program anew; nothing happens without a watchdog."""
    await _ask(settings, {"verb": "restart", "agent": name})


def memory_answers(settings: Settings, _pid: int = 0) -> bool:
    """Whether the keeper of memory answers."""
    payload = {"verb": "stats", "user_id": None}
    return asyncio.run(_ask(settings, payload, streams.SERVICE_MEMORY)) is not None


def embeds(settings: Settings, _pid: int = 0) -> bool:
    """Whether a worker embeds: its model is loaded and warm."""
    found = asyncio.run(_ask(settings, {"verb": "info"}, streams.SERVICE_EMBED))
    return bool(found and found.get("ready"))


async def _ask(
    settings: Settings, payload: dict[str, Any], name: str = streams.SERVICE_WATCH
) -> dict[str, Any] | None:
    if settings.redis_url is None and not settings.redis_socket.exists():
        return None
    bus = Bus(settings.redis, "status")
    try:
        return await bus.ask(name, payload, deadline=Deadline.after(ASK_S))
    except (BusError, NoAnswerError):
        return None
    finally:
        await bus.close()


async def _rows(
    session: Windows, names: list[str], known: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], bool]:
    sight = await session.look()
    rows = {}
    for name in names:
        pane = sight.panes.get(name)
        state = known.get(name, {}).get("state") or "running"
        if pane is None or pane.dead:
            state = state if name in known and state != "running" else "stopped"
        rows[name] = {
            "state": state,
            "pid": None if pane is None or pane.dead else pane.pid,
            "exit_code": pane.exit_code if pane else None,
            "restarts": known.get(name, {}).get("restarts", 0),
            "rss_bytes": _rss_bytes(pane),
        }
    return rows, sight.presence is not Presence.UNKNOWN


def _rss_bytes(pane: Pane | None) -> int | None:
    if pane is None or pane.dead:
        return None
    try:
        return int(psutil.Process(pane.pid).memory_info().rss)
    except psutil.Error:
        return None
