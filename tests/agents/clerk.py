"""The supervisor's side of approvals, as docs/hands.md has it, kept in memory and visible."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from base.approvals import Approval, ApprovalRequest, ApprovalStatus, binding
from base.errors import ConflictError, ForbiddenError, InputError, NotFoundError


class Clerk:
    """`policy`: what a new request becomes. `refusal` is raised for every new one when set."""

    def __init__(self) -> None:
        self.policy: Callable[[ApprovalRequest], ApprovalStatus] = lambda _: ApprovalStatus.PENDING
        self.refusal: Exception | None = None
        self.expires_s = 600.0
        self.known: dict[str, Approval] = {}
        self.asks: list[dict[str, Any]] = []
        self.redeemed: list[str] = []
        self.deaf = False  # redeem is done, but its answer is lost

    def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        self.asks.append(payload)
        verb = payload["verb"]
        if verb == "escalate":
            found = self._escalate(ApprovalRequest.model_validate(payload["request"]))
        elif verb == "decide":
            found = self.decide(
                payload["approval_id"], payload["approve"], payload["by"], payload["via"]
            )
        elif verb == "redeem":
            found = self._redeem(payload)
        else:
            raise InputError(f"no verb {verb}")
        return {"approval": found.model_dump(mode="json")}

    def _escalate(self, request: ApprovalRequest) -> Approval:
        for one in self.known.values():
            same = (one.request.task_id, one.request.call_id) == (request.task_id, request.call_id)
            if same and one.binding != binding(request):
                raise ForbiddenError("the call asked for something else before: use a new call")
            if same:
                if one.status.open and one.expires_at < datetime.now(UTC):
                    return self._become(one, ApprovalStatus.EXPIRED)
                return one
        if self.refusal is not None:
            raise self.refusal
        now = datetime.now(UTC)
        made = Approval(
            id=str(uuid.uuid4()),
            request=request,
            binding=binding(request),
            status=ApprovalStatus.PENDING,
            risk="medium",
            sentence=f"{request.agent} wants {request.tool}\x1b[2J.",
            created_at=now,
            expires_at=now + timedelta(seconds=self.expires_s),
        )
        self.known[made.id] = made
        status = self.policy(request)
        return made if status.open else self._become(made, status, "policy", "policy")

    def decide(self, approval_id: str, approve: bool, by: str, via: str) -> Approval:
        if approval_id not in self.known:
            raise NotFoundError("no such approval")
        found = self.known[approval_id]
        if not found.status.open:
            raise ConflictError(f"it is {found.status}")
        status = ApprovalStatus.APPROVED if approve else ApprovalStatus.DENIED
        return self._become(found, status, by, via)

    def _redeem(self, payload: dict[str, Any]) -> Approval:
        found = self.known[payload["approval_id"]]
        if found.request.task_id != payload["task_id"]:
            raise ForbiddenError("the approval is for another task")
        if found.status is not ApprovalStatus.APPROVED:
            raise ForbiddenError(f"the approval is {found.status}")
        if found.binding != payload["binding"]:
            raise ForbiddenError("it is not what was approved")
        self.redeemed.append(found.id)
        return self._become(found, ApprovalStatus.USED, found.decided_by, found.decided_via)

    def _become(
        self, found: Approval, status: ApprovalStatus, by: str | None = None, via: Any = None
    ) -> Approval:
        changed = found.model_copy(update={"status": status, "decided_by": by, "decided_via": via})
        self.known[found.id] = changed
        return changed

    @property
    def pending(self) -> list[Approval]:
        return [one for one in self.known.values() if one.status.open]
