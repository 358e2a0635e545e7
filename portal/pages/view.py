"""What the chat page shows of one request: a pure fold of events over frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from base.approvals import Approval
from base.messages import Event, Kind, Phase, Status
from portal.work import Task, TaskWhole

PHASES = tuple(phase.value for phase in Phase)
SAID_CHARS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A criterion; verdict None: not measured yet."""

    id: str
    text: str
    verdict: str | None = None
    evidence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One subtask of the plan and the agent at it. `progress` 0 to 1; `waits`: for which leave,
    in words, and `approval`: its id.
    """

    id: str
    agent: str = ""
    title: str = ""
    key: str = ""
    depends_on: tuple[str, ...] = ()
    status: str = "pending"
    phase: str | None = None
    progress: float = 0.0
    tool: str = ""
    waits: str = ""
    approval: str = ""
    tools: int = 0
    said: str = ""
    cost_usd: float = 0.0
    error: str = ""
    checks: tuple[Check, ...] = ()

    @property
    def ended(self) -> bool:
        return Status(self.status).ended

    @property
    def working(self) -> bool:
        return self.status in {"assigned", "in_progress", "waiting"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A request as the page shows it. `answer` grows by chunks, of which `seq` was the last of
    `attempt`; `whole`: it is in the record.
    """

    root_id: str
    status: str = "pending"
    planned: bool = False
    error: str = ""
    cost_usd: float = 0.0
    answer: str = ""
    attempt: int = 0
    seq: int = -1
    whole: bool = False
    steps: Mapping[str, Step] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return Status(self.status).ended


def apply(run: Run, event: Event) -> Run:
    """The run after `event`, which is about it. Unknown fields change nothing."""
    data = event.data
    if event.kind is Kind.CHUNK:
        return _chunk(run, data)
    if event.kind is Kind.MESSAGE:
        if data.get("role") != "assistant":
            return run
        return replace(run, answer=str(data.get("content", "")), whole=True)
    if event.kind is Kind.PLAN:
        return replace(run, planned=True, steps=_planned(run.steps, data.get("subtasks") or ()))
    if event.task_id in {None, run.root_id}:
        return _root(run, data) if event.kind is Kind.TASK else run
    task_id = str(event.task_id)
    step = run.steps.get(task_id) or Step(id=task_id, agent=event.agent, title="working on it")
    return replace(run, steps={**run.steps, task_id: _step(step, event)})


def opened(whole: TaskWhole) -> Run:
    """The run as the record knows it, for a page that opens in the middle."""
    root = whole.task
    return Run(
        root_id=root.id,
        status=root.status.value,
        planned=bool(whole.subtasks),
        error=root.error or "",
        cost_usd=_cost(root),
        steps={part.id: _from_record(part, whole.approvals) for part in whole.subtasks},
    )


def _chunk(run: Run, data: Mapping[str, Any]) -> Run:
    attempt, content = int(data.get("attempt", 0)), str(data.get("content", ""))
    again = attempt == run.attempt
    seq = int(data.get("seq", run.seq + 1 if again else 0))
    if run.whole or attempt < run.attempt or (again and seq <= run.seq):
        return run
    before = run.answer if again else ""
    return replace(run, attempt=attempt, seq=seq, answer=before + content)


def _planned(known: Mapping[str, Step], subtasks: Any) -> Mapping[str, Step]:
    steps = dict(known)
    for part in subtasks:
        step = steps.pop(part["id"], None) or Step(id=part["id"])
        steps[part["id"]] = replace(
            step,
            key=str(part.get("key") or ""),
            agent=str(part.get("agent") or ""),
            title=str(part.get("title") or part.get("instruction") or ""),
            depends_on=tuple(part.get("depends_on") or ()),
            checks=step.checks or _criteria(part.get("criteria")),
        )
    return steps


def _root(run: Run, data: Mapping[str, Any]) -> Run:
    return replace(
        run,
        status=_status(data, run.status),
        error=str(data.get("error") or ""),
        cost_usd=float(data.get("cost_usd") or run.cost_usd),
    )


def _step(step: Step, event: Event) -> Step:
    data = event.data
    if event.kind is Kind.TASK:
        status = _status(data, step.status)
        return replace(
            step,
            agent=event.agent if event.agent not in {"", "supervisor"} else step.agent,
            status=status,
            title=str(data.get("title") or step.title),
            phase=data.get("phase") or step.phase,
            progress=1.0 if status == "completed" else float(data.get("progress") or step.progress),
            error=str(data.get("error") or ""),
            cost_usd=float(data.get("cost_usd") or step.cost_usd),
            tool="" if Status(status).ended else step.tool,
            waits="" if Status(status).ended else step.waits,
            approval="" if Status(status).ended else step.approval,
        )
    if event.kind is Kind.TOOL:
        started = data.get("state") == "started"
        shown = f"{data.get('name', '')} {data.get('summary') or ''}".strip()
        return replace(step, tool=shown if started else "", tools=step.tools + started)
    if event.kind is Kind.APPROVAL:
        if data.get("status") == "pending":
            return replace(step, waits=_waits(data), approval=str(data.get("id")))
        return replace(step, waits="", approval="")
    if event.kind is Kind.TEXT:
        return replace(step, said=str(data.get("content", ""))[-SAID_CHARS:])
    if event.kind is Kind.CRITERION:
        return replace(step, checks=_checked(step.checks, data))
    return step


def _checked(checks: tuple[Check, ...], data: Mapping[str, Any]) -> tuple[Check, ...]:
    fresh = Check(
        id=str(data.get("id", "")),
        text=str(data.get("text", "")),
        verdict=str(data["verdict"]) if data.get("verdict") else None,
        evidence=str(data.get("evidence") or ""),
    )
    if any(check.id == fresh.id for check in checks):
        return tuple(fresh if check.id == fresh.id else check for check in checks)
    return (*checks, fresh)


def _criteria(found: Any) -> tuple[Check, ...]:
    return tuple(
        Check(id=str(one.get("id", "")), text=str(one.get("text", "")))
        for one in (found or ())
        if isinstance(one, Mapping)
    )


def _status(data: Mapping[str, Any], before: str) -> str:
    status = str(data.get("status") or before)
    return status if status in set(Status) else before


def _cost(task: Task) -> float:
    return float(task.usage.get("cost_usd") or 0.0)


def _waits(approval: Mapping[str, Any]) -> str:
    short = str(approval.get("id"))[:8]
    answer = f"Answer in a terminal: ai-infra approvals approve {short}, or deny {short}."
    return f"Approval {short}, {approval.get('risk')} risk: {approval.get('sentence')} {answer}"


def _from_record(task: Task, approvals: Sequence[Approval] = ()) -> Step:
    output = task.output if isinstance(task.output, Mapping) else {}
    checks = _criteria(task.verification_criteria)
    for one in output.get("criteria") or ():
        checks = _checked(checks, one)
    given = task.input if isinstance(task.input, Mapping) else {}
    phases = PHASES.index(task.pai_phase) + 1 if task.pai_phase in PHASES else 0
    waits = [one.model_dump() for one in approvals if one.request.task_id == task.id]
    return Step(
        id=task.id,
        waits=_waits(waits[0]) if waits else "",
        approval=str(waits[0]["id"]) if waits else "",
        key=task.key or "",
        agent=task.assigned_agent,
        title=task.title or str(given.get("instruction") or "working on it"),
        depends_on=tuple(task.depends_on),
        status=task.status.value,
        phase=task.pai_phase,
        progress=1.0 if task.status is Status.COMPLETED else phases / (len(PHASES) + 1),
        cost_usd=_cost(task),
        error=task.error or "",
        checks=checks,
    )
