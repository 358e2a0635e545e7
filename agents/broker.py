"""An agent's calls of the broker: what each needs, and the call itself.

The broker's own plan is asked for first, so that a person is asked only about what can be done;
the broker, not this process, looks whether the approval holds and uses it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from agents.hands import ToolResult
from agents.parts import Parts
from agents.task import Task
from agents.tool_shape import Need
from base.broker import call as ask
from base.deadline import Deadline
from base.errors import AIError, InputError
from base.levels import ELEVATED, PRIVILEGED
from base.terminal import clipped, neutral
from base.verbs import VERBS, Ask, By, Folder, Nothing, Said

LOOK_S = 90.0
#: The longest that a verb may take, its turn included.
DO_S = 3_600.0
RESULT_CHARS = 40_000
RANKS = {"admin": ELEVATED, "person": PRIVILEGED}
#: Verbs whose answer holds what others wrote.
FOREIGN = frozenset({"docker.logs"})


def request_of(given: dict[str, Any]) -> tuple[str, Ask]:
    """The verb and its request. Raises InputError that tells how it is asked right."""
    name = str(given["verb"])
    try:
        return name, VERBS[name].model_validate(given.get("request") or {})
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ")
            for one in error.errors(include_input=False, include_url=False)[:5]
        )
        raise InputError(f"{name}: {told}") from None


def folder_of(given: dict[str, Any]) -> str | None:
    """The folder whose files the call would take along; None: it takes none."""
    _, request = request_of(given)
    source = getattr(request, "source", None)
    return source.path if isinstance(source, Folder) else None


async def need(parts: Parts, task: Task, given: dict[str, Any], plain: Need) -> Need:
    """What the call needs, by the broker's own rule; `plain`: as far as the call itself says.

    Raises InputError for a request that is none, and the broker's refusal of what cannot be.
    """
    name, request = request_of(given)
    if given.get("dry_run"):
        return plain
    said = await _asked(parts, task, "broker.verbs", Nothing())
    rule = next((one["approval"] for one in said.result["verbs"] if one["name"] == name), None)
    if rule is None:
        raise InputError(f"{name} is not a verb of the broker of this machine")
    if rule == "none":
        return plain
    plan = (await _asked(parts, task, name, request, dry_run=True)).plan
    why = f"{name} would: {'; '.join(plan)}"
    return replace(plain, rank=RANKS[rule], why=why, leave=True)


async def call(
    parts: Parts, task: Task, given: dict[str, Any], approval_id: str | None = None
) -> ToolResult:
    """Have it done. What the broker refuses is a failed result."""

    async def tell(step: str) -> None:
        parts.transcript.line(f"» {neutral(step)}", "36")

    try:
        name, request = request_of(given)
        said = await ask(
            parts.settings.broker,
            name,
            request,
            by=_by(task, approval_id),
            dry_run=bool(given.get("dry_run")),
            deadline=Deadline.after(DO_S),
            tell=tell,
        )
    except AIError as error:
        return ToolResult(ok=False, text=f"not done: {error}")
    lines = [f"{number}. {step}" for number, step in enumerate(said.plan, 1)]
    head = ["Nothing was changed. It would:", *lines] if said.plan else ["done"]
    shown = json.dumps(said.result, ensure_ascii=False, indent=1) if said.result else ""
    text = clipped("\n".join([*head, shown]).strip(), RESULT_CHARS)
    return ToolResult(ok=True, text=text, untrusted=name if name in FOREIGN else "")


async def _asked(
    parts: Parts, task: Task, verb: str, request: Ask, *, dry_run: bool = False
) -> Said:
    return await ask(
        parts.settings.broker,
        verb,
        request,
        by=_by(task, None),
        dry_run=dry_run,
        deadline=Deadline.after(LOOK_S),
    )


def _by(task: Task, approval_id: str | None) -> By:
    order = task.order
    return By(
        user_id=order.user_id, agent=order.agent, task_id=order.task_id, approval_id=approval_id
    )
