"""A task's life: states, the one table of allowed transitions, and the rules of leases.

Pure. A lease belongs to (task, epoch, agent): sending a task raises its epoch, every later
write carries it, and one that carries another epoch is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from base.errors import ConflictError, StaleLeaseError
from base.levels import PRIVILEGED
from base.messages import Budget, Effort, Outcome, Status, Usage

MAX_DELIVERIES = 3
MAX_HANDOFFS = 3

#: The only table of transitions. A root goes pending, in_progress, ended; a subtask goes back
#: to pending when its lease is lost or it is handed to another agent.
TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset(
        {Status.ASSIGNED, Status.IN_PROGRESS, Status.FAILED, Status.CANCELLED}
    ),
    Status.ASSIGNED: frozenset(
        {
            Status.IN_PROGRESS,
            Status.PENDING,
            Status.WAITING,
            Status.COMPLETED,
            Status.FAILED,
            Status.CANCELLED,
        }
    ),
    Status.IN_PROGRESS: frozenset(
        {Status.WAITING, Status.PENDING, Status.COMPLETED, Status.FAILED, Status.CANCELLED}
    ),
    Status.WAITING: frozenset(
        {Status.IN_PROGRESS, Status.PENDING, Status.COMPLETED, Status.FAILED, Status.CANCELLED}
    ),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}
#: States in which an agent holds the task and its budget is reserved.
HELD = frozenset({Status.ASSIGNED, Status.IN_PROGRESS, Status.WAITING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One row of `tasks`. `depends_on` holds ids of sibling subtasks; `root_id` of a root is
    its own id; `input` is what the accepting side wrote (root) or the plan's step (subtask).
    """

    id: str
    root_id: str
    user_id: str
    conversation_id: str
    status: Status
    agent: str
    created_at: datetime
    message_id: str | None = None
    parent_id: str | None = None
    key: str = ""
    title: str = ""
    effort: Effort | None = None
    requested_agent: str | None = None
    workspace: str = ""
    priority: int = 5
    epoch: int = 0
    lease_until: datetime | None = None
    deliveries: int = 0
    handoffs: int = 0
    depends_on: tuple[str, ...] = ()
    budget: Budget = field(default_factory=lambda: Budget(tokens=0, usd=0.0))
    usage: Usage = field(default_factory=Usage)
    cancel_requested: bool = False
    input: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] = field(default_factory=dict)
    criteria: tuple[dict[str, Any], ...] = ()
    error: str | None = None

    @property
    def is_root(self) -> bool:
        return self.parent_id is None

    @property
    def instruction(self) -> str:
        return str(self.input.get("instruction") or self.input.get("content") or "")

    @property
    def level_max(self) -> int:
        """The highest level that whoever handed the task on had."""
        return int(self.input.get("level_max", PRIVILEGED))

    @property
    def tainted(self) -> bool:
        """Whether an agent that had it read text from outside."""
        return bool(self.input.get("tainted"))

    @property
    def planned_agent(self) -> str | None:
        """The agent that the plan or a handoff names; None leaves it to the route."""
        return self.input.get("agent")


def check(task: Task, status: Status) -> None:
    """Raise ConflictError when `task` may not become `status`."""
    if status not in TRANSITIONS[task.status]:
        raise ConflictError(f"task {task.id} is {task.status}; it cannot become {status}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What happens to a subtask. `agent`, `notes`, `error`, `level_max` None: as they are.

    release: the lease ends and the epoch rises, so that whoever held it is refused.
    """

    status: Status
    reason: str
    deliveries: int
    handoffs: int
    release: bool = False
    agent: str | None = None
    notes: str | None = None
    error: str | None = None
    dead_letter: bool = False
    level_max: int | None = None
    tainted: bool = False


def holds(task: Task, epoch: int, agent: str) -> None:
    """Raise StaleLeaseError unless `agent` holds `task` at `epoch` and it has not ended."""
    if task.status.ended or task.cancel_requested:
        raise StaleLeaseError(f"task {task.id} has ended: {task.status}")
    if task.status not in HELD or epoch != task.epoch:
        raise StaleLeaseError(f"task {task.id} is at epoch {task.epoch}, not {epoch}")
    if agent != task.agent:
        raise StaleLeaseError(f"task {task.id} is with {task.agent}, not {agent}")


def take(task: Task, epoch: int, agent: str) -> Change:
    """What taking the task means. Taking again at the same epoch is an agent that died and
    came back: one more delivery, and the last allowed one ends in the dead letter.

    Raises StaleLeaseError when somebody else has it or it has ended.
    """
    holds(task, epoch, agent)
    if task.status is Status.ASSIGNED:
        return _as_is(task, Status.IN_PROGRESS, f"{agent} took it")
    return _again(task, f"{agent} died at work on it", Status.IN_PROGRESS, release=False)


def conclude(task: Task, outcome: Outcome, known: Collection[str]) -> Change:
    """What an outcome means for its task. `known` are the agents of the roster.

    Raises StaleLeaseError for an outcome that comes too late or from the wrong agent.
    """
    holds(task, outcome.epoch, outcome.agent)
    if outcome.handoff_to is not None:
        return _handoff(task, outcome, outcome.handoff_to, known)
    if outcome.status is Status.FAILED:
        error = outcome.error or "the agent gave no reason"
        return _as_is(task, Status.FAILED, f"{outcome.agent} failed: {error}", error=error)
    if outcome.status is Status.WAITING:
        return _as_is(task, Status.WAITING, f"{outcome.agent} was paused")
    if outcome.status is Status.IN_PROGRESS:
        return _as_is(task, Status.IN_PROGRESS, f"{outcome.agent} went on")
    if outcome.status is Status.PENDING:
        reason = f"{outcome.agent} was stopped and gave it back"
        return _as_is(task, Status.PENDING, reason, release=True)
    if outcome.status in {Status.COMPLETED, Status.CANCELLED}:
        return _as_is(
            task, outcome.status, f"{outcome.agent} {outcome.status} it", error=outcome.error
        )
    error = f"{outcome.agent} reported the state {outcome.status}, which no outcome has"
    return _as_is(task, Status.FAILED, error, error=error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What an agent's last heartbeat said, and when."""

    agent: str
    status: str
    at: datetime
    paused: bool = False
    task_id: str | None = None
    epoch: int | None = None
    pid: int = 0
    phase: str | None = None

    def alive(self, now: datetime, silence_s: float) -> bool:
        """Whether it can take work: heard of within `silence_s` and neither starting nor gone."""
        fresh = now - self.at <= timedelta(seconds=silence_s)
        return fresh and self.status in {"running", "idle", "busy"}


def sweep(
    rows: Sequence[Task],
    seen: Mapping[str, Seen],
    now: datetime,
    *,
    silence_s: float,
    grace_s: float,
    lease_s: float,
) -> list[tuple[Task, Change]]:
    """What to do about held tasks whose lease ran out, or whose agent is alive without them.

    silence_s: an agent not heard of for longer is dead. A task counts as lost when its agent
    says that it holds none `grace_s` or more after it took it or last renewed the lease of
    `lease_s` (before that, its words or its outcome may be on the way).
    """
    found = []
    for task in rows:
        agent = seen.get(task.agent)
        alive = agent is not None and agent.alive(now, silence_s)
        expired = task.lease_until is not None and task.lease_until <= now
        if task.status is Status.ASSIGNED and expired:
            found.append((task, _untaken(task, agent if alive else None)))
        elif task.status in {Status.IN_PROGRESS, Status.WAITING} and expired:
            reason = f"the lease of {task.agent} ran out"
            found.append((task, _again(task, reason, Status.PENDING, release=True)))
        elif (
            task.status in {Status.IN_PROGRESS, Status.WAITING}
            and alive
            and agent is not None
            and agent.task_id is None
            and task.lease_until is not None
            and agent.at >= task.lease_until - timedelta(seconds=lease_s - grace_s)
        ):
            reason = f"{task.agent} is alive and no longer has it"
            found.append((task, _again(task, reason, Status.PENDING, release=True)))
    return found


def _untaken(task: Task, living: Seen | None) -> Change:
    if living is None:
        return _as_is(task, Status.PENDING, f"{task.agent} is not there to take it", release=True)
    if living.paused:
        return _as_is(task, Status.PENDING, f"{task.agent} is paused", release=True)
    reason = f"{task.agent} is alive and did not take it"
    return _again(task, reason, Status.PENDING, release=True)


def _handoff(task: Task, outcome: Outcome, to: str, known: Collection[str]) -> Change:
    count = task.handoffs + 1
    fault = None
    if to not in known:
        fault = f"there is no agent named {to!r}; there are: {', '.join(sorted(known))}"
    elif to == task.agent:
        fault = "it went to the same agent that has it"
    elif count > MAX_HANDOFFS:
        fault = f"it has been handed over {MAX_HANDOFFS} times already"
    if count > MAX_HANDOFFS + 1:
        error = f"handed over more than {MAX_HANDOFFS} times"
        return _as_is(task, Status.FAILED, error, error=error)
    notes = outcome.notes or outcome.answer
    if fault is not None:
        notes = f"{notes}\n\nThe handoff to {to!r} was refused: {fault}. Finish the task yourself."
        return _as_is(
            task,
            Status.PENDING,
            f"handoff to {to!r} refused: {fault}",
            release=True,
            agent=task.agent,
            notes=notes.strip(),
            handoffs=count,
        )
    return _as_is(
        task,
        Status.PENDING,
        f"{task.agent} handed it to {to}",
        release=True,
        agent=to,
        notes=f"From {task.agent}: {notes}".strip(),
        handoffs=count,
    )


def _again(task: Task, reason: str, status: Status, *, release: bool) -> Change:
    """One more delivery, or the end when there have been too many."""
    if task.deliveries >= MAX_DELIVERIES:
        error = f"given up after {task.deliveries} deliveries: {task.error or reason}"
        return Change(
            status=Status.FAILED,
            reason=error,
            deliveries=task.deliveries,
            handoffs=task.handoffs,
            release=True,
            error=error,
            dead_letter=True,
        )
    return Change(
        status=status,
        reason=reason,
        deliveries=task.deliveries + 1,
        handoffs=task.handoffs,
        release=release,
        error=reason,
    )


def _as_is(
    task: Task,
    status: Status,
    reason: str,
    *,
    release: bool = False,
    agent: str | None = None,
    notes: str | None = None,
    error: str | None = None,
    handoffs: int | None = None,
) -> Change:
    return Change(
        status=status,
        reason=reason,
        deliveries=task.deliveries,
        handoffs=task.handoffs if handoffs is None else handoffs,
        release=release,
        agent=agent,
        notes=notes,
        error=error,
    )
