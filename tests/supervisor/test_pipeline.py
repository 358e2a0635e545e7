"""The graph by tables: a row is key, status, dependencies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from base.messages import Status
from supervisor.pipeline import blocked, ended, progress, ready, verdict
from supervisor.tasks import Task

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = {
    "p": Status.PENDING,
    "a": Status.ASSIGNED,
    "i": Status.IN_PROGRESS,
    "w": Status.WAITING,
    "c": Status.COMPLETED,
    "f": Status.FAILED,
    "x": Status.CANCELLED,
}


def graph(*rows: str) -> list[Task]:
    """`key:status:dep,dep:priority`."""
    tasks = []
    for age, row in enumerate(rows):
        key, status, depends, priority = [*row.split(":"), "", ""][:4]
        tasks.append(
            Task(
                id=key,
                key=key,
                root_id="r",
                parent_id="r",
                user_id="u",
                conversation_id="c",
                agent="code",
                status=WORDS[status],
                depends_on=tuple(filter(None, depends.split(","))),
                priority=int(priority or 5),
                created_at=NOW + timedelta(seconds=age),
            )
        )
    return tasks


@pytest.mark.parametrize(
    ("rows", "keys"),
    [
        (["a:p", "b:p", "c:p:a,b"], ["a", "b"]),
        (["a:c", "b:i", "c:p:a,b"], []),
        (["a:c", "b:c", "c:p:a,b"], ["c"]),
        (["a:c", "b:p:a", "c:p:b"], ["b"]),
        (["a:p::2", "b:p::9", "c:p::9"], ["b", "c", "a"]),
        (["a:f", "b:p:a"], []),
        (["a:c", "b:a:a"], []),
    ],
)
def test_ready(rows: list[str], keys: list[str]) -> None:
    assert [task.key for task in ready(graph(*rows))] == keys


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (["a:c", "b:p:a"], {}),
        (["a:f", "b:p:a"], {"b": "needs a, which failed"}),
        (["a:x", "b:p:a"], {"b": "needs a, which was cancelled"}),
        (
            ["c:p:b", "a:f", "b:p:a", "d:p"],
            {"b": "needs a, which failed", "c": "needs b, which was cancelled"},
        ),
        (["a:f", "b:i:a"], {}),
        (["a:f", "b:c", "c:p:a,b"], {"c": "needs a, which failed"}),
    ],
)
def test_blocked(rows: list[str], found: dict[str, str]) -> None:
    assert {task.key: reason for task, reason in blocked(graph(*rows))} == found


@pytest.mark.parametrize(
    ("rows", "over", "status", "share"),
    [
        ([], False, Status.COMPLETED, 0.0),
        (["a:c"], True, Status.COMPLETED, 1.0),
        (["a:c", "b:f"], True, Status.FAILED, 1.0),
        (["a:c", "b:x"], True, Status.FAILED, 1.0),
        (["a:c", "b:i"], False, Status.FAILED, 0.625),
        (["a:c", "b:w"], False, Status.FAILED, 0.5),
        (["a:c", "b:p"], False, Status.FAILED, 0.5),
    ],
)
def test_end(rows: list[str], over: bool, status: Status, share: float) -> None:
    tasks = graph(*rows)
    assert ended(tasks) is over
    assert verdict(tasks) is status
    assert progress(tasks) == share
