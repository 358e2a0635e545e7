"""An approval: what an agent asks to do above its level, bound to exactly that, and its state."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from base.messages import Wire

#: A request that is longer in all is nothing that a person could read.
REQUEST_MAX_CHARS = 200_000
#: Instead of a hash: a workspace too large to be looked at, so that its files are bound to nothing.
UNBOUND = "too large to be bound"
HOST = r"^[A-Za-z0-9_.\-\[\]:]+:[1-9][0-9]{0,4}$"

Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Decision = Literal["cli", "api", "window", "policy", "supervisor"]


class ApprovalStatus(StrEnum):
    """pending → approved → used; denied, expired and used are ends."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    USED = "used"

    @property
    def open(self) -> bool:
        return self is ApprovalStatus.PENDING


class Operand(Wire):
    """A file that the call works on, as it was when asked.

    sha256: None when there was none; "tree:<sha256>" for a folder; "outside" for one that is not
    looked at; `UNBOUND`.
    """

    path: str
    sha256: str | None = None


class ApprovalRequest(Wire):
    """What an agent asks leave for. One a tool call: `call_id` is the call's own.

    kind: tool (a call above the level), domain (a new address, in `host`), command (a verb of
    the broker). level: the rank it needs. reason: the model's own words, bound to nothing.
    tainted: the task has read untrusted text; person: a hook wants a person to decide.
    """

    task_id: Name
    root_id: Name
    epoch: int
    agent: Name
    user_id: Name
    call_id: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    kind: Literal["tool", "domain", "command"]
    tool: Name
    argv: tuple[str, ...] = ()
    cwd: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
    operands: tuple[Operand, ...] = ()
    level: int = Field(ge=0, le=3)
    host: Annotated[str, StringConstraints(max_length=300, pattern=HOST)] | None = None
    reason: str = ""
    tainted: bool = False
    destructive: bool = False
    person: bool = False

    @model_validator(mode="after")
    def _readable(self) -> ApprovalRequest:
        if self.kind == "domain" and self.host is None:
            raise ValueError("a request of kind domain names its host")
        text = json.dumps(self.model_dump(mode="json"))
        if len(text) > REQUEST_MAX_CHARS:
            raise ValueError(f"the request has more than {REQUEST_MAX_CHARS} characters")
        if "\\u0000" in text and "\0" in "".join(_strings(self.model_dump())):
            raise ValueError("the request holds a NUL character")
        return self


class Approval(Wire):
    """A request with what became of it. Times are the record's clock.

    binding: see `binding`; sentence: one plain line with nothing hidden in it; decided_by: a user
    id, or `policy`, `window`, `supervisor`; decided_why: what the one who decided said.
    """

    id: str
    request: ApprovalRequest
    binding: str
    status: ApprovalStatus
    risk: Literal["low", "medium", "high", "critical"]
    sentence: str
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None = None
    decided_by: str | None = None
    decided_via: Decision | None = None
    decided_why: str = ""

    @field_validator("status", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return ApprovalStatus(value) if isinstance(value, str) else value


def binding(request: ApprovalRequest) -> str:
    """SHA-256 in hex over the canonical JSON of all that a decision is about: everything but
    the model's words and the epoch, which a restart raises.
    """
    bound = request.model_dump(mode="json", exclude={"reason", "epoch"})
    text = json.dumps(bound, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [one for pair in value.items() for part in pair for one in _strings(part)]
    if isinstance(value, list | tuple):
        return [one for part in value for one in _strings(part)]
    return []
