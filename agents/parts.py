"""What one agent process is made of; `__main__` puts it together once."""

from __future__ import annotations

from dataclasses import dataclass

from agents.feed import Feed
from agents.hook_calls import Hooked
from agents.mcp_tools import Mcp
from agents.notes import Notes
from agents.reins import Reins
from agents.transcript import Transcript
from base.bus import Bus
from base.levels import Levels
from base.limit import Limiter
from base.llm import LLM
from base.messages import Effort, Event, Kind
from base.prices import AGENT_PURPOSES, Models
from base.roster import AgentSpec, Roster
from base.settings import Settings
from pai.telos import Telos


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """`spec` is this agent's entry of `roster`."""

    settings: Settings
    bus: Bus
    llm: LLM
    models: Models
    roster: Roster
    spec: AgentSpec
    transcript: Transcript
    feed: Feed
    reins: Reins
    notes: Notes
    levels: Levels
    limiter: Limiter
    mcp: Mcp
    hooked: Hooked
    telos: Telos

    def model(self, effort: Effort | str, purpose: str) -> str:
        """The model for `purpose`: the agent's own for its own work, else as models.toml says."""
        if self.spec.model and purpose in AGENT_PURPOSES:
            return self.spec.model
        return self.models.pick(self.spec.name, effort, purpose)

    def emit(self, kind: Kind, **data: object) -> None:
        """Tell the live view something about the running task (or the agent, when idle)."""
        task = self.reins.task
        event = Event(kind=kind, agent=self.spec.name, data=data)
        if task is not None:
            order = task.order
            event = event.model_copy(
                update={
                    "user_id": order.user_id,
                    "conversation_id": order.conversation_id,
                    "root_id": order.root_id,
                    "task_id": order.task_id,
                }
            )
        self.feed.put(event)
