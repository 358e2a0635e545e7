"""Asking the root broker for a person who is logged in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from pydantic import Field, ValidationError

from base import broker
from base.deadline import Deadline
from base.errors import InputError, LocalModeError, NotFoundError
from base.messages import Wire
from base.verbs import VERBS, Ask, By, Nothing, Said
from portal.auth import Caller
from portal.desk import Desk

LOOK_S = 90.0
#: The longest that a verb may take, its turn included.
DO_S = 3_600.0
REASON = (
    "not available in local mode: what only root can do needs the appliance, and this installation "
    "serves this machine alone"
)

Tell = Callable[[str], Awaitable[None]]


class VerbRule(Wire):
    """One verb of this machine. approval: whose yes an agent needs; changes: it does not only
    read.
    """

    name: str
    approval: Literal["none", "admin", "person"]
    deadline_s: float
    changes: bool


class Interrupted(Wire):
    """A verb that was under way when the broker ended: what it left has to be looked at."""

    verb: str
    about: str = ""
    who: str = ""
    at: str = ""


class Offered(Wire):
    """What the broker of this machine does, and on what."""

    verbs: list[VerbRule]
    units: list[str]
    containers: list[str]
    interrupted: list[Interrupted]


class Answer(Wire):
    """plan: of a dry run; result: what the verb answered."""

    plan: list[str] = Field(default_factory=list)
    result: dict[str, Any] = Field(default_factory=dict)


async def ask(
    desk: Desk,
    caller: Caller,
    verb: str,
    request: Ask,
    *,
    dry_run: bool = False,
    tell: Tell | None = None,
    limit_s: float = LOOK_S,
) -> Said:
    """The broker's last word. Raises LocalModeError without one, NotRunningError when it is not
    there, and its own refusals.
    """
    return await broker.call(
        desk.settings.broker,
        verb,
        request,
        by=By(user_id=caller.user_id, role="admin" if caller.admin else "user"),
        dry_run=dry_run,
        deadline=Deadline.after(limit_s),
        tell=tell,
    )


async def offered(desk: Desk, caller: Caller) -> Offered:
    """What can be asked here."""
    if desk.settings.broker is None:
        raise LocalModeError(REASON)
    said = await ask(desk, caller, "broker.verbs", Nothing())
    return Offered.model_validate(said.result)


async def do(
    desk: Desk, caller: Caller, verb: str, given: dict[str, Any], *, dry_run: bool
) -> Answer:
    """Any verb, for an admin. Raises NotFoundError for one that is none."""
    if desk.settings.broker is None:
        raise LocalModeError(REASON)
    request, limit_s = shaped(verb, given), LOOK_S if dry_run else DO_S
    said = await ask(desk, caller, verb, request, dry_run=dry_run, limit_s=limit_s)
    return Answer(plan=list(said.plan), result=said.result)


def shaped(verb: str, given: dict[str, Any]) -> Ask:
    """The request in the verb's own shape. Raises InputError naming each wrong field."""
    if verb not in VERBS:
        raise NotFoundError(f"no verb {verb[:80]!r}")
    try:
        return VERBS[verb].model_validate(given)
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(str(part) for part in one['loc'])}: ".removeprefix(": ")
            + str(one["msg"]).removeprefix("Value error, ")
            for one in error.errors(include_input=False, include_url=False)
        )
        raise InputError(told) from None
