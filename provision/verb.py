"""What a verb is: a typed request, its plan in words, its doing, and who must say yes before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from base.verbs import Ask, By
from provision.box import Box

Request = TypeVar("Request", bound=Ask)

#: Says what is being done now; it reaches the caller and the live view.
Tell = Callable[[str], Awaitable[None]]
#: none: reading. admin: an administrator's own order is enough; an agent needs a person's yes.
#: person: a person says yes each time, also to an administrator's agent.
Approval = Literal["none", "admin", "person"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb(Generic[Request]):
    """plan: what `run` would do, changing nothing; raises InputError, NotFoundError or
    ConflictError for what cannot be. run: does it and answers; may be asked twice.

    deadline_s: after so long it is stopped and undone. alone: False for what only reads, which
    need not wait for its turn.
    """

    name: str
    request: type[Request]
    approval: Approval
    plan: Callable[[Request, Box], Awaitable[list[str]]]
    run: Callable[[Request, Box, By, Tell], Awaitable[dict[str, Any]]]
    deadline_s: float = 300.0
    alone: bool = True


def named(by: By) -> str:
    """Who asked, for the records of what was changed."""
    parts = (by.user_id or by.role, by.agent and f"agent {by.agent}", by.task_id)
    return ", ".join(part for part in parts if part)
