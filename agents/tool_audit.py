"""Every tool call ends in one audit event, published before the model sees the result.

The event's id follows from the call, so that a crash in between makes a repetition, not a second
row. What is at stake (rank 2 and above) is also written down before it runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import uuid
from typing import Any, Literal

from agents import tools
from agents.parts import Parts
from agents.task import Task
from agents.tool_need import host_of
from base import log, streams
from base.audit import AuditEvent, message
from base.errors import BusError
from base.messages import Checked, Criterion, Verdict
from base.redact import redact
from base.verbs import TOOL

PATH_CHARS = 500
AGAIN_S = 1.0
#: From this rank on a call that cannot be written down first does not run.
BEFORE_RANK = 2
#: How the system's own measuring of a criterion is called there.
PROBE = "probe"
INTERRUPTED = "unknown: interrupted while it ran"

End = Literal["success", "failure", "denied"]
Resource = tuple[Literal["file", "endpoint", "service", "command"], str]

_NAMESPACE = uuid.UUID("5d0f7a5c-2c53-4d0e-9c53-3a1b0f3c7e11")
_PATCHED = re.compile(
    r"^(?:\*\*\* (?:Update|Add|Delete) File: (.+)|--- .*\n\+\+\+ (\S+))", re.MULTILINE
)
_READS = frozenset({"read", "glob", "grep", "web_fetch", "web_search", "memory_search"})
_WRITES = frozenset({"write", "edit", "patch", "memory_write"})
_RISKS: tuple[Literal["low", "medium", "high"], ...] = ("low", "low", "medium", "high")

logger = log.get("audit")


async def before(parts: Parts, task: Task, call: dict[str, Any], rank: int) -> None:
    """Raises BusError when it cannot be written down: then the call must not run."""
    event = _event(task, call, "success", "about to run", rank, "begin")
    await parts.bus.publish(streams.AUDIT, message(event, parts.spec.name))


async def ended(
    parts: Parts, task: Task, call: dict[str, Any], outcome: End, reason: str = "", rank: int = 0
) -> None:
    """Write down how the call ended, however long Redis is away."""
    event = _event(task, call, outcome, reason, rank, "end")
    while True:
        try:
            return await parts.bus.publish(streams.AUDIT, message(event, parts.spec.name))
        except BusError as error:
            logger.warning("audit waits for redis", task_id=task.order.task_id, error=str(error))
            await asyncio.sleep(AGAIN_S)


async def unfinished(parts: Parts, task: Task, reason: str) -> None:
    """Write down the calls that have no result when the task stops for good."""
    for record in task.records:
        if record["kind"] == "reply" and record["purpose"] in {"execute", "minimal"}:
            for call in task.unanswered(record):
                begun = task.intended(call["id"])
                await ended(parts, task, call, "failure", reason if begun else f"not run: {reason}")


async def probed(parts: Parts, task: Task, criterion: Criterion, checked: Checked) -> None:
    """Write down a probe that ran something that the model had named."""
    given = criterion.probe.model_dump(include={"command", "url"}, exclude_none=True)
    if criterion.probe.kind not in {"command", "http"}:
        return
    ran = checked.verdict is not Verdict.UNMEASURED
    call_id = f"{criterion.id}-{task.order.agent}-{task.state.round}"
    call = {"id": call_id, "name": PROBE, "input": given}
    outcome: End = "success" if ran else "failure"
    await ended(parts, task, call, outcome, f"measured {criterion.id}: {checked.verdict.value}")


def resource(name: str, given: dict[str, Any]) -> Resource:
    """What a call is about: a command line, a path, a host, a service. Never contents."""
    text = {key: value for key, value in given.items() if isinstance(value, str)}
    if name == PROBE and "url" in text:
        return "endpoint", _clip(host_of(text["url"]) or text["url"])
    if name in {"shell", "request_permission", PROBE} and "command" in text:
        return "command", _clip(text["command"])
    if name == "request_permission":
        return "endpoint", _clip(text.get("host", ""))
    if name == "python":
        return "command", _clip("python3: " + text.get("code", ""))
    if name == TOOL:
        request = given.get("request") if isinstance(given.get("request"), dict) else {}
        words = [TOOL, text.get("verb", ""), canonical(request), given.get("dry_run") and "dry run"]
        return "service", _clip(" ".join(word for word in words if word))
    if name in {"git", "jobs"}:
        words = [name, text.get("verb", ""), text.get("folder", ""), text.get("ref", "")]
        words += [host_of(text.get("url")) or "", text.get("remote", ""), text.get("branch", "")]
        return "command", _clip(" ".join(word for word in words if word))
    if name == "sql":
        database = text.get("database", "memory")
        return "command", _clip(f"sql on {host_of(database) or database}")
    if name == "web_fetch":
        return "endpoint", _clip(host_of(text.get("url")) or text.get("url", ""))
    if name == "patch":
        files = [one or other for one, other in _PATCHED.findall(text.get("patch", ""))]
        return "file", _clip(" ".join(files))
    if name in _READS | _WRITES and ("path" in text or name in {"glob", "grep"}):
        return "file", _clip(text.get("path", "."))
    return "service", _clip(f"{name} {text.get('agent', '')}".strip())


def digest(given: object) -> str:
    """SHA-256 over a call's canonical input."""
    return hashlib.sha256(canonical(given).encode("utf-8", "replace")).hexdigest()


def canonical(given: object) -> str:
    return json.dumps(given, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def _event(
    task: Task,
    call: dict[str, Any],
    outcome: End,
    reason: str,
    rank: int,
    moment: Literal["begin", "end"],
) -> AuditEvent:
    order, name = task.order, str(call["name"])
    given = call["input"] if isinstance(call["input"], dict) else {}
    kind, path = resource(name, given)
    asks = name == "request_permission"
    need = _rank(task, name, given)
    return AuditEvent(
        id=uuid.uuid5(_NAMESPACE, f"{order.task_id}/{call['id']}/{moment}"),
        event_type="action",
        actor_type="agent",
        actor_id=order.agent,
        resource_type=kind,
        resource_path=path,
        action="escalate"
        if asks
        else "read"
        if name in _READS
        else "write"
        if name in _WRITES
        else "execute",
        outcome=outcome,
        details={
            "task_id": order.task_id,
            "user_id": order.user_id,
            "tool": name[:100],
            "call_id": call["id"],
            "level": task.level.rank,
            "reason": _clip(reason),
            "input_sha256": digest(call["input"]),
        },
        risk_level=_RISKS[max(rank, need)],
    )


def _rank(task: Task, name: str, given: dict[str, Any]) -> int:
    """What the call needs; 0 for one that is no call at all."""
    known = task.known
    if tools.fault(name, given, known) is not None:
        return 0
    need = tools.needs(name, given, known)
    return max(need.rank, 2 if need.destructive else 0)


def _clip(text: str) -> str:
    line = " ".join(redact(text).split())
    return line if len(line) <= PATH_CHARS else line[: PATH_CHARS - 1] + "…"
