"""One task from its order to its outcome: ask the state machine what is next, do it, repeat."""

from __future__ import annotations

from agents import act, frame, learn, mcp_tools, tool_audit, verify
from agents.grip import Grip
from agents.parts import Parts
from agents.task import Task
from base import log
from base.errors import AIError
from base.messages import Kind, Outcome, Phase, Status
from pai import phases
from pai.phases import Do, Step

logger = log.get("loop")


async def run(parts: Parts, task: Task) -> Outcome:
    """Work until there is an outcome; it is in the journal when this returns.

    Raises StoppingError at a safe point when the process is to end; the journal then holds all
    that is needed to go on.
    """
    try:
        _agree(parts, task)
        await parts.hooked.started(task)
        outcome = await _run(parts, task)
        await parts.hooked.ended(task, outcome.status)
    finally:
        await parts.hooked.release()
    return outcome


def _agree(parts: Parts, task: Task) -> None:
    """The goals of the first start hold until the task ends: the prompt stays what it was."""
    goals = parts.telos.now()
    kept = next((r["version"] for r in task.records if r["kind"] == "goals"), None)
    if kept is None:
        task.add("goals", version=goals.version, text=goals.text)
    elif kept != goals.version:
        parts.transcript.line("TELOS has changed; this task keeps the goals it began with", "33")


async def _run(parts: Parts, task: Task) -> Outcome:
    grip = Grip(parts, task)
    try:
        await _offer(parts, task)
        while (step := phases.next_step(task.state)).do is not Do.NOTHING:
            if task.handed is not None:
                await tool_audit.unfinished(parts, task, "the task was handed off")
                learn.end(task)
                continue
            grip.hear()
            _show(parts, task, step)
            match step.do:
                case Do.FRAME:
                    await frame.frame(parts, task, step)
                case Do.FREEZE:
                    await frame.freeze(parts, task)
                case Do.EXECUTE:
                    await act.execute(parts, task, grip)
                case Do.VERIFY:
                    await verify.measure(parts, task, grip)
                case Do.TRACE:
                    await verify.trace(parts, task)
                case Do.REFLECT:
                    await learn.reflect(parts, task)
                case Do.LEARN:
                    await learn.learn(parts, task)
                case Do.END:
                    learn.end(task)
    except AIError as error:
        logger.warning("task failed", task_id=task.order.task_id, error=str(error))
        await tool_audit.unfinished(parts, task, str(error))
        learn.fail(task, error)
    finally:
        await grip.release()
        await parts.mcp.release()
    assert task.end is not None
    return task.end


async def _offer(parts: Parts, task: Task) -> None:
    """Ask the agent's servers for their tools, once a task: it keeps what it was offered."""
    used = parts.mcp.servers and task.state.tier.frames
    if used and mcp_tools.offered(task.records) is None:
        offers = await parts.mcp.offers(task.level, task.workspace)
        task.add("offered", sync=True, **mcp_tools.record(offers))


def _show(parts: Parts, task: Task, step: Step) -> None:
    """Tell window and portal where the task stands; minimal effort has no phases to show."""
    if not task.state.tier.frames or step.do is Do.END:
        return
    task.write_prd(step.phases[-1].lower())
    progress = (list(Phase).index(step.phases[0])) / len(Phase)
    within = {Do.FREEZE, Do.TRACE, *({Do.LEARN} if task.state.tier.reflect else ())}
    if step.do not in within:
        parts.transcript.phase(" + ".join(step.phases), task.state.round)
    parts.emit(
        Kind.TASK,
        status=Status.IN_PROGRESS,
        phase=step.phases[-1],
        progress=round(progress, 2),
        title=task.order.instruction[:80],
        cost_usd=task.spent.cost_usd,
    )
