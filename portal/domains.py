"""Domains in local mode: there are none to manage, and every verb says why.

The appliance puts the real verbs in place of `refused`; the shapes are those of the record.
"""

from __future__ import annotations

from typing import Literal, NoReturn

from pydantic import AwareDatetime

from base.errors import LocalModeError
from base.messages import Wire

REASON = (
    "not available in local mode: domains need a server of their own with nginx, a public address "
    "and root to set up certificates, and this installation serves this machine alone"
)


class Domain(Wire):
    id: str
    domain_name: str
    status: Literal["pending", "active", "suspended", "deleted"]
    ssl_status: Literal["none", "pending", "active", "expired", "failed"]
    ssl_expires_at: AwareDatetime | None
    created_at: AwareDatetime


class Domains(Wire):
    domains: list[Domain]


class Certificate(Wire):
    """`days_left` None: there is no certificate."""

    domain_name: str
    ssl_status: Literal["none", "pending", "active", "expired", "failed"]
    ssl_expires_at: AwareDatetime | None
    days_left: int | None


class Deployed(Wire):
    """How many files now lie in the domain's folder."""

    files: int


def refused() -> NoReturn:
    """Raises LocalModeError with the reason."""
    raise LocalModeError(REASON)
