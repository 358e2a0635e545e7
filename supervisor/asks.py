"""What others may ask of the supervisor: take, cancel, retry, steer, control, and approvals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from base import streams
from base.errors import ConflictError, InputError, NotFoundError, StaleLeaseError
from base.messages import Control, Message, Status, Type
from supervisor import approvals, memory, outcomes, record
from supervisor.parts import NAME, Parts, task_event
from supervisor.tasks import HELD, Task

#: Every ask is quick but many agents may ask at once.
CONCURRENCY = 16


class Asks:
    """Answers one request at a time; each verb may be asked twice for the same thing."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._verbs: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "take": self._take,
            "cancel": self._cancel,
            "retry": self._retry,
            "steer": self._steer,
            "control": self._control,
            "escalate": partial(approvals.escalate, parts),
            "decide": partial(approvals.decide, parts),
            "redeem": partial(approvals.redeem, parts),
        }

    async def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Raises InputError for an unknown verb or a missing field."""
        verb = self._verbs.get(str(payload.get("verb")))
        if verb is None:
            known = ", ".join(self._verbs)
            raise InputError(f"no verb {payload.get('verb')!r}; there are: {known}")
        return await verb(payload)

    async def _take(self, payload: dict[str, Any]) -> dict[str, Any]:
        task_id, agent = _text(payload, "task_id"), _text(payload, "agent")
        epoch = payload.get("epoch")
        if not isinstance(epoch, int):
            raise InputError("take needs the epoch, a number")
        parts = self._parts
        if record.known_id(task_id) is None:
            raise NotFoundError(f"no task {task_id!r}")
        async with parts.store.transaction() as tx:
            taken = await record.take(tx, task_id, epoch, agent, parts.settings.lease_s)
            if taken is not None:
                await record.log(tx, task_id, f"{agent} took it", {"epoch": epoch})
        if taken is not None:
            await parts.emit(task_event(taken, Status.IN_PROGRESS, 0.05))
            return {"ok": True}
        task = await self._find(task_id)
        if await outcomes.retake(parts, task, epoch, agent) is not Status.IN_PROGRESS:
            raise StaleLeaseError(f"task {task_id} was given up after too many deliveries")
        return {"ok": True}

    async def _cancel(self, payload: dict[str, Any]) -> dict[str, Any]:
        task = await self._find(_text(payload, "task_id"))
        if task.status is not Status.CANCELLED:
            await outcomes.cancel(self._parts, task, str(payload.get("reason") or "asked to"))
        return {"status": Status.CANCELLED.value}

    async def _retry(self, payload: dict[str, Any]) -> dict[str, Any]:
        task = await self._find(_text(payload, "task_id"))
        return {"task_id": await retry(self._parts, task)}

    async def _steer(self, payload: dict[str, Any]) -> dict[str, Any]:
        text = _text(payload, "text")
        task = await self._find(_text(payload, "task_id"))
        tasks = await record.siblings(self._parts.store, task.id) if task.is_root else [task]
        at_work = [one for one in tasks if one.status in HELD]
        if not at_work:
            raise ConflictError(f"no agent is at work on task {task.id} now; it is {task.status}")
        for one in at_work:
            await self._parts.control(one.agent, Control(verb="steer", task_id=one.id, text=text))
            await record.log(self._parts.store, one.id, "steered", {"chars": len(text)})
        return {"ok": True, "agents": [one.agent for one in at_work]}

    async def _control(self, payload: dict[str, Any]) -> dict[str, Any]:
        agent, verb = _text(payload, "agent"), payload.get("control")
        self._parts.roster.get(agent)
        if verb not in {"pause", "resume"}:
            raise InputError(f"no control {verb!r}; there are: pause, resume")
        await self._parts.control(agent, Control(verb="pause" if verb == "pause" else "resume"))
        self._parts.tell(f"told {agent} to {verb}")
        return {"ok": True}

    async def _find(self, task_id: str) -> Task:
        task = await record.find(self._parts.store, task_id)
        if task is None:
            raise NotFoundError(f"no task {task_id!r}")
        return task


async def retry(parts: Parts, task: Task) -> str:
    """A new request from the message of an ended one; its id. Raises ConflictError before.

    Asked again while that one runs, it is the same one.
    """
    async with parts.store.transaction() as tx:
        root, _ = await record.lock(tx, task.root_id)
        if not root.status.ended:
            raise ConflictError(
                f"task {root.id} is {root.status}; only an ended one can be retried"
            )
        new_id, new = await record.retried(tx, root)
        if new:
            order = Message(
                source=NAME,
                target=NAME,
                type=Type.TASK,
                priority=root.priority,
                payload={"task_id": new_id},
            )
            await tx.publish(streams.TASKS_NEW, order)
            await memory.retried(tx, root, new_id)
            await record.log(tx, root.id, "retried", {"task_id": new_id})
    if new:
        parts.tell(f"retry of {root.id[:8]} is {new_id[:8]}")
    parts.wake.set()
    return new_id


def _text(payload: dict[str, Any], field: str) -> str:
    value = payload.get(field)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{payload.get('verb')} needs {field}")
    return value
