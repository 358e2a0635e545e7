"""New requests: which effort, plan or no plan, and the one transaction that begins them."""

from __future__ import annotations

from functools import partial

from base import attachments, log
from base.deadline import Deadline
from base.errors import AIError, BusError, InputError, PlanError, StoreError
from base.llm import Ask
from base.messages import Effort, Kind, Status, Usage, answer_id
from base.store import Session
from supervisor import earlier, effort, hooked, memory, plan, prompt, record
from supervisor.budget import Spent, refusal
from supervisor.parts import NAME, Parts, event, storable, task_event
from supervisor.plan import Plan
from supervisor.tasks import Task

BATCH = 20
PLAN_S = 600.0
#: A request whose planning was begun so often and never ended is not begun again.
PLAN_TRIES_MAX = 5
PLAN_TOKENS = 32_768

logger = log.get(__name__)


async def admit(parts: Parts) -> bool:
    """Begin what needs no planner, hand the rest to the planner; True when there may be more."""
    planning = [name.partition(" ")[2] for name in parts.slots.names if name.startswith("plan ")]
    roots = await record.pending_roots(parts.store, planning, BATCH)
    for root in roots:
        try:
            await _admit(parts, root)
        except (InputError, PlanError) as error:
            await fail(parts, root, str(error))
    return len(roots) == BATCH


async def _admit(parts: Parts, root: Task) -> None:
    day = Spent(spent_usd=sum(parts.spent.values()), reserved_usd=0.0, by_agent=parts.spent)
    if (reason := refusal(day, parts.budgets.daily)) is not None:
        await fail(parts, root, reason)
        return
    content = root.instruction
    if not content.strip():
        await fail(parts, root, "the request is empty")
        return
    chosen = _effort(root)
    own = _single(parts, root, chosen)
    if hooked.prompts(parts):
        work = partial(_submit, parts, root, chosen, own)
        parts.slots.add(f"plan {root.id}", root.priority, work)
    elif own is not None:
        await _begin(parts, root, own, Usage())
    else:
        parts.tell(f"accepted {root.id[:8]} · planning · {plan.short(content)}")
        parts.slots.add(f"plan {root.id}", root.priority, partial(_plan, parts, root, chosen))


def _single(parts: Parts, root: Task, chosen: Effort | None) -> Plan | None:
    """The plan of a request that needs no planner."""
    if root.requested_agent is not None:
        parts.roster.get(root.requested_agent)
        return plan.single(root.instruction, chosen or Effort.STANDARD, root.requested_agent)
    if (chosen or effort.infer(root.instruction)) is Effort.MINIMAL:
        return plan.single(root.instruction, Effort.MINIMAL, None)
    return None


async def _submit(parts: Parts, root: Task, chosen: Effort | None, own: Plan | None) -> None:
    """Let the owner's hooks see the request, then begin it, unless one of them refuses it."""
    try:
        root, refused = await hooked.submitted(parts, root)
        if refused is not None:
            await fail(parts, root, refused)
        elif own is not None:
            await _begin(parts, root, own, Usage())
        else:
            await _plan(parts, root, chosen)
    except (BusError, StoreError) as error:
        logger.warning("a request was interrupted", task_id=root.id, error=str(error))
    except AIError as error:
        await fail(parts, root, str(error))
    parts.wake.set()


async def _plan(parts: Parts, root: Task, chosen: Effort | None) -> None:
    """Ask the planner; once more when its plan cannot be run. Done again after a crash."""
    await parts.emit(task_event(root, Status.PENDING, 0.02, phase="PLAN"))
    try:
        if await record.attempt(parts.store, root.id) > PLAN_TRIES_MAX:
            raise PlanError([f"planning was begun {PLAN_TRIES_MAX} times and never ended"])
        found, usage = await _asked(parts, root, chosen)
        await _begin(parts, root, found, usage)
    except (BusError, StoreError) as error:
        logger.warning("planning was interrupted", task_id=root.id, error=str(error))
    except AIError as error:
        await fail(parts, root, str(error))
    except Exception as error:
        logger.exception("planning failed", task_id=root.id)
        await fail(parts, root, f"internal error while planning: {type(error).__name__}")
    parts.wake.set()


async def _asked(parts: Parts, root: Task, chosen: Effort | None) -> tuple[Plan, Usage]:
    history = prompt.recent(await earlier.history(parts.store, root))
    text = prompt.planning(root.instruction, history, chosen, hooked.told(root))
    system = prompt.system(parts.lead, parts.agents)
    files = await earlier.attached(parts.store, root)
    given = attachments.blocks(parts.settings.attachments, files)
    said = [*given, {"type": "text", "text": text}] if given else text
    turns: list[dict[str, object]] = [{"role": "user", "content": said}]
    deadline = Deadline.after(PLAN_S)
    usage = Usage()
    faults: tuple[str, ...] = ()
    for attempt in (1, 2):
        reply = await parts.llm.reply(
            Ask(
                agent=NAME,
                purpose="plan",
                task_id=root.id,
                model=parts.roster.supervisor.model
                or parts.models.pick(NAME, chosen or Effort.STANDARD, "plan"),
                system=system,
                messages=turns,
                tools=[plan.TOOL],
                force_tool=plan.TOOL["name"],
                max_tokens=PLAN_TOKENS,
            ),
            deadline=deadline,
        )
        usage += reply.usage
        call = next((one for one in reply.tool_calls if one.name == plan.TOOL["name"]), None)
        try:
            if call is None:
                raise PlanError(["the planner did not call make_plan"])
            return plan.at_effort(plan.validate(call.input, list(parts.agents)), chosen), usage
        except PlanError as error:
            faults = error.faults
            logger.warning("plan was refused", task_id=root.id, attempt=attempt, faults=len(faults))
            parts.tell(f"plan of {root.id[:8]} refused: {'; '.join(faults)}")
        told = prompt.again(faults)
        results: list[dict[str, object]] = [
            {"type": "tool_result", "tool_use_id": one.id, "content": told, "is_error": True}
            for one in reply.tool_calls
        ]
        turns += [
            {"role": "assistant", "content": reply.content or "(nothing)"},
            {"role": "user", "content": results or told},
        ]
    raise PlanError(faults)


async def _begin(parts: Parts, root: Task, found: Plan, usage: Usage) -> None:
    budget = parts.budgets.root(found.effort)
    async with parts.store.transaction() as tx:
        current, _ = await record.lock(tx, root.id)
        if current.status is not Status.PENDING:
            return
        subtasks = await record.begin(tx, current, found, budget, usage)
        await record.log(
            tx, root.id, "planned", {"subtasks": len(subtasks), "effort": found.effort.value}
        )
    _tell(parts, root, found)
    await parts.emit(
        event(Kind.PLAN, root, NAME, subtasks=[_shown(task) for task in subtasks]),
        task_event(root, Status.IN_PROGRESS, 0.05),
    )
    parts.wake.set()


async def fail(parts: Parts, root: Task, error: str) -> None:
    """End a request that never began: the error is its answer."""
    error = storable(error)
    async with parts.store.transaction() as tx:
        current, subtasks = await record.lock(tx, root.id)
        if current.status.ended or subtasks:
            return
        await _failed(tx, current, error)
    parts.tell(f"failed {root.id[:8]} · {error}")
    await parts.emit(
        event(
            Kind.MESSAGE,
            root,
            NAME,
            message_id=answer_id(root.id),
            role="assistant",
            content=sorry(error),
            agent=NAME,
        ),
        task_event(root, Status.FAILED, 1.0, error=error),
    )


def sorry(error: str) -> str:
    """What a person reads instead of an answer."""
    return f"This request was not carried out: {error}"


async def _failed(tx: Session, root: Task, error: str) -> None:
    ended = await record.end_root(
        tx,
        root,
        Status.FAILED,
        message_id=answer_id(root.id),
        answer=sorry(error),
        agent=NAME,
        error=error,
        output={},
        usage=root.usage,
    )
    if ended:
        await memory.end(tx, root, Status.FAILED)
    await record.log(tx, root.id, f"failed: {error}", level="error")


def _effort(root: Task) -> Effort | None:
    """The effort that the person chose. Raises PlanError for one that there is not."""
    raw = root.input.get("effort")
    if raw is None:
        return None
    try:
        return Effort(raw)
    except ValueError:
        known = ", ".join(Effort)
        raise PlanError([f"no effort named {raw!r}; there are: {known}"]) from None


def _shown(task: Task) -> dict[str, object]:
    return {
        "id": task.id,
        "key": task.key,
        "agent": task.agent,
        "title": task.title,
        "instruction": task.instruction,
        "depends_on": list(task.depends_on),
        "effort": task.effort,
        "criteria": list(task.criteria),
    }


def _tell(parts: Parts, root: Task, found: Plan) -> None:
    if len(found.steps) == 1 and not found.summary:
        parts.tell(f"accepted {root.id[:8]} · {found.effort} · {found.steps[0].title}")
        return
    parts.tell(f"plan of {root.id[:8]}: {found.summary}")
    for step in found.steps:
        after = f" after {', '.join(step.depends_on)}" if step.depends_on else ""
        parts.tell(f"  {step.key} → {step.agent} ({step.effort}){after}: {step.title}")
