"""What the supervisor writes into the audit log, in the transaction that makes it true."""

from __future__ import annotations

import shlex
from ipaddress import IPv4Address, IPv6Address, ip_address

from base import streams
from base.approvals import Approval, ApprovalRequest, binding
from base.audit import ActorType, AuditEvent, OutcomeWord, ResourceType, message
from base.redact import redact
from base.store import Session
from supervisor import gate
from supervisor.parts import NAME
from supervisor.tasks import Task

COMMAND_CHARS = 500
RESOURCES: dict[str, ResourceType] = {
    "tool": "command",
    "domain": "endpoint",
    "command": "service",
}


async def approval(
    tx: Session,
    what: str,
    request: ApprovalRequest,
    outcome: OutcomeWord,
    found: Approval | None = None,
    actor: str | None = None,
    why: str = "",
    ip: object = None,
) -> None:
    """What happened to a request. `actor` None: the agent that asked; else who did it: a user's
    id, "window", "policy", the supervisor, or the agent that redeems.
    """
    by = actor or request.agent
    kind: ActorType = "user"
    if actor is None or what.startswith("redeem"):
        kind = "agent"
    elif by in {NAME, "policy"}:
        kind = "system"
    line = redact(shlex.join(request.argv) or request.tool)[:COMMAND_CHARS]
    details = {
        "event": f"approval {what}",
        "approval_id": found.id if found is not None else None,
        "task_id": request.task_id,
        "user_id": request.user_id,
        "agent": request.agent,
        "call_id": request.call_id,
        "kind": request.kind,
        "tool": request.tool,
        "level": request.level,
        "tainted": request.tainted,
        "destructive": request.destructive,
        "binding": binding(request),
        "via": found.decided_via if found is not None else None,
        "why": redact(why)[:COMMAND_CHARS],
    }
    entry = AuditEvent(
        event_type="escalation",
        actor_type=kind,
        actor_id=by,
        actor_ip=_address(ip),
        resource_type=RESOURCES[request.kind],
        resource_path=request.host if request.kind == "domain" else line,
        action="execute" if what.startswith("redeem") else "escalate",
        outcome=outcome,
        details=details,
        risk_level=found.risk if found is not None else gate.sentence(request)[0],
    )
    await tx.publish(streams.AUDIT, message(entry, NAME))


def _address(ip: object) -> IPv4Address | IPv6Address | None:
    """Where a person sat, when it is known."""
    try:
        return ip_address(str(ip)) if ip else None
    except ValueError:
        return None


async def level_cut(tx: Session, task: Task, agent: str, own: int, level: int) -> None:
    """An order goes out below the level of the agent that gets it."""
    entry = AuditEvent(
        event_type="access",
        actor_type="system",
        actor_id=NAME,
        resource_type="service",
        resource_path=f"agent:{agent}",
        action="execute",
        outcome="success",
        details={
            "event": "level cut",
            "task_id": task.id,
            "user_id": task.user_id,
            "agent": agent,
            "from": own,
            "to": level,
            "handed_on_at": task.input.get("level_max"),
        },
    )
    await tx.publish(streams.AUDIT, message(entry, NAME))
