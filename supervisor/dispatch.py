"""Ready subtasks to free agents: the most urgent first, one running task an agent."""

from __future__ import annotations

from base import log, streams
from base.messages import (
    Budget,
    Criterion,
    Effort,
    Event,
    Input,
    Kind,
    Message,
    Status,
    Type,
    WorkOrder,
    answer_id,
)
from base.store import Session
from supervisor import docket, earlier, hooked, prompt, record, witness
from supervisor.budget import Spent, grant
from supervisor.parts import NAME, Parts, event, task_event
from supervisor.route import Candidate, Choice, route
from supervisor.tasks import Task

LOOK = 100
INPUT_CHARS = 40_000

logger = log.get(__name__)


async def dispatch(parts: Parts) -> None:
    """Give out what can be given out now, then send the outbox."""
    held = await record.held(parts.store)
    load = {name: sum(task.agent == name for task in held) for name in parts.agents}
    barred = {name: why for name in parts.agents if (why := parts.barred(name)) is not None}
    free = [name for name in parts.agents if name not in barred and not load[name]]
    if not free:
        return
    busy = [name for name in parts.agents if load[name] and name not in barred]
    rows = await record.ready(parts.store, busy=busy, barred=list(barred), limit=LOOK)
    reserved_usd = sum(task.budget.usd for task in held)
    events: list[Event] = []
    for task in rows:
        choice = route(
            f"{task.title} {task.instruction}",
            _candidates(parts, load, barred),
            requested=task.requested_agent if task.requested_agent in parts.agents else None,
            planned=task.planned_agent,
        )
        if choice.agent is None:
            continue
        day = Spent(
            spent_usd=sum(parts.spent.values()), reserved_usd=reserved_usd, by_agent=parts.spent
        )
        budget = grant(task.budget, day, parts.budgets.daily)
        if budget is None:
            await _hold_back(parts, task)
            break
        parts.held_back.discard(task.id)
        if await _send(parts, task, choice.agent, budget, choice):
            load[choice.agent] += 1
            parts.served[choice.agent] = parts.served.get(choice.agent, 0) + 1
            reserved_usd += budget.usd
            events += _told(parts, task, choice.agent, choice.why)
        if all(load[name] for name in free):
            break
    if events:
        await parts.relay()
        await parts.emit(*events)


async def _hold_back(parts: Parts, task: Task) -> None:
    """Say once that a subtask waits for the day's budget."""
    if task.id in parts.held_back:
        return
    parts.held_back.add(task.id)
    limit_usd = parts.budgets.daily.hard_limit_usd
    reason = f"waits: the daily limit of ${limit_usd:.2f} is spent or reserved"
    await record.log(parts.store, task.id, reason, level="warning")
    parts.tell(f"{task.root_id[:8]} {task.key} {reason}")


def _candidates(parts: Parts, load: dict[str, int], barred: dict[str, str]) -> list[Candidate]:
    return [
        Candidate(
            name=name,
            capabilities=spec.capabilities,
            load=load[name],
            served=parts.served.get(name, 0),
            barred=barred.get(name),
        )
        for name, spec in parts.agents.items()
    ]


async def _send(parts: Parts, task: Task, agent: str, budget: Budget, choice: Choice) -> bool:
    """Assign and write the order in one transaction; False when it is no longer pending."""
    async with parts.store.transaction() as tx:
        row = await record.assign(tx, task.id, agent, budget, parts.settings.assign_lease_s)
        if row is None:
            return False
        order = await _order(parts, tx, task, agent, row["epoch"], row["deliveries"], budget)
        if order.level < parts.rank(agent):
            await witness.level_cut(tx, task, agent, parts.rank(agent), order.level)
        await tx.publish(
            streams.agent(agent),
            Message(
                source=NAME,
                target=agent,
                type=Type.TASK,
                priority=task.priority,
                payload=order.model_dump(mode="json"),
            ),
        )
        await record.log(
            tx,
            task.id,
            f"assigned to {agent}: {choice.why}",
            {
                "epoch": order.epoch,
                "delivery": order.delivery,
                "budget_usd": budget.usd,
                "level": order.level,
            },
        )
    return True


def _told(parts: Parts, task: Task, agent: str, why: str) -> list[Event]:
    parts.tell(f"{task.root_id[:8]} {task.key} → {agent}: {why}")
    shown = task_event(task, Status.ASSIGNED, 0.0, why=why)
    return [
        shown.model_copy(update={"agent": agent}),
        event(Kind.AGENT, task, agent, status="busy", paused=False, task_id=task.id),
    ]


async def _order(
    parts: Parts,
    tx: Session,
    task: Task,
    agent: str,
    epoch: int,
    delivery: int,
    budget: Budget,
) -> WorkOrder:
    root = await record.find(tx, task.root_id)
    if root is None:
        raise AssertionError("a subtask without its request")
    needed = await record.find_all(tx, task.depends_on)
    minimal = task.effort is Effort.MINIMAL and await record.is_only(tx, task)
    return WorkOrder(
        task_id=task.id,
        root_id=task.root_id,
        epoch=epoch,
        delivery=delivery,
        agent=agent,
        user_id=task.user_id,
        conversation_id=task.conversation_id,
        created_at=task.created_at,
        instruction=task.instruction,
        request=root.instruction,
        history=prompt.recent(await earlier.history(tx, root)),
        inputs=tuple(
            Input(
                task_id=one.id,
                agent=one.agent,
                instruction=one.instruction,
                answer=str(one.output.get("answer") or "")[:INPUT_CHARS],
                tainted=bool(one.output.get("tainted")),
            )
            for one in needed
        ),
        notes=str(task.input.get("notes") or ""),
        criteria=tuple(Criterion.model_validate(one) for one in task.criteria),
        effort=task.effort or Effort.STANDARD,
        budget=budget,
        workspace=str(parts.settings.workspace(task.user_id, task.workspace)),
        level=parts.level(agent, await docket.role(tx, task.user_id), task.level_max),
        tainted=task.tainted
        or any(one.output.get("tainted") for one in needed)
        or await earlier.tainted(tx, root),
        answer_message_id=answer_id(task.root_id) if minimal else None,
        asides=hooked.asides(root),
        attachments=await earlier.attached(tx, root),
    )
