"""What a plan's graph says next: which subtasks are ready, which can never be, how it ends.

Pure. Sequential, parallel and broadcast are all graphs: a chain, no edges, one step an agent.
"""

from __future__ import annotations

from collections.abc import Sequence

from base.messages import Status
from supervisor.tasks import Task


def ready(subtasks: Sequence[Task]) -> tuple[Task, ...]:
    """Pending subtasks whose dependencies are all completed; highest priority first, then age."""
    done = {task.id for task in subtasks if task.status is Status.COMPLETED}
    found = [
        task
        for task in subtasks
        if task.status is Status.PENDING and done.issuperset(task.depends_on)
    ]
    return tuple(sorted(found, key=lambda task: (-task.priority, task.created_at, task.key)))


def blocked(subtasks: Sequence[Task]) -> tuple[tuple[Task, str], ...]:
    """Unended subtasks that wait, however indirectly, for one that failed or was cancelled,
    each with the reason.
    """
    known = {task.id: task for task in subtasks}
    reasons: dict[str, str] = {}
    found: list[tuple[Task, str]] = []
    rest = [task for task in subtasks if task.status is Status.PENDING]
    progress = True
    while progress:
        progress = False
        for task in rest:
            if task.id in reasons:
                continue
            for needed in (known[id_] for id_ in task.depends_on if id_ in known):
                ended_badly = needed.status in {Status.FAILED, Status.CANCELLED}
                if ended_badly or needed.id in reasons:
                    how = needed.status if ended_badly else Status.CANCELLED
                    reasons[task.id] = f"needs {needed.key}, which was {how}"
                    if how is Status.FAILED:
                        reasons[task.id] = f"needs {needed.key}, which failed"
                    found.append((task, reasons[task.id]))
                    progress = True
                    break
    return tuple(found)


def ended(subtasks: Sequence[Task]) -> bool:
    """Whether nothing is left to do. A root without subtasks has not ended."""
    return bool(subtasks) and all(task.status.ended for task in subtasks)


def verdict(subtasks: Sequence[Task]) -> Status:
    """How the root of these ended subtasks ends: completed only if every one of them did."""
    return (
        Status.COMPLETED
        if all(task.status is Status.COMPLETED for task in subtasks)
        else Status.FAILED
    )


def progress(subtasks: Sequence[Task]) -> float:
    """0..1: ended subtasks count whole, those at work count a quarter."""
    if not subtasks:
        return 0.0
    parts = sum(
        1.0 if task.status.ended else 0.25 if task.status is Status.IN_PROGRESS else 0.0
        for task in subtasks
    )
    return round(parts / len(subtasks), 3)
