"""A task's life by tables: transitions, leases, deliveries, handoffs, the sweep."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from base.errors import ConflictError, StaleLeaseError
from base.messages import Outcome, Status
from supervisor.tasks import TRANSITIONS, Seen, Task, check, conclude, sweep, take

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
P, A, I, W = Status.PENDING, Status.ASSIGNED, Status.IN_PROGRESS, Status.WAITING  # noqa: E741
C, F, X = Status.COMPLETED, Status.FAILED, Status.CANCELLED
KNOWN = ("code", "data")


def make(status: Status = I, **more: Any) -> Task:
    given: dict[str, Any] = {
        "id": "t",
        "root_id": "r",
        "parent_id": "r",
        "user_id": "u",
        "conversation_id": "c",
        "agent": "code",
        "created_at": NOW,
        "epoch": 3,
        "deliveries": 1,
        "lease_until": NOW + timedelta(seconds=10),
        **more,
    }
    return Task(status=status, **given)


def outcome(**more: Any) -> Outcome:
    given = {"task_id": "t", "root_id": "r", "epoch": 3, "agent": "code", "status": C, **more}
    return Outcome.model_validate(given)


ALLOWED = {
    (P, A), (P, I), (P, F), (P, X),
    (A, P), (A, I), (A, W), (A, C), (A, F), (A, X),
    (I, P), (I, W), (I, C), (I, F), (I, X),
    (W, P), (W, I), (W, C), (W, F), (W, X),
}  # fmt: skip


@pytest.mark.parametrize("before", list(Status))
@pytest.mark.parametrize("after", list(Status))
def test_transitions(before: Status, after: Status) -> None:
    assert (after in TRANSITIONS[before]) is ((before, after) in ALLOWED)
    if (before, after) in ALLOWED:
        check(make(before), after)
    else:
        with pytest.raises(ConflictError, match=f"is {before}; it cannot become {after}"):
            check(make(before), after)


@pytest.mark.parametrize(
    ("task", "epoch", "agent", "why"),
    [
        (make(A), 2, "code", "at epoch 3, not 2"),
        (make(A), 4, "code", "at epoch 3, not 4"),
        (make(A), 3, "data", "is with code, not data"),
        (make(P), 3, "code", "at epoch 3"),
        (make(C), 3, "code", "has ended"),
        (make(X), 3, "code", "has ended"),
        (make(I, cancel_requested=True), 3, "code", "has ended"),
    ],
)
def test_take_refuses(task: Task, epoch: int, agent: str, why: str) -> None:
    with pytest.raises(StaleLeaseError, match=why):
        take(task, epoch, agent)
    with pytest.raises(StaleLeaseError, match=why):
        conclude(task, outcome(epoch=epoch, agent=agent), KNOWN)


@pytest.mark.parametrize(
    ("task", "status", "deliveries", "dead"),
    [
        (make(A, deliveries=1), I, 1, False),
        (make(I, deliveries=1), I, 2, False),
        (make(W, deliveries=2), I, 3, False),
        (make(I, deliveries=3), F, 3, True),
    ],
)
def test_taking_again_counts(task: Task, status: Status, deliveries: int, dead: bool) -> None:
    change = take(task, 3, "code")
    assert (change.status, change.deliveries, change.dead_letter) == (status, deliveries, dead)
    assert change.release is dead


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"status": C}, C, None),
        ({"status": F, "error": "broke"}, F, "broke"),
        ({"status": F}, F, "the agent gave no reason"),
        ({"status": X}, X, None),
        ({"status": W}, W, None),
        ({"status": I}, I, None),
        ({"status": Status.ASSIGNED}, F, "code reported the state assigned, which no outcome has"),
    ],
)
def test_outcomes(fields: dict[str, Any], status: Status, error: str | None) -> None:
    change = conclude(make(I), outcome(**fields), KNOWN)
    assert (change.status, change.error, change.release) == (status, error, False)


@pytest.mark.parametrize("before", [A, I, W])
def test_given_back_is_no_failure(before: Status) -> None:
    change = conclude(make(before, deliveries=3), outcome(status=P), KNOWN)
    assert (change.status, change.deliveries, change.release) == (P, 3, True)
    assert not change.dead_letter


@pytest.mark.parametrize(
    ("to", "handoffs", "agent", "status", "notes"),
    [
        ("data", 0, "data", P, "From code: look here"),
        ("data", 2, "data", P, "From code: look here"),
        ("data", 3, "code", P, "handed over 3 times already"),
        ("data", 4, None, F, None),
        ("nobody", 0, "code", P, "there is no agent named 'nobody'; there are: code, data"),
        ("code", 0, "code", P, "the same agent"),
    ],
)
def test_handoff(to: str, handoffs: int, agent: str | None, status: Status, notes: Any) -> None:
    change = conclude(
        make(I, handoffs=handoffs), outcome(status=W, handoff_to=to, notes="look here"), KNOWN
    )
    assert (change.agent, change.status, change.handoffs) == (
        agent,
        status,
        handoffs + (status is P),
    )
    if notes is not None:
        assert notes in (change.notes or "")
        assert change.release


PAST, AHEAD = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)
ALIVE = Seen(agent="code", status="idle", at=NOW)
BUSY = replace(ALIVE, status="busy", task_id="t", epoch=3)
SILENT = replace(ALIVE, at=NOW - timedelta(seconds=31))
PAUSED = replace(ALIVE, paused=True)
#: With a lease of 60 s and a grace of 15 s: renewed 16 s and 14 s ago.
LONG_AGO, JUST_NOW = NOW + timedelta(seconds=44), NOW + timedelta(seconds=46)


@pytest.mark.parametrize(
    ("task", "seen", "status", "deliveries"),
    [
        (make(A, lease_until=AHEAD), ALIVE, None, 0),
        (make(A, lease_until=PAST), None, P, 1),
        (make(A, lease_until=PAST), SILENT, P, 1),
        (make(A, lease_until=PAST), PAUSED, P, 1),
        (make(A, lease_until=PAST), replace(ALIVE, status="stopping"), P, 1),
        (make(A, lease_until=PAST), ALIVE, P, 2),
        (make(A, lease_until=PAST, deliveries=3), ALIVE, F, 3),
        (make(A, lease_until=PAST, deliveries=3), None, P, 3),
        (make(I, lease_until=AHEAD), BUSY, None, 0),
        (make(I, lease_until=JUST_NOW), ALIVE, None, 0),
        (make(I, lease_until=LONG_AGO), ALIVE, P, 2),
        (make(I, lease_until=LONG_AGO), BUSY, None, 0),
        (make(I, lease_until=LONG_AGO), replace(ALIVE, at=NOW - timedelta(seconds=3)), None, 0),
        (make(I, lease_until=AHEAD), SILENT, None, 0),
        (make(I, lease_until=PAST), BUSY, P, 2),
        (make(I, lease_until=PAST), None, P, 2),
        (make(I, lease_until=PAST, deliveries=3), None, F, 3),
        (make(W, lease_until=PAST), None, P, 2),
        (make(W, lease_until=JUST_NOW), PAUSED, None, 0),
        (make(P, lease_until=None), None, None, 0),
    ],
)
def test_sweep(task: Task, seen: Seen | None, status: Status | None, deliveries: int) -> None:
    known = {} if seen is None else {"code": seen}
    found = sweep([task], known, NOW, silence_s=30, grace_s=15, lease_s=60)
    if status is None:
        assert found == []
        return
    ((_, change),) = found
    assert (change.status, change.deliveries, change.release) == (status, deliveries, True)
    assert change.dead_letter is (status is F)


def test_dead_letter_names_the_last_error() -> None:
    change = take(make(I, deliveries=3, error="code died at work on it"), 3, "code")
    assert change.error == "given up after 3 deliveries: code died at work on it"
