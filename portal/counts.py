"""The agents' metrics, counted from the live view: agents have no HTTP port to be scraped at."""

from __future__ import annotations

from datetime import datetime

from base import metrics
from base.messages import Event, Kind, Status

TYPE = "subtask"
OPEN_MAX = 10_000


class Counts:
    """Feed it every event once, in order. What began before the portal started has no duration."""

    def __init__(self) -> None:
        self._began: dict[str, tuple[str, datetime]] = {}

    def take(self, event: Event) -> None:
        """Count an end, remember a start; other events and whole requests pass."""
        if event.kind is not Kind.TASK or event.task_id in {None, event.root_id}:
            return
        task_id, status = str(event.task_id), event.data.get("status")
        if status == Status.IN_PROGRESS and len(self._began) < OPEN_MAX:
            self._began.setdefault(task_id, (event.agent, event.timestamp))
        elif status in {Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.PENDING}:
            began = self._began.pop(task_id, None)
            if status in {Status.COMPLETED, Status.FAILED}:
                self._ended(event, began[1] if began else None)
        for agent in {event.agent, *(agent for agent, _ in self._began.values())}:
            active = sum(one == agent for one, _ in self._began.values())
            metrics.agent_active_tasks.labels(agent).set(active)

    def _ended(self, event: Event, began: datetime | None) -> None:
        outcome = "success" if event.data["status"] == Status.COMPLETED else "failure"
        metrics.agent_tasks_total.labels(event.agent, outcome).inc()
        if began is not None:
            took_s = max(0.0, (event.timestamp - began).total_seconds())
            metrics.agent_task_duration_seconds.labels(event.agent, TYPE).observe(took_s)
