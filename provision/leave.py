"""An agent's leave: the approval that the record holds for exactly this verb and request.

The broker reads and uses it itself, in PostgreSQL, so that what an agent's process says of it
counts for nothing: it must be approved, in time, unused, of this agent and task, bound to these
words, asked at the level that the verb needs, and given by one who may, whose own yes the portal
has written down beside it. The agents' account writes approvals and cannot write that yes, so once
and in time are counted there.
"""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import ValidationError

from base.approvals import Approval, ApprovalStatus, binding
from base.errors import ForbiddenError
from base.levels import ELEVATED, PRIVILEGED
from base.store import Store
from base.verbs import TOOL, Ask, By, words
from provision.verb import Approval as Rule

COLUMNS = (
    "id, request, binding, status, risk, sentence, created_at, expires_at, decided_at,"
    " decided_by, decided_via, decided_why"
)
#: The rank that an approval must have been asked at.
RANKS: dict[Rule, int] = {"admin": ELEVATED, "person": PRIVILEGED}


async def find(
    store: Store, verb: str, request: Ask, by: By, rule: Rule, *, rules_give: bool = False
) -> Approval:
    """The approval that `by` names, which holds now. rules_give: one by a rule of approvals.toml,
    for which the agents' account alone vouches, counts too. Raises ForbiddenError with the reason.
    """
    if by.approval_id is None:
        raise ForbiddenError(f"{verb} needs a person's leave when an agent asks: ask for it first")
    found = await _read(store, by.approval_id)
    if found is None:
        raise ForbiddenError("there is no such approval")
    in_time = await store.fetchval(
        "SELECT expires_at > clock_timestamp() FROM approvals WHERE id = $1", found.id
    )
    fault = objection(found, verb, request, by, rule, in_time=bool(in_time))
    if fault is None and found.decided_via != "policy":
        # A decision that came over the wire counts with the person's own yes beside it.
        consent = await store.fetchval(
            "SELECT TRUE FROM consents JOIN users ON users.id = consents.user_id"
            " WHERE approval_id = $1 AND binding = $2 AND users.id::text = $3"
            " AND role = 'admin' AND is_active"
            " AND used_at IS NULL AND expires_at > clock_timestamp()",
            *(found.id, found.binding, found.decided_by),
        )
        if not consent:
            fault = "no admin gave it in the portal or by the command, or that yes is used or over"
    elif fault is None and not rules_give:
        fault = "no rule gives a verb here: broker.toml, verbs, automatic"
    if fault is not None:
        raise ForbiddenError(f"the approval does not hold: {fault}")
    return found


def objection(
    found: Approval, verb: str, request: Ask, by: By, rule: Rule, *, in_time: bool
) -> str | None:
    """Why the approval does not cover it; None when it does. Pure."""
    asked = found.request
    if found.binding != binding(asked):
        return "its record was changed"
    if asked.kind != "command" or asked.tool != TOOL:
        return "it is for something else than a verb of the broker"
    if asked.argv != words(verb, request):
        return "it is for another verb or request"
    if (asked.agent, asked.task_id, asked.user_id) != (by.agent, by.task_id, by.user_id):
        return "it is for another agent or task"
    if asked.level < RANKS[rule]:
        return f"it was asked at level {asked.level}, and this needs {RANKS[rule]}"
    if found.status is ApprovalStatus.USED:
        return "it was used already"
    if found.status is not ApprovalStatus.APPROVED:
        return f"it is {found.status.value}, not approved"
    if not in_time:
        return "it has expired"
    if found.decided_via == "policy" and (rule == "person" or asked.tainted):
        return "no rule can give it: a person has to"
    if found.decided_via == "window":
        return "it was given in the agent's own window: this needs the portal or the command"
    if found.decided_via not in {"policy", "api", "cli"}:
        return "nobody gave it"
    return None


async def use(store: Store, found: Approval) -> None:
    """Use it up. Raises ForbiddenError when something else was quicker."""
    async with store.transaction() as tx:
        used = await tx.execute(
            "UPDATE approvals SET status = 'used' WHERE id = $1 AND status = 'approved'"
            " AND expires_at > clock_timestamp() AND binding = $2",
            *(found.id, found.binding),
        )
        if used and found.decided_via != "policy":
            used = await tx.execute(
                "UPDATE consents SET used_at = clock_timestamp() WHERE approval_id = $1"
                " AND binding = $2 AND used_at IS NULL AND expires_at > clock_timestamp()",
                *(found.id, found.binding),
            )
        if used != 1:
            raise ForbiddenError("the approval does not hold: it was used or expired meanwhile")


async def _read(store: Store, approval_id: str) -> Approval | None:
    try:
        known = str(uuid.UUID(approval_id))
        row: Any = await store.fetchrow(f"SELECT {COLUMNS} FROM approvals WHERE id = $1", known)
        return None if row is None else Approval.model_validate(row)
    except (ValueError, ValidationError):
        return None
