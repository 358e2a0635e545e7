"""What the agents' metrics count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prometheus_client import REGISTRY

from base.messages import Event, Kind
from portal.counts import Counts

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def told(status: str, *, at_s: float, task_id: str = "t1", kind: Kind = Kind.TASK) -> Event:
    return Event(
        kind=kind,
        agent="counted",
        root_id="r1",
        task_id=task_id,
        timestamp=NOW + timedelta(seconds=at_s),
        data={"status": status},
    )


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"agent": "counted", **labels}) or 0.0


def test_ends_durations_and_what_is_at_work() -> None:
    counts = Counts()
    for event in (
        told("in_progress", at_s=0),
        told("in_progress", at_s=1),
        told("in_progress", at_s=0, task_id="r1"),
        told("in_progress", at_s=0, task_id="t2"),
    ):
        counts.take(event)
    assert value("agent_active_tasks") == 2
    counts.take(told("completed", at_s=4))
    counts.take(told("failed", at_s=6, task_id="t2"))
    counts.take(told("completed", at_s=9, task_id="r1"))
    assert value("agent_active_tasks") == 0
    assert value("agent_tasks_total", status="success") == 1
    assert value("agent_tasks_total", status="failure") == 1
    assert value("agent_task_duration_seconds_sum", task_type="subtask") == 10
    counts.take(told("in_progress", at_s=20))
    counts.take(told("pending", at_s=21))
    assert value("agent_active_tasks") == 0
    assert value("agent_tasks_total", status="success") == 1
