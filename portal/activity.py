"""What the agents do this moment, from the live view, and how the watchdog finds them.

One for a portal: every page looks at the same picture, so that a hundred pages ask no more than
one does.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from base import streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import AIError
from base.messages import Event, Kind, Status

ASK_S = 2.0
#: The watchdog is asked again after so long, or after none came; the last answer stands meanwhile.
KEEP_S, NONE_KEEP_S, OLD_S = 2.0, 5.0, 30.0
#: A queue is compared with what it was about so long ago.
BEFORE_S = 60.0
SIGNS = frozenset({Kind.CHUNK, Kind.TASK, Kind.TEXT, Kind.TOOL, Kind.CRITERION, Kind.APPROVAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """An agent as its own events tell. at: its last sign of work; tool "": none runs now."""

    task_id: str | None = None
    root_id: str | None = None
    at: datetime | None = None
    tool: str = ""
    tool_since: datetime | None = None
    title: str = ""
    progress: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """Messages on an agent's stream now, and about a minute ago (None: nobody looked then)."""

    now: int
    before: int | None


def after(doing: Doing, event: Event) -> Doing:
    """The agent after an event of its own."""
    if event.kind is Kind.AGENT:
        return doing if event.data.get("task_id") else Doing(at=doing.at)
    if event.kind not in SIGNS or event.task_id is None:
        return doing
    if event.task_id != doing.task_id:
        doing = Doing(task_id=event.task_id, root_id=event.root_id)
    doing, data = replace(doing, at=event.timestamp), event.data
    if event.kind is Kind.TOOL:
        if data.get("state") != "started":
            return replace(doing, tool="", tool_since=None)
        tool = f"{data.get('name') or ''} {data.get('summary') or ''}".strip()
        return replace(doing, tool=tool, tool_since=event.timestamp)
    if event.kind is Kind.TASK:
        if data.get("status") in {one.value for one in Status if one.ended}:
            return Doing(at=event.timestamp)
        title = str(data.get("title") or doing.title)
        return replace(doing, title=title, progress=float(data.get("progress") or doing.progress))
    return doing


class Activity:
    """Feed it every event once, in order."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._doing: dict[str, Doing] = {}
        self._lock = asyncio.Lock()
        self._asked_s = float("-inf")
        self._windows: Mapping[str, Any] | None = None
        self._answered_s = float("-inf")
        self._answers = False
        self._depths: deque[tuple[float, dict[str, int]]] = deque()

    def take(self, event: Event) -> None:
        if event.agent:
            self._doing[event.agent] = after(self._doing.get(event.agent, Doing()), event)

    def doing(self, agent: str) -> Doing:
        return self._doing.get(agent, Doing())

    async def windows(self) -> Mapping[str, Any] | None:
        """Each window's state, restarts, load: the watchdog's own view; None: it is silent."""
        async with self._lock:
            keep_s = KEEP_S if self._answers else NONE_KEEP_S
            if time.monotonic() - self._asked_s >= keep_s:
                found = await self._ask()
                self._asked_s = time.monotonic()
                self._answers = found is not None
                if found is not None:
                    self._windows, self._answered_s = found, self._asked_s
            return self._windows if self._asked_s - self._answered_s < OLD_S else None

    async def depths(self, agents: Sequence[str]) -> dict[str, Depth]:
        """How much waits on the agents' streams. Raises BusError."""
        found = await asyncio.gather(*(self._bus.depth(streams.agent(name)) for name in agents))
        now_s, now = time.monotonic(), dict(zip(agents, found, strict=True))
        while len(self._depths) > 1 and now_s - self._depths[1][0] >= BEFORE_S:
            self._depths.popleft()
        at_s, before = self._depths[0] if self._depths else (now_s, {})
        old = before if now_s - at_s >= BEFORE_S else {}
        if not self._depths or now_s - self._depths[-1][0] >= KEEP_S:
            self._depths.append((now_s, now))
        return {name: Depth(now=count, before=old.get(name)) for name, count in now.items()}

    async def _ask(self) -> Mapping[str, Any] | None:
        try:
            if await self._bus.served(streams.SERVICE_WATCH):
                asked = {"verb": "windows"}
                return await self._bus.ask(
                    streams.SERVICE_WATCH, asked, deadline=Deadline.after(ASK_S)
                )
        except AIError:
            pass  # what it would tell is unknown then, and shown as such
        return None
