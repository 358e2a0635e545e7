"""What ended, and what follows: outcomes, lost leases, blocked dependents, the root's end.

Each is one transaction over the locked rows of one request.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from base import log, streams
from base.errors import AIError, BusError, ModelError, NotFoundError, StaleLeaseError, StoreError
from base.messages import (
    Checked,
    Control,
    Event,
    Kind,
    Message,
    Outcome,
    Status,
    Type,
    Usage,
    Verdict,
    answer_id,
    encode,
)
from base.store import Session
from supervisor import approvals, docket, hooked, join, memory, pipeline, record, tasks
from supervisor.parts import NAME, Parts, event, storable, task_event
from supervisor.tasks import Change, Task

#: A root's plans and joins that were begun, after which its join asks no model any more.
TRIES_MAX = 10

logger = log.get(__name__)


async def conclude(parts: Parts, payload: dict[str, Any]) -> None:
    """Write an outcome. Raises ValidationError or NotFoundError for one that cannot be meant.

    A stale or repeated one is refused quietly: safe to call any number of times.
    """
    outcome = Outcome.model_validate(storable(payload))
    found = await record.find(parts.store, outcome.task_id)
    if found is None or found.is_root:
        raise NotFoundError(f"no subtask {outcome.task_id}")
    try:
        await _change(
            parts,
            found.root_id,
            found.id,
            lambda task: tasks.conclude(task, outcome, parts.agents.keys()),
            outcome,
        )
    except StaleLeaseError as error:
        logger.info("refused an outcome", task_id=outcome.task_id, reason=str(error))
        return
    if outcome.status.ended:
        hooked.stopped(parts, found, outcome)


async def release(parts: Parts, task: Task, change: Change) -> None:
    """Carry out what the sweep decided about `task`, unless it has moved on meanwhile."""

    def same(current: Task) -> Change:
        if current.epoch != task.epoch or current.status is not task.status:
            raise StaleLeaseError(f"task {task.id} moved on")
        return change

    try:
        await _change(parts, task.root_id, task.id, same, None)
    except StaleLeaseError as error:
        logger.info("left alone", task_id=task.id, reason=str(error))


async def retake(parts: Parts, task: Task, epoch: int, agent: str) -> Status:
    """An agent that came back takes the task again; the task's state then."""
    return await _change(
        parts, task.root_id, task.id, lambda one: tasks.take(one, epoch, agent), None
    )


async def _change(
    parts: Parts, root_id: str, task_id: str, decide: Any, outcome: Outcome | None
) -> Status:
    events: list[Event] = []
    lines: list[str] = []
    async with parts.store.transaction() as tx:
        root, subtasks = await record.lock(tx, root_id)
        task = next(one for one in subtasks if one.id == task_id)
        change: Change = decide(task)
        if outcome is not None and outcome.tainted:
            change = replace(change, tainted=True)
        if change.agent not in {None, task.agent}:  # who hands on gives no more than they had
            level_max = parts.levels.least(parts.rank(task.agent), task.level_max)
            change = replace(change, level_max=level_max)
        if change.status is not task.status:
            tasks.check(task, change.status)
        if change.dead_letter:
            await _bury(parts, task, change)
        written = await record.apply(
            tx,
            task,
            change,
            lease_s=parts.settings.lease_s,
            output=_output(outcome) if outcome is not None and change.status.ended else None,
            usage=outcome.usage if outcome is not None else None,
        )
        level = "warning" if change.release or change.status is Status.FAILED else "info"
        await record.log(tx, task.id, change.reason, {"status": change.status.value}, level)
        if written.status.ended or change.agent not in {None, task.agent}:
            await approvals.close(tx, [written], "the task no longer needs it", events)
        subtasks = [written if one.id == task.id else one for one in subtasks]
        lines.append(f"{root_id[:8]} {task.key}: {change.reason}" + _cost(written))
        events.append(task_event(written, written.status, _progress(written), **_told(written)))
        if written.status.ended or change.release:
            events.append(
                event(Kind.AGENT, written, task.agent, status="idle", paused=False, task_id=None)
            )
        await settle(parts, tx, root, subtasks, events, lines)
    for line in lines:
        parts.tell(line)
    await parts.emit(*events)
    parts.wake.set()
    return written.status


async def settle(
    parts: Parts,
    tx: Session,
    root: Task,
    subtasks: list[Task],
    events: list[Event],
    lines: list[str],
) -> None:
    """What the change of one subtask means for its siblings and its request."""
    if root.status.ended:
        return
    for task, reason in pipeline.blocked(subtasks):
        await record.cancel(tx, task.id, reason)
        await record.log(tx, task.id, f"cancelled: {reason}", level="warning")
        lines.append(f"{root.id[:8]} {task.key}: cancelled, {reason}")
        events.append(task_event(task, Status.CANCELLED, 1.0, error=reason))
    subtasks = await record.siblings(tx, root.id)
    if not pipeline.ended(subtasks):
        events.append(task_event(root, Status.IN_PROGRESS, pipeline.progress(subtasks)))
        return
    if len(subtasks) == 1:
        only = subtasks[0]
        done = join.Joined(answer=join.alone(only), usage=Usage())
        events += await _end(tx, root, subtasks, done, only.agent)
        lines.append(f"{root.id[:8]} {pipeline.verdict(subtasks)}")
    else:
        parts.joins[root.id] = root
        events.append(task_event(root, Status.IN_PROGRESS, 0.95, phase="JOIN"))


async def finish(parts: Parts, root: Task) -> None:
    """End a request whose subtasks have all ended and that nobody ended: found by the sweep."""
    events: list[Event] = []
    lines: list[str] = []
    async with parts.store.transaction() as tx:
        current, subtasks = await record.lock(tx, root.id)
        await settle(parts, tx, current, subtasks, events, lines)
    for line in lines:
        parts.tell(line)
    await parts.emit(*events)


def start_joins(parts: Parts) -> None:
    """Put the joins that are due beside the loop."""
    while parts.joins:
        _, root = parts.joins.popitem()
        parts.slots.add(f"join {root.id}", root.priority, partial(_join, parts, root.id))


async def _join(parts: Parts, root_id: str) -> None:
    """Join a request whose subtasks have all ended. Done again after a crash."""
    try:
        root = await record.find(parts.store, root_id)
        subtasks = await record.siblings(parts.store, root_id)
        if root is None or root.status.ended or not pipeline.ended(subtasks):
            return
        number = await record.attempt(parts.store, root_id)
        done = await _joined(parts, root, subtasks, number)
        done = replace(done, answer=storable(done.answer))
        async with parts.store.transaction() as tx:
            current, subtasks = await record.lock(tx, root_id)
            events = await _end(tx, current, subtasks, done, NAME)
    except (BusError, StoreError) as error:
        logger.warning("joining was interrupted", task_id=root_id, error=str(error))
        return
    if events:
        parts.tell(f"{root_id[:8]} joined: {pipeline.verdict(subtasks)}")
        await parts.emit(*events)


async def _joined(parts: Parts, root: Task, subtasks: list[Task], number: int) -> join.Joined:
    sequence = 0

    async def stream(piece: str, attempt: int) -> None:
        nonlocal sequence
        sequence += 1
        chunk = {
            "message_id": answer_id(root.id),
            "attempt": number * 100 + attempt,
            "seq": sequence,
            "content": piece,
        }
        await parts.emit(event(Kind.CHUNK, root, NAME, **chunk))

    effort = root.effort or "standard"
    own = parts.roster.supervisor.model
    role = await docket.role(parts.store, root.user_id)
    try:
        if number > TRIES_MAX:
            raise ModelError(f"given up after {number - 1} attempts")
        return await join.join(
            root,
            subtasks,
            request=root.instruction,
            asides=hooked.told(root),
            lead=parts.lead,
            models={
                name: own or parts.models.pick(NAME, effort, name) for name in ("conflict", "join")
            },
            model=parts.llm,
            questions=parts.bus,
            levels={name: parts.level(name, role) for name in parts.agents},
            on_text=stream,
        )
    except (BusError, StoreError):
        raise
    except ModelError as error:
        return join.Joined(answer=join.plain(subtasks, str(error)), usage=Usage(), fault=str(error))
    except Exception as error:
        logger.exception("joining failed", task_id=root.id)
        fault = (
            str(error) if isinstance(error, AIError) else f"internal error {type(error).__name__}"
        )
        return join.Joined(answer=join.plain(subtasks, fault), usage=Usage(), fault=fault)


async def _end(
    tx: Session, root: Task, subtasks: list[Task], done: join.Joined, speaker: str
) -> list[Event]:
    """The answer and the end of a request; no events when it had ended before."""
    status = pipeline.verdict(subtasks)
    error = None
    if status is not Status.COMPLETED:
        bad = [task for task in subtasks if task.status is not Status.COMPLETED]
        error = "; ".join(f"{one.key} ({one.agent}) {one.error or one.status}" for one in bad)
    usage = sum((task.usage for task in subtasks), root.usage) + done.usage
    criteria = record.criteria_of(subtasks)
    output = {
        "answer": done.answer,
        "criteria": criteria,
        "criteria_count": {
            verdict.value: sum(one["verdict"] == verdict for one in criteria) for verdict in Verdict
        },
        "files": sorted({path for task in subtasks for path in task.output.get("files", ())}),
        "contradictions": [
            {"subject": one.subject, "agents": list(one.agents), "question": one.question}
            for one in done.contradictions
        ],
        "join_fault": done.fault,
        "tainted": any(task.tainted or task.output.get("tainted") for task in subtasks),
    }
    message_id = answer_id(root.id)
    written = await record.end_root(
        tx,
        root,
        status,
        message_id=message_id,
        answer=done.answer,
        agent=speaker,
        error=error,
        output=storable(output),
        usage=usage,
    )
    if not written:
        return []
    await memory.end(tx, root, status, answer_id=message_id if done.answer.strip() else None)
    await record.log(tx, root.id, f"{status}", {"cost_usd": usage.cost_usd, "error": error})
    message = {
        "message_id": message_id,
        "role": "assistant",
        "content": done.answer,
        "agent": speaker,
    }
    return [
        event(Kind.MESSAGE, root, speaker, **message),
        task_event(root, status, 1.0, error=error, cost_usd=usage.cost_usd),
    ]


async def cancel(parts: Parts, task: Task, reason: str) -> None:
    """End a request with everything in it, or one subtask; agents at work are told to stop."""
    events: list[Event] = []
    lines = [f"cancelled {task.id[:8]}: {reason}"]
    async with parts.store.transaction() as tx:
        root, subtasks = await record.lock(tx, task.root_id)
        doomed = (
            [root, *subtasks] if task.is_root else [one for one in subtasks if one.id == task.id]
        )
        tasks.check(doomed[0], Status.CANCELLED)
        stopped = [one for one in doomed if not one.is_root and one.status in tasks.HELD]
        for one in doomed:
            if not one.status.ended:
                await record.cancel(tx, one.id, reason)
                await record.log(tx, one.id, f"cancelled: {reason}", level="warning")
                events.append(task_event(one, Status.CANCELLED, 1.0, error=reason))
        await approvals.close(tx, doomed, f"the task was cancelled: {reason}", events)
        if task.is_root:
            await memory.end(tx, root, Status.CANCELLED)
        if not task.is_root:
            left = await record.siblings(tx, root.id)
            await settle(parts, tx, root, left, events, lines)
    if task.is_root:
        parts.slots.cancel(f"plan {task.id}")
        parts.slots.cancel(f"join {task.id}")
        parts.joins.pop(task.id, None)
    for line in lines:
        parts.tell(line)
    for one in stopped:
        await parts.control(one.agent, Control(verb="cancel", task_id=one.id, epoch=one.epoch))
        events.append(event(Kind.AGENT, one, one.agent, status="idle", paused=False, task_id=None))
    await parts.emit(*events)
    parts.wake.set()


async def _bury(parts: Parts, task: Task, change: Change) -> None:
    """A dead letter for a subtask that nobody could end; replayed, it retries the request."""
    letter = Message(
        source=NAME,
        target=NAME,
        type=Type.TASK,
        priority=task.priority,
        payload={"task_id": task.id, "retry": True, "agent": task.agent},
    )
    await parts.bus.bury_raw(
        streams.TASKS_NEW,
        streams.GROUP_SUPERVISOR,
        "0-1",
        encode(letter),
        change.error or change.reason,
        task.deliveries,
    )


def _output(outcome: Outcome) -> dict[str, Any]:
    return {
        "answer": outcome.answer,
        "criteria": [Checked.model_dump(one, mode="json") for one in outcome.criteria],
        "files": list(outcome.files),
        "rounds": outcome.rounds,
        "notes": outcome.notes,
        "tainted": outcome.tainted,
    }


def _progress(task: Task) -> float:
    return 1.0 if task.status.ended else 0.0


def _told(task: Task) -> dict[str, Any]:
    return {"error": task.error, "cost_usd": task.usage.cost_usd}


def _cost(task: Task) -> str:
    return f" · ${task.usage.cost_usd:.4f}" if task.status.ended and task.usage.model_calls else ""
