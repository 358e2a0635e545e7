"""EXECUTE: the tool loop. An intent is on the disk before a call runs, its result after.

A call whose intent has no result was under way when the process died. It is never run again by
itself: the model is told to look first, and at an elevated level the task stops for a person.
"""

from __future__ import annotations

import json
from typing import Any

from agents import (
    broker,
    escalate,
    leave,
    mcp_tools,
    model,
    peer,
    prompt,
    tool_audit,
    tool_calls,
    tools,
)
from agents.escalate import UNKNOWN, Ended
from agents.grip import Grip
from agents.hands import ToolResult
from agents.parts import Parts
from agents.task import Task, calls, reply_text
from agents.tool_shape import Need
from base.errors import AIError, BusError, ConflictError, ModelError
from base.messages import Kind
from base.reply import LIMIT_REASONS
from base.terminal import short
from base.verbs import TOOL

CUTS_MAX = 3
#: Calls past the tool limit that are answered before the task fails.
PAST_LIMIT_MAX = 5
#: How often in a row the same call may be refused; once more fails the task.
SAME_REFUSED_MAX = 3
LIMIT_TOLD = "the limit of {} tool calls for a task is reached; end with your answer now"
SAME_TOLD = (
    "[system] This same call was refused {} times in a row. The answer stays the same: go on "
    "without it or end with your answer. Once more, and the task fails."
)
AGAIN_S = 1.0


async def execute(parts: Parts, task: Task, grip: Grip) -> None:
    """Ask and act until the model answers without tool calls, or hands the task off."""
    purpose = "execute" if task.state.tier.frames else "minimal"
    if purpose == "execute":
        task.tell(f"execute-{task.state.round}", _begin(task))
    while True:
        reply = task.pending(purpose) or await model.ask(parts, task, purpose)
        if not calls(reply):
            if reply["stop_reason"] in LIMIT_REASONS:
                _continue(task)
            elif reply["stop_reason"] == "refusal":
                raise ModelError(f"the model refused: {reply_text(reply) or 'it gave no reason'}")
            elif not reply_text(reply).strip() and not task.told("empty"):
                task.tell("empty", "[system] Your last message was empty. Give your answer.")
            elif await parts.hooked.stop(task, reply_text(reply)) and not parts.reins.steered(task):
                task.add("worked", sync=True)
                return
        for call in task.unanswered(reply):
            await _act(parts, task, grip, call)
            if task.handed is not None:
                return


async def _act(parts: Parts, task: Task, grip: Grip, call: dict[str, Any]) -> None:
    """Carry out one tool call, or tell the model why not. Each ends in one audit event."""
    call_id, name, given = call["id"], call["name"], call["input"]
    if task.intended(call_id):
        if task.level.rank >= tool_audit.BEFORE_RANK and task.approval(call_id) is None:
            raise ConflictError(
                f"{name} was interrupted and may or may not have happened; at level "
                f"{task.level.rank} a person must look before the task goes on"
            )
        gone = ToolResult(ok=False, text=UNKNOWN)
        await _settle(
            parts, task, call, Ended(result=gone, outcome="failure", reason=tool_audit.INTERRUPTED)
        )
        return
    _no_endless_refusals(task, call)
    if (ended := _refusal(task, name, given)) is not None:
        parts.transcript.tool(name, short(str(given)))
        await _settle(parts, task, call, ended)
        return
    await _pace(parts, name)
    await parts.reins.safe_point(task)
    summary = _summary(given)
    parts.transcript.tool(name, summary)
    parts.emit(Kind.TOOL, name=name, call_id=call_id, state="started", summary=summary, ok=None)

    async def run(tool: str, input: dict[str, Any]) -> ToolResult:
        return await _run(parts, task, grip, tool, input)

    wanted = tools.needs(name, given, task.known)
    if name == TOOL:
        try:
            wanted = await broker.need(parts, task, given, wanted)
        except AIError as error:
            await _settle(parts, task, call, _not_run(f"not done: {error}"))
            return
    need = await parts.hooked.before(task, call, wanted)
    if isinstance(need, str):
        await _settle(parts, task, call, _not_run(need, denied=True))
        return
    if leave.needed(task, name, need):
        ended = await escalate.carry_out(parts, task, grip, call, need, run)
    elif (held_up := await _announced(parts, task, call, need)) is not None:
        ended = held_up
    else:
        task.add("intent", sync=True, call_id=call_id, name=name, input=given)
        ended = escalate.ended(await run(name, given))
    await _settle(parts, task, call, ended)
    await parts.hooked.after(task, call, ended.result)


async def _run(
    parts: Parts, task: Task, grip: Grip, name: str, given: dict[str, Any]
) -> ToolResult:
    """The call itself, wherever it runs."""
    where = task.known[name].where
    if where == "sandbox":
        return await grip.call(name, given)
    if where == "bus":
        return await tool_calls.call(parts, task, name, given)
    offer = next(one for one in mcp_tools.offered(task.records) or () if one.name == name)
    return await parts.mcp.call(offer, given, task.level, task.workspace)


async def _announced(parts: Parts, task: Task, call: dict[str, Any], need: Need) -> Ended | None:
    """At an elevated level a call is written down before it runs; None: it may run."""
    rank = task.level.rank if need.rank else 0
    if rank < tool_audit.BEFORE_RANK:
        return None
    try:
        await tool_audit.before(parts, task, call, rank)
    except BusError as error:
        text = f"not run: at level {rank} a call is written down first, which failed: {error}"
        return Ended(result=ToolResult(ok=False, text=text), outcome="failure", reason=text)
    return None


async def _settle(parts: Parts, task: Task, call: dict[str, Any], ended: Ended) -> None:
    """Write down how the call ended, then give the result to the model."""
    result = ended.result
    await tool_audit.ended(parts, task, call, ended.outcome, ended.reason, ended.rank)
    if result.untrusted:  # a failure may quote foreign text too
        task.taint(result.untrusted)
    text, digest = result.text, tool_audit.digest([call["name"], call["input"]])
    if ended.refused and _refused_before(task, digest) == SAME_REFUSED_MAX - 1:
        text += "\n" + SAME_TOLD.format(SAME_REFUSED_MAX)
    task.add(
        "result",
        sync=True,
        call_id=call["id"],
        name=call["name"],
        ok=result.ok,
        text=text,
        files=list(result.files),
        refused=digest if ended.refused else None,
    )
    parts.transcript.result(result.text, ok=result.ok)
    parts.emit(
        Kind.TOOL,
        name=call["name"],
        call_id=call["id"],
        state="ended",
        summary=short(result.text),
        ok=result.ok,
    )


def _refused_before(task: Task, digest: str) -> int:
    """How often in a row, until now, the call of that digest was refused."""
    count = 0
    for record in reversed(task.records):
        if record["kind"] == "result":
            if record.get("refused") != digest:
                break
            count += 1
    return count


def _no_endless_refusals(task: Task, call: dict[str, Any]) -> None:
    """Raises ModelError for a call that was refused too often to be made again."""
    digest = tool_audit.digest([call["name"], call["input"]])
    if _refused_before(task, digest) >= SAME_REFUSED_MAX:
        raise ModelError(
            f"the model repeated a refused call {SAME_REFUSED_MAX + 1} times: {call['name']} "
            f"{_summary(call['input'])}"
        )


async def _pace(parts: Parts, name: str) -> None:
    """Wait until one more call is within the rates of this agent."""
    for what in ("agents.tool_calls", "agents.inter_agent_messages")[: 1 + (name in peer.TALK)]:
        told = False
        while left_s := await _left_s(parts, what):
            if not told:
                allowed = parts.limiter.rates.rate(what)
                parts.transcript.line(f"waiting: {allowed} calls are allowed", "33")
                told = True
            await parts.reins.rest(left_s)


async def _left_s(parts: Parts, what: str) -> float:
    try:
        return await parts.limiter.hit(what, parts.spec.name)
    except BusError:  # the bus logs its outages itself
        return AGAIN_S


def _refusal(task: Task, name: str, given: object) -> Ended | None:
    """Why the call is not run; None when it may be."""
    if name in prompt.FORCED:
        return _not_run(f"{name} is called only when the system asks for it; go on with the work")
    limit = task.state.tier.tool_steps
    if task.tool_steps() < limit:
        known = task.known
        if name in known and name not in task.offered:
            text = f"{name} is not one of your tools; there are: {', '.join(task.offered)}"
            return _not_run(text, denied=True)
        fault = tools.fault(name, given, known)
        return None if fault is None else _not_run(fault)
    told = LIMIT_TOLD.format(limit)
    past = sum(r["kind"] == "result" and r["text"] == told for r in task.records)
    if past >= PAST_LIMIT_MAX:
        raise ModelError(f"the model went on calling tools past the limit of {limit}")
    return _not_run(told)


def _not_run(text: str, *, denied: bool = False) -> Ended:
    return Ended(
        result=ToolResult(ok=False, text=text),
        outcome="denied" if denied else "failure",
        reason=text,
        refused=denied,
    )


def _begin(task: Task) -> str:
    """What the system says at the start of EXECUTE, in the first round and in later ones."""
    rows = "\n".join(f"- {one.id}: {one.text} ({one.probe.kind})" for one in task.criteria)
    listed = f" The criteria that the system will measure:\n{rows}" if rows else ""
    if task.state.round == 1:
        return f"[system] Phase EXECUTE. Do the work, then give your answer.{listed}"
    return (
        f"[system] Phase EXECUTE, round {task.state.round} of {task.state.tier.rounds}. Mend what "
        f"failed, then give your whole answer again.{listed}"
    )


def _continue(task: Task) -> None:
    """The reply did not fit: ask for the rest in smaller pieces, a few times."""
    cuts = sum(r["kind"] == "told" and r["key"].startswith("cut-") for r in task.records)
    if cuts >= CUTS_MAX:
        raise ModelError(f"the model's reply was too long {CUTS_MAX + 1} times")
    task.tell(
        f"cut-{cuts + 1}",
        "[system] Your reply was cut at its longest length and no tool call in it was run. "
        "Go on in smaller pieces; give the final answer whole.",
    )


def _summary(given: object) -> str:
    """One line of a call's input: its main value, or all of it."""
    if isinstance(given, dict):
        for key in ("command", "host", "path", "pattern", "question", "text", "agent"):
            if isinstance(given.get(key), str):
                return short(given[key])
    return short(json.dumps(given, ensure_ascii=False, default=str))
