"""Escalate, decide, redeem, expire: the one life of an approval. PostgreSQL is its record.

Each is one transaction under the lock of the task's request, audit included; the agent and the
live view hear of it afterwards. What is refused is written down too, and then raised.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from base import streams
from base.approvals import Approval, ApprovalRequest, ApprovalStatus, binding
from base.audit import OutcomeWord
from base.errors import (
    AIError,
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    StaleLeaseError,
    TooManyError,
)
from base.messages import Control, Event, Kind, Message, Status, Type
from base.store import Session
from supervisor import docket, gate, record, tasks, witness
from supervisor.parts import NAME, Parts, event, storable, task_event
from supervisor.tasks import Change, Task

VIAS = ("cli", "api", "window")


@dataclass(slots=True, kw_only=True)  # mutable: what is to be told once the transaction is through
class News:
    """Events for the live view and lines for the window; `refusal` is raised after the commit."""

    events: list[Event] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    refusal: AIError | None = None

    async def tell(self, parts: Parts) -> None:
        if self.events:
            await parts.relay()
            await parts.emit(*self.events)
        for line in self.lines:
            parts.tell(line)
        if self.refusal is not None:
            raise self.refusal


async def escalate(parts: Parts, payload: dict[str, Any]) -> dict[str, Any]:
    """A request, or what became of it before: the same (task_id, call_id) is the same one.

    Raises InputError, NotFoundError, StaleLeaseError, ForbiddenError, and TooManyError when the
    agent asks too often.
    """
    request = _request(payload)
    task = await _task(parts, request.task_id)
    news = News()
    found: Approval | None = None
    async with parts.store.transaction() as tx:
        task = await _locked(tx, task)
        tasks.holds(task, request.epoch, request.agent)
        if (request.root_id, request.user_id) != (task.root_id, task.user_id):
            news.refusal = ForbiddenError("the request names another request or user than its task")
        elif (before := await docket.of_call(tx, task.id, request.call_id)) is not None:
            found = await _again(parts, tx, task, request, before, news)
        else:
            found = await _new(parts, tx, task, request, news)
        if news.refusal is not None:
            await witness.approval(tx, "refused", request, "denied", why=str(news.refusal))
    await news.tell(parts)
    if found is None:
        raise AssertionError("neither an approval nor a refusal")
    return {"approval": found.model_dump(mode="json")}


async def decide(parts: Parts, payload: dict[str, Any]) -> dict[str, Any]:
    """A person's answer. `by`: a user's id (via cli, api), or "window" for the machine's owner.

    Raises ConflictError for what was decided or has expired, ForbiddenError for one who may not.
    """
    approve, by, via = payload.get("approve"), payload.get("by"), payload.get("via")
    why = payload.get("reason") or ""
    if not isinstance(approve, bool) or not isinstance(by, str) or not isinstance(why, str):
        raise InputError("decide needs approve (true or false) and by; reason is a text")
    if via not in VIAS or (via == "window") != (by == "window"):
        raise InputError(f"via must be one of {', '.join(VIAS)}; by window goes with via window")
    found, task = await _found(parts, payload.get("approval_id"))
    news = News()
    async with parts.store.transaction() as tx:
        task = await _locked(tx, task)
        who = await _decider(parts, tx, by)
        fault = gate.objection(found.request, who, parts.policy)
        if not approve and (who.admin or who.user_id == found.request.user_id):
            fault = None
        status = ApprovalStatus.APPROVED if approve else ApprovalStatus.DENIED
        done = None
        if fault is not None:
            news.refusal = ForbiddenError(fault)
            await witness.approval(
                tx, "decision refused", found.request, "denied", found, by, fault
            )
        else:
            said = storable(why.strip())
            done = await docket.decide(tx, found.id, status, by, via, said, parts.policy.expires_s)
            if done is None:
                news.refusal = await _late(tx, task, found, news)
        if done is not None:
            outcome: OutcomeWord = "success" if approve else "denied"
            ip = payload.get("ip")
            await witness.approval(tx, "decided", done.request, outcome, done, by, said, ip)
            await _settled(parts, tx, task, done, news)
            found = done
    await news.tell(parts)
    return {"approval": found.model_dump(mode="json")}


async def redeem(parts: Parts, payload: dict[str, Any]) -> dict[str, Any]:
    """Use an approval up, just before the call that it is for. Only once, for exactly that call.

    Raises StaleLeaseError, and ForbiddenError naming why it does not hold.
    """
    agent, bound, epoch = payload.get("agent"), payload.get("binding"), payload.get("epoch")
    if not isinstance(agent, str) or not isinstance(bound, str) or type(epoch) is not int:
        raise InputError("redeem needs approval_id, binding, agent, task_id and epoch")
    found, task = await _found(parts, payload.get("approval_id"))
    news = News()
    used: Approval | None = None
    async with parts.store.transaction() as tx:
        task = await _locked(tx, task)
        try:
            if payload.get("task_id") != found.request.task_id:
                raise ForbiddenError("the approval is for another task")
            tasks.holds(task, epoch, agent)
            if await docket.use(tx, found.id, bound, task.id, agent):
                used = await docket.find(tx, found.id)
            else:
                current = await docket.find(tx, found.id) or found
                raise ForbiddenError(_unusable(current, bound, agent))
        except (ForbiddenError, StaleLeaseError) as error:
            news.refusal = error
            await witness.approval(
                tx, "redeem refused", found.request, "denied", found, agent, str(error)
            )
        if used is not None:
            await witness.approval(tx, "redeemed", used.request, "success", used, agent)
            news.events.append(_event(task, used))
    await news.tell(parts)
    return {"approval": (used or found).model_dump(mode="json")}


async def sweep(parts: Parts) -> None:
    """Expire what nobody decided, or used, in time."""
    for found in await docket.overdue(parts.store):
        task = await record.find(parts.store, found.request.task_id)
        if task is None:
            continue
        news = News()
        async with parts.store.transaction() as tx:
            task = await _locked(tx, task)
            await _expire(parts, tx, task, found, "nobody answered in time", news)
        await news.tell(parts)


async def close(tx: Session, ended: list[Task], why: str, events: list[Event]) -> None:
    """Expire whatever is open of tasks that ended or went to another agent. The caller holds
    the lock.
    """
    known = {task.id: task for task in ended}
    for found in await docket.open_of(tx, list(known)):
        done = await docket.expire(tx, found.id, why, early=True)
        if done is not None:
            await witness.approval(tx, "expired", done.request, "denied", done, NAME, why)
            events.append(_event(known[done.request.task_id], done))


async def _new(
    parts: Parts, tx: Session, task: Task, request: ApprovalRequest, news: News
) -> Approval | None:
    rank = parts.levels.user(await docket.role(tx, task.user_id))
    history = await docket.history(tx, request, rank)
    verdict = gate.decide(request, parts.policy, history, await docket.now(tx))
    if verdict.word == "refuse":
        if verdict.retry_after_s is None:
            news.refusal = ForbiddenError(verdict.why)
        else:
            news.refusal = TooManyError(verdict.why, verdict.retry_after_s)
        return None
    risk, sentence = gate.sentence(request)
    found = await docket.add(tx, request, risk, sentence, parts.policy.expires_s)
    await witness.approval(tx, "requested", request, "success", found, why=verdict.why)
    if verdict.word == "auto":
        approved = await docket.decide(
            *(tx, found.id, ApprovalStatus.APPROVED, "policy", "policy", verdict.why),
            parts.policy.expires_s,
        )
        if approved is None:
            raise AssertionError("a new request was decided already")
        await witness.approval(tx, "decided", request, "success", approved, "policy", verdict.why)
        await record.log(tx, task.id, f"approved by policy: {verdict.why}", _logged(approved))
        news.events.append(_event(task, approved))
        return approved
    await _wait(parts, tx, task, found, news)
    news.lines.append(f"{task.root_id[:8]} {task.key}: {_shorter(found)}; see: ai-infra approvals")
    return found


async def _again(
    parts: Parts,
    tx: Session,
    task: Task,
    request: ApprovalRequest,
    before: Approval,
    news: News,
) -> Approval | None:
    """The same call asks once more: after a restart, or since it did not hear."""
    if before.binding != binding(request):
        news.refusal = ForbiddenError("the call asked for something else before: use a new call")
        return None
    if before.request.epoch != request.epoch:
        before = await docket.renew(tx, before, request.epoch)
    if (
        done := await _expire(parts, tx, task, before, "nobody answered in time", news)
    ) is not None:
        return done
    if before.status is ApprovalStatus.PENDING and task.status is not Status.WAITING:
        await _wait(parts, tx, task, before, news)
    return before


async def _wait(parts: Parts, tx: Session, task: Task, found: Approval, news: News) -> None:
    why = f"waits for approval: {found.sentence}"
    await record.log(tx, task.id, f"waits for approval {found.id}", _logged(found), "warning")
    news.events.append(_event(task, found))
    if task.status is not Status.WAITING:
        written = await _become(parts, tx, task, Status.WAITING, "waits for approval")
        news.events.append(task_event(written, Status.WAITING, 0.0, why=why))


async def _late(tx: Session, task: Task, found: Approval, news: News) -> ConflictError:
    """What to say to one whose answer comes after another, or too late."""
    current = await docket.find(tx, found.id) or found
    if current.status in {ApprovalStatus.PENDING, ApprovalStatus.EXPIRED}:
        return ConflictError(f"approval {found.id[:8]} expired at {_clock(current.expires_at)}")
    said = "approved and used" if current.status is ApprovalStatus.USED else current.status.value
    by = f"by {current.decided_by} ({current.decided_via})"
    when = "" if current.decided_at is None else f" at {_clock(current.decided_at)}"
    return ConflictError(f"approval {found.id[:8]} was {said} {by}{when}")


async def _expire(
    parts: Parts, tx: Session, task: Task, found: Approval, why: str, news: News
) -> Approval | None:
    done = await docket.expire(tx, found.id, why)
    if done is not None:
        await witness.approval(tx, "expired", done.request, "denied", done, NAME, why)
        await _settled(parts, tx, task, done, news)
    return done


async def _settled(parts: Parts, tx: Session, task: Task, done: Approval, news: News) -> None:
    """Tell the agent, and let the task go on when nothing else of it waits."""
    said = done.status.value + (f": {done.decided_why}" if done.decided_why else "")
    line = f"approval {done.id[:8]} {said}"
    level = "info" if done.status is ApprovalStatus.APPROVED else "warning"
    await record.log(tx, task.id, line, _logged(done), level)
    news.lines.append(f"{task.root_id[:8]} {task.key}: {line}")
    news.events.append(_event(task, done))
    control = Control(verb="approval", task_id=task.id, text=done.id)
    payload = control.model_dump(mode="json")
    agent = done.request.agent
    await tx.publish(
        streams.control(agent),
        Message(source=NAME, target=agent, type=Type.QUERY, payload=payload),
    )
    if task.status is Status.WAITING and not await docket.waiting(tx, task.id):
        written = await _become(parts, tx, task, Status.IN_PROGRESS, line)
        news.events.append(task_event(written, Status.IN_PROGRESS, 0.0))


async def _become(parts: Parts, tx: Session, task: Task, status: Status, reason: str) -> Task:
    tasks.check(task, status)
    change = Change(
        status=status,
        reason=reason,
        deliveries=task.deliveries,
        handoffs=task.handoffs,
        error=task.error,
    )
    return await record.apply(tx, task, change, lease_s=parts.settings.lease_s)


async def _locked(tx: Session, task: Task) -> Task:
    root, subtasks = await record.lock(tx, task.root_id)
    return next(one for one in [root, *subtasks] if one.id == task.id)


async def _task(parts: Parts, task_id: str) -> Task:
    task = await record.find(parts.store, task_id)
    if task is None:
        raise NotFoundError(f"no task {task_id!r}")
    return task


async def _found(parts: Parts, approval_id: object) -> tuple[Approval, Task]:
    found = await docket.find(parts.store, str(approval_id))
    if found is None:
        raise NotFoundError(f"no approval {str(approval_id)[:80]!r}")
    return found, await _task(parts, found.request.task_id)


async def _decider(parts: Parts, tx: Session, by: str) -> gate.Decider:
    if by == "window":
        return gate.Decider(user_id=None, admin=True, rank=parts.levels.user("admin"))
    role = await docket.role(tx, by)
    return gate.Decider(
        user_id=by if role is not None else None,
        admin=role == "admin",
        rank=parts.levels.user(role),
    )


def _request(payload: dict[str, Any]) -> ApprovalRequest:
    try:
        return ApprovalRequest.model_validate(payload.get("request"))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in ("request", *first["loc"]))
        raise InputError(f"{where}: {first['msg']}") from None


def _unusable(found: Approval, bound: str, agent: str) -> str:
    if found.binding != bound:
        return "the call is not the one that was approved: ask anew"
    if found.request.agent != agent:
        return f"the approval is for {found.request.agent}"
    if found.status is ApprovalStatus.APPROVED:
        return f"the approval expired at {_clock(found.expires_at)}: ask anew"
    if found.status is ApprovalStatus.USED:
        return "the approval was used already: ask anew"
    return f"the request is {found.status.value}, not approved"


def _event(task: Task, found: Approval) -> Event:
    shown: dict[str, Any] = {
        "id": found.id,
        "status": found.status.value,
        "agent": found.request.agent,
        "tool": found.request.tool,
        "level": found.request.level,
        "risk": found.risk,
        "sentence": found.sentence,
        "expires_at": found.expires_at.isoformat(),
        "decided_by": found.decided_by,
        "decided_via": found.decided_via,
    }
    return event(Kind.APPROVAL, task, found.request.agent, **shown)


def _logged(found: Approval) -> dict[str, Any]:
    return {"approval_id": found.id, "status": found.status.value, "risk": found.risk}


def _shorter(found: Approval) -> str:
    return f"waits for approval {found.id[:8]} ({found.risk} risk): {found.sentence[:200]}"


def _clock(at: Any) -> str:
    return f"{at:%H:%M:%S} UTC"
