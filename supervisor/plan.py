"""The plan: the tool that the planner is forced to call, and what makes its input runnable.

Pure. `validate` reports every fault at once, so that the one second asking can name them all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from base.errors import PlanError
from base.messages import BROADCAST_TARGET, Criterion, Effort
from pai.criteria import PROBE_SCHEMA, probe_fault

MAX_SUBTASKS = 12
MAX_INSTRUCTION_CHARS = 20_000
TITLE_CHARS = 80
CRITERION_ID = re.compile(r"ISC-(A-)?\d+(\.\d+)*")

TOOL: dict[str, Any] = {
    "name": "make_plan",
    "description": "Split the request into subtasks for the team. Call it exactly once.",
    "input_schema": {
        "type": "object",
        "required": ["summary", "subtasks"],
        "properties": {
            "summary": {"type": "string", "description": "One line: how the team goes about it."},
            "subtasks": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_SUBTASKS,
                "items": {
                    "type": "object",
                    "required": ["key", "agent", "instruction", "effort"],
                    "properties": {
                        "key": {"type": "string", "description": "Short and unique: s1, s2, …"},
                        "agent": {
                            "type": "string",
                            "description": "An agent of the roster, or * for every agent.",
                        },
                        "title": {"type": "string", "description": "A few words for people."},
                        "instruction": {
                            "type": "string",
                            "description": "All the agent must know to do its part.",
                        },
                        "depends_on": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "Keys whose answers it needs; they run first.",
                        },
                        "effort": {"type": "string", "enum": [effort.value for effort in Effort]},
                        "budget_share": {
                            "type": "number",
                            "description": "Its part of the budget, above 0; all sum to at most 1.",
                        },
                        "criteria": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["id", "text", "probe"],
                                "properties": {
                                    "id": {"type": "string", "description": "ISC-1, or ISC-A-1"},
                                    "text": {"type": "string", "description": "An end state."},
                                    "probe": PROBE_SCHEMA,
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One subtask of a plan. `share` is its part (0..1] of the root's budget."""

    key: str
    agent: str | None
    instruction: str
    title: str
    effort: Effort
    share: float = 1.0
    depends_on: tuple[str, ...] = ()
    criteria: tuple[Criterion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    summary: str
    steps: tuple[Step, ...]

    @property
    def effort(self) -> Effort:
        """The greatest effort of the steps: it decides the root's budget."""
        order = list(Effort)
        return max((step.effort for step in self.steps), key=order.index)


def single(instruction: str, effort: Effort, agent: str | None, title: str = "") -> Plan:
    """The plan that needs no planner: one step."""
    step = Step(
        key="s1",
        agent=agent,
        instruction=instruction,
        title=title or short(instruction),
        effort=effort,
    )
    return Plan(summary="", steps=(step,))


def at_effort(plan: Plan, effort: Effort | None) -> Plan:
    """The plan with every step at the effort that the person chose; None leaves it as it is."""
    if effort is None:
        return plan
    return replace(plan, steps=tuple(replace(step, effort=effort) for step in plan.steps))


def short(text: str) -> str:
    """The first line of `text`, cut to TITLE_CHARS."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1].rstrip() + "…"


def validate(raw: Mapping[str, Any], agents: Sequence[str]) -> Plan:
    """The plan in a `make_plan` input. Raises PlanError with every fault.

    A step for every agent (`*`) becomes one step an agent, keyed `<key>-<agent>`; whoever
    depends on it depends on all of them. Missing budget shares get equal parts of what is
    left; shares are scaled down when they sum to more than 1.
    """
    faults: list[str] = []
    listed = raw.get("subtasks")
    if not isinstance(listed, list) or not listed:
        raise PlanError(["subtasks must be a list with at least one subtask"])
    expanded, broadcasts = _expand([item for item in listed if isinstance(item, dict)], agents)
    if any(not isinstance(item, dict) for item in listed):
        faults.append("every subtask must be an object")
    if len(expanded) > MAX_SUBTASKS:
        faults.append(f"{len(expanded)} subtasks; at most {MAX_SUBTASKS}")
    steps = [_step(item, position, agents, faults) for position, item in enumerate(expanded, 1)]
    keys = [step.key for step in steps]
    faults += [
        f"key {key!r} is used twice" for key in sorted({k for k in keys if keys.count(k) > 1})
    ]
    steps = [replace(step, depends_on=_spread(step.depends_on, broadcasts)) for step in steps]
    for step in steps:
        faults += [
            f"{step.key}: depends_on names {needed!r}, which is no subtask"
            for needed in step.depends_on
            if needed not in keys
        ]
    if (loop := cycle({step.key: step.depends_on for step in steps})) is not None:
        faults.append(f"depends_on goes in a circle: {' → '.join(loop)}")
    shares = _shares(expanded, keys, faults)
    if faults:
        raise PlanError(faults)
    return Plan(
        summary=str(raw.get("summary") or ""),
        steps=tuple(replace(step, share=share) for step, share in zip(steps, shares, strict=True)),
    )


def cycle(graph: Mapping[str, Sequence[str]]) -> tuple[str, ...] | None:
    """The keys of one cycle, first and last the same; None when there is none."""
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        stack: list[tuple[str, int]] = [(start, 0)]
        while stack:
            key, turn = stack.pop()
            if turn == 0:
                if key in done or key not in graph:
                    continue
                if key in path:
                    return (*path[path.index(key) :], key)
                path.append(key)
            if turn < len(graph[key]):
                stack.append((key, turn + 1))
                stack.append((graph[key][turn], 0))
            else:
                path.pop()
                done.add(key)
    return None


def _expand(
    items: Sequence[dict[str, Any]], agents: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, tuple[str, ...]]]:
    expanded: list[dict[str, Any]] = []
    broadcasts: dict[str, tuple[str, ...]] = {}
    for item in items:
        if item.get("agent") != BROADCAST_TARGET:
            expanded.append(item)
            continue
        key = str(item.get("key") or "all")
        broadcasts[key] = tuple(f"{key}-{agent}" for agent in agents)
        share = item.get("budget_share")
        part = share / len(agents) if isinstance(share, int | float) and agents else share
        for agent in agents:
            one = {**item, "agent": agent, "key": f"{key}-{agent}"}
            expanded.append(one if share is None else {**one, "budget_share": part})
    return expanded, broadcasts


def _step(item: Mapping[str, Any], position: int, agents: Sequence[str], faults: list[str]) -> Step:
    key = item.get("key")
    if not isinstance(key, str) or not key.strip():
        faults.append(f"subtask {position} has no key")
        key = f"#{position}"
    agent = item.get("agent")
    if agent not in agents:
        faults.append(f"{key}: no agent named {agent!r}; there are: {', '.join(agents)}")
    instruction = item.get("instruction")
    if not isinstance(instruction, str) or not instruction.strip():
        faults.append(f"{key}: the instruction is empty")
        instruction = ""
    elif len(instruction) > MAX_INSTRUCTION_CHARS:
        faults.append(f"{key}: the instruction is longer than {MAX_INSTRUCTION_CHARS} characters")
    effort = Effort.STANDARD
    try:
        effort = Effort(item.get("effort") or Effort.STANDARD)
    except ValueError:
        known = ", ".join(Effort)
        faults.append(f"{key}: no effort named {item.get('effort')!r}; there are: {known}")
    depends_on = item.get("depends_on") or []
    if not isinstance(depends_on, list) or any(not isinstance(one, str) for one in depends_on):
        faults.append(f"{key}: depends_on must be a list of keys")
        depends_on = []
    return Step(
        key=key,
        agent=str(agent),
        instruction=instruction,
        title=short(str(item.get("title") or instruction)),
        effort=effort,
        depends_on=tuple(dict.fromkeys(depends_on)),
        criteria=_criteria(key, item.get("criteria") or [], faults),
    )


def _criteria(key: str, listed: Any, faults: list[str]) -> tuple[Criterion, ...]:
    if not isinstance(listed, list):
        faults.append(f"{key}: criteria must be a list")
        return ()
    found: list[Criterion] = []
    for item in listed:
        try:
            criterion = Criterion.model_validate(item)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            faults.append(f"{key}: a criterion is malformed at {where}: {first['msg']}")
            continue
        if not CRITERION_ID.fullmatch(criterion.id):
            faults.append(f"{key}: criterion id {criterion.id!r} is not like ISC-1 or ISC-A-1")
        if any(criterion.id == other.id for other in found):
            faults.append(f"{key}: criterion id {criterion.id} is used twice")
        if not criterion.text.strip():
            faults.append(f"{key}: {criterion.id} has no text")
        if (fault := probe_fault(criterion.probe)) is not None:
            faults.append(f"{key}: {criterion.id}: {fault}")
        found.append(criterion)
    return tuple(found)


def _spread(
    depends_on: Sequence[str], broadcasts: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    return tuple(one for key in depends_on for one in broadcasts.get(key, (key,)))


def _shares(
    items: Sequence[Mapping[str, Any]], keys: Sequence[str], faults: list[str]
) -> list[float]:
    given: list[float | None] = []
    for item, key in zip(items, keys, strict=True):
        share = item.get("budget_share")
        if share is None:
            given.append(None)
        elif isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            faults.append(f"{key}: budget_share must be above 0 and at most 1, not {share!r}")
            given.append(None)
        else:
            given.append(float(share))
    known = sum(share for share in given if share is not None)
    missing = sum(share is None for share in given)
    rest = max(1.0 - known, 0.0) / missing if missing else 0.0
    if missing and rest < 0.01:
        rest = 1.0 / len(given)
    filled = [rest if share is None else share for share in given]
    scale = max(sum(filled), 1.0)
    return [share / scale for share in filled]
