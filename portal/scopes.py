"""What an API token may be allowed, one word an area; a route says beside itself which it needs.

A session may everything that its role may. A token has the scopes it was given and no other:
where nothing is declared, or only `SESSION`, no token gets in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from base.errors import ForbiddenError

if TYPE_CHECKING:
    from portal.auth import Caller

#: Each with what it lets a program do, in the words of the settings page.
SCOPES = {
    "tasks:read": "read conversations, tasks, events, approvals and usage",
    "tasks:write": "give work to the agents, steer, cancel and rate it",
    "memory:read": "search the memory",
    "memory:write": "add to the memory and forget",
    "agents:read": "see the agents and their state",
    "voice": "have recordings written down and text read aloud",
    "approvals:write": "answer what agents ask leave for",
    "admin": "do what only an admin may, where the person is one",
}
#: No token has it: accounts, passwords, sessions and tokens themselves are for people.
SESSION = "session"
#: Every token has it.
ANY = "any"


def allow(caller: Caller, scope: str) -> None:
    """Raises ForbiddenError when the caller came with an API token that has not this scope."""
    if caller.scopes is None or scope == ANY or scope in caller.scopes:
        return
    if caller.token_id is None:  # the agents' account of the appliance, see portal/auth.py
        raise ForbiddenError("the account of the agents may not do this: sudo ai-infra, as root")
    if scope not in SCOPES:
        raise ForbiddenError("no API token may do this: log in")
    raise ForbiddenError(f"this API token has not the scope {scope}")
