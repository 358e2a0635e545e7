"""What every part of the supervisor holds in common, and the ways they all tell the world."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from base import log, streams
from base.budgets import Budgets
from base.bus import Bus
from base.errors import BusError
from base.levels import PRIVILEGED, Levels
from base.llm import LLM
from base.messages import Control, Event, Kind, Message, Status, Type
from base.policy import Policy
from base.prices import Models
from base.roster import AgentSpec, Roster
from base.settings import Settings
from base.store import Store
from pai.hooks import Hooks
from pai.telos import Telos
from supervisor.slots import Slots
from supervisor.tasks import Seen, Task

NAME = "supervisor"
#: An agent is dead after this many heartbeats missed.
MISSED_BEATS = 3

logger = log.get(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Made once by `loop.main`. `wake` set: something may have become possible.

    What is here besides is only remembered: PostgreSQL has all that must outlive the process.
    `spent` dollars of today by agent; `joins` due; `held_back` subtasks told to wait for budget.
    """

    settings: Settings
    bus: Bus
    store: Store
    llm: LLM
    models: Models
    roster: Roster
    budgets: Budgets
    levels: Levels
    policy: Policy
    tell: Callable[[str], None]
    hooks: Hooks
    telos: Telos
    slots: Slots = field(default_factory=Slots)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    seen: dict[str, Seen] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)
    joins: dict[str, Task] = field(default_factory=dict)
    held_back: set[str] = field(default_factory=set)

    @property
    def agents(self) -> Mapping[str, AgentSpec]:
        return self.roster.agents

    def rank(self, agent: str) -> int:
        """The highest level that agent may work at."""
        return self.levels.get(self.agents[agent].level).rank

    def level(self, agent: str, role: str | None, level_max: int = PRIVILEGED) -> int:
        """The level of work for a user of that `role`, asked for at most at `level_max`."""
        return self.levels.least(self.rank(agent), self.levels.user(role), level_max)

    @property
    def lead(self) -> str:
        """What the supervisor is, in its own prompt, and the owner's goals."""
        own, goals = self.roster.supervisor.prompt.strip(), self.telos.now().text
        return f"{own}\n\n{goals}" if goals else own

    @property
    def silence_s(self) -> float:
        """An agent not heard of for longer is dead."""
        return MISSED_BEATS * self.settings.heartbeat_s

    def barred(self, name: str) -> str | None:
        """Why that agent can be given nothing now; None when it can."""
        seen = self.seen.get(name)
        if seen is None:
            return "has not been heard of"
        if not seen.alive(datetime.now(UTC), self.silence_s):
            return f"is {seen.status}" if seen.status in {"stopping", "error"} else "is not running"
        if seen.paused:
            return "is paused"
        daily_usd = self.agents[name].daily_usd
        if self.spent.get(name, 0.0) >= daily_usd:
            return f"has spent its ${daily_usd:.2f} of today"
        return None

    def spend(self, agent: str, cost_usd: float) -> None:
        """Count what was paid, and say once a day that the warning threshold is passed."""
        before_usd = sum(self.spent.values())
        self.spent[agent] = self.spent.get(agent, 0.0) + cost_usd
        daily = self.budgets.daily
        if before_usd < daily.warning_usd <= before_usd + cost_usd:
            limits = f"${daily.warning_usd:.2f}; work stops at ${daily.hard_limit_usd:.2f}"
            logger.warning("daily budget warning", cost_usd=round(before_usd + cost_usd, 4))
            self.tell(f"today's spending passed {limits}")

    async def emit(self, *events: Event) -> None:
        """Tell the live view. It is a view: when Redis is away, the record still has it all."""
        try:
            await self.bus.emit(*events)
        except BusError as error:
            logger.warning("did not emit", error=str(error))

    async def relay(self) -> None:
        """Send the outbox now. When Redis is away the rows wait for the timer."""
        try:
            while await self.store.relay(self.bus) >= 200:
                pass
        except BusError as error:
            logger.warning("did not relay", error=str(error))

    async def control(self, agent: str, control: Control) -> None:
        """Tell an agent what to do now."""
        await self.bus.publish(
            streams.control(agent),
            Message(
                source=NAME, target=agent, type=Type.QUERY, payload=control.model_dump(mode="json")
            ),
        )


def storable(value: Any) -> Any:
    """JSON data with what PostgreSQL cannot hold replaced: NUL, half a surrogate pair."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {storable(key): storable(one) for key, one in value.items()}
    return [storable(one) for one in value] if isinstance(value, list | tuple) else value


def task_event(task: Task, status: Status, progress: float, **data: Any) -> Event:
    """The `task` event of a root or subtask."""
    shown = {"title": task.title, "status": status, "progress": progress, **data}
    return event(Kind.TASK, task, task.agent, **shown)


def event(kind: Kind, task: Task, speaker: str, /, **data: Any) -> Event:
    """An event about `task`."""
    return Event(
        kind=kind,
        agent=speaker,
        user_id=task.user_id or None,
        conversation_id=task.conversation_id or None,
        root_id=task.root_id,
        task_id=task.id,
        data=data,
    )
