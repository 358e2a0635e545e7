"""What is written down of an order, and what the live view hears of it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from base.approvals import Approval, ApprovalStatus
from base.audit import ActorType, AuditEvent, OutcomeWord, Risk
from base.messages import Event, Kind
from base.redact import redact
from base.terminal import clipped, visible
from base.verbs import By
from provision.peers import Peer
from provision.record import NAME

ABOUT_CHARS = 300
STEP_CHARS = 500
REASON_CHARS = 1_000
INTERRUPTED = "interrupted: the broker ended while it ran, so look at the present state first"


@dataclass(slots=True, kw_only=True)  # mutable: an order becomes known bit by bit
class Deed:
    """One order on its way. run: the broker's own name of it, which nobody else chooses.

    by: believed only once `known`. begun: it has changed something, or may have.
    """

    peer: Peer
    run: str = field(default_factory=lambda: str(uuid.uuid4()))
    id: str = "unknown"
    verb: str = ""
    about: str = ""
    dry_run: bool = False
    by: By = field(default_factory=By)
    known: bool = False
    root_id: str | None = None
    risk: Risk = "low"
    begun: bool = False

    @property
    def who(self) -> str:
        """For whom, in a word."""
        return (self.by.agent or self.by.user_id if self.known else None) or self.peer.name


def told(words: tuple[str, ...]) -> str:
    """A request in one line: nothing hidden in it, no secret."""
    return clipped(visible(redact(" ".join(words[1:]))), ABOUT_CHARS)


def step(text: str) -> str:
    """A step as it is shown."""
    return clipped(visible(redact(text)), STEP_CHARS)


def audit(deed: Deed, outcome: OutcomeWord, moment: str, reason: str = "") -> AuditEvent:
    """One moment of an order: "begin", "end", or "dry run"."""
    by = deed.by if deed.known else By()
    kind: ActorType = "agent" if by.agent else "user" if by.user_id else "system"
    details = {
        "event": f"broker {moment}",
        "run": deed.run,
        "verb": deed.verb,
        "dry_run": deed.dry_run,
        "peer": deed.peer.name,
        "uid": deed.peer.uid,
        "pid": deed.peer.pid,
        "user_id": by.user_id,
        "task_id": by.task_id,
        "approval_id": by.approval_id,
        "reason": clipped(redact(reason), REASON_CHARS) or None,
    }
    return AuditEvent(
        event_type="action",
        actor_type=kind,
        actor_id=deed.who,
        resource_type="service",
        resource_path=f"{NAME}/{deed.verb} {deed.about}".strip(),
        action="read" if deed.risk == "low" or deed.dry_run else "execute",
        outcome=outcome,
        details={key: value for key, value in details.items() if value is not None},
        risk_level="medium" if outcome == "denied" and deed.risk == "low" else deed.risk,
    )


def left(line: dict[str, Any]) -> AuditEvent:
    """A verb that the last process left in the middle, by its line of the journal."""
    return AuditEvent(
        id=uuid.uuid5(uuid.NAMESPACE_OID, f"{line.get('begun')}/interrupted"),
        event_type="error",
        actor_type="system",
        actor_id=NAME,
        resource_type="service",
        resource_path=f"{NAME}/{line.get('verb')} {line.get('about', '')}".strip(),
        action="execute",
        outcome="failure",
        details={
            "event": "broker interrupted",
            "run": line.get("begun"),
            "verb": line.get("verb"),
            "for": line.get("who"),
            "begun_at": line.get("at"),
            "reason": INTERRUPTED,
        },
        risk_level="high",
    )


def live(deed: Deed, state: str, **more: Any) -> Event:
    """What the live view hears: started, step, ended."""
    data = {"run": deed.run, "verb": deed.verb, "about": deed.about, "state": state}
    return Event(
        kind=Kind.BROKER,
        agent=deed.by.agent or NAME,
        user_id=deed.by.user_id,
        root_id=deed.root_id,
        task_id=deed.by.task_id,
        data=data | more,
    )


def used(deed: Deed, found: Approval) -> Event:
    """That the leave is used up, as the supervisor tells of the other approvals."""
    fields = {"id", "risk", "sentence", "decided_by", "decided_via", "expires_at"}
    data = found.model_dump(mode="json", include=fields) | {
        "status": ApprovalStatus.USED.value,
        "agent": found.request.agent,
        "tool": found.request.tool,
        "level": found.request.level,
    }
    return Event(
        kind=Kind.APPROVAL,
        agent=found.request.agent,
        user_id=found.request.user_id,
        root_id=deed.root_id,
        task_id=found.request.task_id,
        data=data,
    )
