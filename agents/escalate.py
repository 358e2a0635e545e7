"""What needs leave: ask, wait, look again, redeem, run exactly that, once.

    wish ─▶ operands ─▶ escalate ─▶ (wait) ─▶ operands again ─▶ redeem ─▶ intent ─▶ run

The supervisor decides and holds the approval; every state of it survives this process. What is
redeemed and has no result is unknown. The task's hands are closed before the operands are looked
at, so that nothing of the task can change them; a grant of an address alone leaves them open.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from agents import broker, leave, operands, tool_audit
from agents.grip import Grip
from agents.hands import ToolResult
from agents.leave import Wish
from agents.parts import Parts
from agents.reins import StoppingError
from agents.task import Task
from agents.tool_audit import End
from agents.tool_shape import Need
from base import log, streams
from base.approvals import Approval, ApprovalRequest, ApprovalStatus, Operand, binding
from base.deadline import Deadline
from base.errors import (
    AIError,
    BusError,
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    StaleLeaseError,
    TooManyError,
)
from base.verbs import TOOL

ASK_S = 10.0
AGAIN_S = 1.0
#: The net under the control that tells of a decision.
POLL_S = 30.0
NO_WAY_ROUND = "do not try another way"
UNKNOWN = (
    "UNKNOWN: the system was interrupted while this call ran. It may or may not have happened. "
    "Look at the present state first; repeat it only if it did not happen."
)
_FINAL = (TooManyError, ForbiddenError, InputError, NotFoundError, ConflictError)

Run = Callable[[str, dict[str, Any]], Awaitable[ToolResult]]
logger = log.get("escalate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a call ended. `refused`: by policy or a person, so that repeating it is no use; `rank`:
    the level it ran at, when that was more than the task's.
    """

    result: ToolResult
    outcome: End
    reason: str = ""
    refused: bool = False
    rank: int = 0


_FOREIGN = "it failed; what it said is foreign text"


async def carry_out(
    parts: Parts, task: Task, grip: Grip, call: dict[str, Any], need: Need, run: Run
) -> Ended:
    """The whole way of one call. Raises StoppingError when the process is to end; it goes on from
    the journal and the supervisor's record then.
    """
    try:
        wish = leave.wish(call["name"], call["input"], need, task, parts)
        if wish.files is not None:  # nothing of the task changes its files from here on
            await grip.release()
        grip.hear()
        request = await _request(task, call, wish)
        approval = await _decided(parts, task, request)
        if approval.status is ApprovalStatus.APPROVED:
            await parts.reins.safe_point(task)
            approval = await _redeemed(parts, task, call, wish, approval)
    except TooManyError as error:
        again = f"{error}. Go on with other work, or ask again in {error.retry_after_s:.0f} s."
        return Ended(result=_no(again), outcome="denied", reason=str(error))
    except ForbiddenError as error:
        text = f"denied by policy: {error}; {NO_WAY_ROUND}"
        return Ended(result=_no(text), outcome="denied", reason=text, refused=True)
    except (InputError, NotFoundError, ConflictError, BusError) as error:
        return Ended(result=_no(f"not run: {error}"), outcome="failure", reason=str(error))
    if approval.status in {ApprovalStatus.DENIED, ApprovalStatus.EXPIRED}:
        text = _denial(approval)
        return Ended(result=_no(text), outcome="denied", reason=text, refused=True)
    if approval.status is ApprovalStatus.USED and not task.intended(call["id"]):
        return Ended(result=_no(UNKNOWN), outcome="failure", reason=tool_audit.INTERRUPTED)
    return await _run(parts, task, grip, call, wish, approval, run)


async def _request(task: Task, call: dict[str, Any], wish: Wish) -> ApprovalRequest:
    """What would run now, with its files as they are now. InputError when it cannot be told."""
    order = task.order
    found = await _operands(task, wish)
    try:
        return ApprovalRequest(
            task_id=order.task_id,
            root_id=order.root_id,
            epoch=order.epoch,
            agent=order.agent,
            user_id=order.user_id,
            call_id=call["id"],
            kind=wish.kind,
            tool=wish.tool,
            argv=wish.argv,
            cwd=str(task.workspace),
            environment={},
            operands=found,
            level=wish.rank,
            host=wish.host,
            reason=wish.reason,
            tainted=task.tainted,
            destructive=wish.destructive,
            person=wish.person,
        )
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        told = first["msg"].removeprefix("Value error, ")
        raise InputError(f"it cannot be asked for: {told}") from error


async def _operands(task: Task, wish: Wish) -> tuple[Operand, ...]:
    if wish.files is None:
        return ()
    seen = (*task.level.read, *task.level.write)
    return await asyncio.to_thread(operands.measure, wish.tool, wish.files, task.workspace, seen)


async def _decided(parts: Parts, task: Task, request: ApprovalRequest) -> Approval:
    """Ask and wait until it is decided: no model call, no work, only the heartbeat goes on."""
    call_id, waited = request.call_id, False
    payload = {"verb": "escalate", "request": request.model_dump(mode="json")}
    try:
        while True:
            parts.reins.listen()
            try:
                approval = _approval(await _ask(parts, payload))
            except ForbiddenError as error:
                changed = _changed(task, call_id, request.operands)
                raise ForbiddenError(f"{error}{changed}") from error
            if task.approval(call_id) is None:
                task.add(
                    "asked",
                    sync=True,
                    call_id=call_id,
                    approval_id=approval.id,
                    operands=[one.model_dump() for one in request.operands],
                )
            if not approval.status.open:
                break
            if not waited:
                parts.reins.ask(approval)
                waited = True
                leave.show(parts, approval)
            left_s = (approval.expires_at - datetime.now(UTC)).total_seconds()
            await parts.reins.news(min(POLL_S, max(left_s, 0.0) + AGAIN_S))
    finally:
        parts.reins.ask(None)
    told = {"call_id": call_id, "approval_id": approval.id, "status": approval.status.value}
    task.add("decided", sync=True, **told, by=approval.decided_by, via=approval.decided_via)
    parts.transcript.line(f"{approval.status} by {approval.decided_by or 'nobody'}", "33")
    return approval


async def _redeemed(
    parts: Parts, task: Task, call: dict[str, Any], wish: Wish, approval: Approval
) -> Approval:
    """The approval, used for what would run now; the intent is then on the disk.

    Raises ForbiddenError when something changed since it was asked, BusError when it cannot be
    written down first. Answered late by a supervisor that had taken it: `used` without an intent.
    What is for the broker stays unused: it looks at the approval itself and uses it up.
    """
    now = await _request(task, call, wish)
    if wish.rank >= tool_audit.BEFORE_RANK:
        await tool_audit.before(parts, task, call, wish.rank)
    if wish.tool == TOOL:
        if binding(now) != approval.binding:
            changed = _changed(task, call["id"], now.operands)
            raise ForbiddenError(f"it is not what was approved{changed}")
        task.add("intent", sync=True, call_id=call["id"], name=call["name"], input=call["input"])
        return approval
    payload = {
        "verb": "redeem",
        "approval_id": approval.id,
        "binding": binding(now),
        "agent": now.agent,
        "task_id": now.task_id,
        "epoch": now.epoch,
    }
    repeated = False
    while True:
        try:
            answer = await _ask_once(parts, payload)
        except ForbiddenError as error:
            if repeated:
                asked = {"verb": "escalate", "request": now.model_dump(mode="json")}
                again = _approval(await _ask(parts, asked))
                if again.status is ApprovalStatus.USED:
                    return again
            changed = _changed(task, call["id"], now.operands)
            raise ForbiddenError(f"{error}{changed}") from error
        if answer is not None:
            task.add(
                "intent", sync=True, call_id=call["id"], name=call["name"], input=call["input"]
            )
            return _approval(answer)
        repeated = True
        await parts.reins.rest(AGAIN_S)


async def _run(
    parts: Parts,
    task: Task,
    grip: Grip,
    call: dict[str, Any],
    wish: Wish,
    approval: Approval,
    run: Run,
) -> Ended:
    """Exactly what was approved. The intent is on the disk already."""
    if wish.kind == "domain":
        assert wish.host is not None
        task.add("granted", sync=True, approval_id=approval.id, host=wish.host)
        await grip.allow(wish.host)
        text = f"approved by {_who(approval)}: {wish.host} may be reached until the task ends"
        return Ended(result=ToolResult(ok=True, text=text), outcome="success", reason=text)
    if wish.tool == TOOL:
        result = await broker.call(parts, task, wish.given, approval.id)
        return ended(result, f"approved by {_who(approval)}", wish.rank)
    if not wish.alone:
        result = await run(wish.tool, wish.given)
        return ended(result, f"approved by {_who(approval)}", wish.rank)
    asked = approval.request.operands

    async def unchanged() -> None:
        if moved := _moved(asked, await _operands(task, wish)):
            raise ForbiddenError(f"changed since it was asked: {', '.join(moved[:5])}")

    grants = (*task.granted, *([wish.host] if wish.host else []))
    try:
        result = await grip.alone(wish.level, grants, wish.tool, wish.given, unchanged)
    except (ForbiddenError, InputError) as error:
        text = f"not run: {error}"
        return Ended(result=_no(text), outcome="denied", reason=text, refused=True)
    try:
        moved = _moved(asked, await _operands(task, wish))
    except InputError:
        moved = ["more than can be looked at"]
    own = os.path.realpath(task.workspace)  # what the command itself writes there is its work
    moved = [path for path in moved if not path.endswith("/.git") and path != own]
    reason = f"approved by {_who(approval)}"
    note = f"[{reason}; it ran in a shell of its own, and the task's shell begins anew]"
    if moved:
        listed = ", ".join(moved[:5]) + (" …" if len(moved) > 5 else "")
        reason += f"; changed while it ran: {listed}"
        note += f"\n[changed while it ran: {listed}]"
    told = ToolResult(
        ok=result.ok,
        text=f"{result.text}\n{note}",
        files=result.files,
        refused=result.refused,
        untrusted=result.untrusted,
    )
    return ended(told, reason, wish.rank)


def ended(result: ToolResult, reason: str = "", rank: int = 0) -> Ended:
    """How a call ended that ran, by its result. What failed is told by its first line, which is
    the tool's own word; where foreign text came along it may be anybody's, and is not repeated.
    """
    reasons = [reason] if reason else []
    if result.refused:
        reasons.append(f"blocked by policy: {', '.join(result.refused)}")
    elif not result.ok:
        reasons.append(_FOREIGN if result.untrusted else result.text.partition("\n")[0])
    word: End = "denied" if result.refused else "success" if result.ok else "failure"
    told = "; ".join(reasons)
    return Ended(result=result, outcome=word, reason=told, refused=bool(result.refused), rank=rank)


async def _ask(parts: Parts, payload: dict[str, Any]) -> dict[str, Any]:
    """The supervisor's answer, however long it takes to give one."""
    while (answer := await _ask_once(parts, payload)) is None:
        await parts.reins.rest(AGAIN_S)
    return answer


async def _ask_once(parts: Parts, payload: dict[str, Any]) -> dict[str, Any] | None:
    """None when it did not answer, so that nobody knows whether it was done.

    Raises StoppingError when the task is another's by now: the journal stays as it stands.
    """
    try:
        return await parts.bus.ask(
            streams.SERVICE_SUPERVISOR, payload, deadline=Deadline.after(ASK_S)
        )
    except StaleLeaseError as error:
        raise StoppingError from error
    except _FINAL:
        raise
    except AIError as error:
        logger.info("unanswered; again", verb=payload["verb"], reason=str(error))
        return None


def _approval(answer: dict[str, Any]) -> Approval:
    return Approval.model_validate(answer["approval"])


def _changed(task: Task, call_id: str, now: tuple[Operand, ...]) -> str:
    """Which files are not what they were when it was asked; "" for none."""
    record = task.approval(call_id)
    if record is None:
        return ""
    moved = _moved(tuple(Operand(**one) for one in record["operands"]), now)
    return f" (changed since it was asked: {', '.join(moved[:5])})" if moved else ""


def _moved(before: tuple[Operand, ...], after: tuple[Operand, ...]) -> list[str]:
    """The paths at which the two differ."""
    one, other = ({found.path: found.sha256 for found in side} for side in (before, after))
    return sorted(path for path in one | other if one.get(path) != other.get(path))


def _denial(approval: Approval) -> str:
    if approval.status is ApprovalStatus.EXPIRED:
        return f"denied: nobody answered in time; {NO_WAY_ROUND}"
    why = f" ({approval.decided_why})" if approval.decided_why else ""
    return f"denied by {_who(approval)}{why}; {NO_WAY_ROUND}"


def _who(approval: Approval) -> str:
    return approval.decided_by or "policy"


def _no(text: str) -> ToolResult:
    return ToolResult(ok=False, text=text)


__all__ = ["NO_WAY_ROUND", "UNKNOWN", "Ended", "carry_out", "ended"]
