"""The server's domains: what the broker says of them, and the record that is kept in step.

The broker is the truth; each look at it writes the table `domains`, which gives a domain its id.
In local mode there are none to manage, and everything says why.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from base.errors import InputError, LocalModeError, NotFoundError
from base.messages import Wire
from base.verbs import (
    CertRenew,
    DomainName,
    DomainRemove,
    NginxUndo,
    Nothing,
    Site,
)
from portal import broker
from portal.auth import Caller
from portal.broker import DO_S, Tell
from portal.desk import Desk
from portal.shapes import NewDomain

REASON = (
    "not available in local mode: domains need a server of their own with nginx, a public address "
    "and root to set up certificates, and this installation serves this machine alone"
)
SslStatus = Literal["none", "pending", "active", "expired", "failed"]
COLUMNS = "id::text, domain_name, status, ssl_status, ssl_expires_at, created_at, metadata"
DIFF_CHARS = 20_000


class Domain(Wire):
    """`days_left` None: there is no certificate. `names`: itself and its subdomains; `problem`:
    what is wrong with it, in words.
    """

    id: str
    domain_name: str
    status: Literal["pending", "active", "suspended", "deleted"]
    ssl_status: SslStatus
    ssl_expires_at: AwareDatetime | None
    created_at: AwareDatetime
    days_left: int | None = None
    kind: Literal["static", "proxy", "redirect"] = "static"
    names: list[str] = Field(default_factory=list)
    upstream: str | None = None
    target: str | None = None
    release: str | None = None
    problem: str | None = None


class Domains(Wire):
    domains: list[Domain]


class Planned(Wire):
    """What would be done, step by step; nothing was."""

    plan: list[str]


class Certificate(Wire):
    """`days_left` None: there is no certificate."""

    domain_name: str
    ssl_status: SslStatus
    ssl_expires_at: AwareDatetime | None
    days_left: int | None


class Change(Wire):
    """One change of the web server's configuration; `state` says whether it stands."""

    id: str
    at: AwareDatetime | None = None
    verb: str = ""
    domain: str = ""
    who: str = ""
    why: str = ""
    state: str = ""
    diff: str = ""


class History(Wire):
    """Newest first."""

    changes: list[Change]


def refused() -> LocalModeError:
    """What everything answers in local mode."""
    return LocalModeError(REASON)


async def domains(desk: Desk, caller: Caller) -> Domains:
    """All of them, by name."""
    said = await _ask(desk, caller, "domain.list", Nothing())
    sites = [Site.model_validate(one) for one in said.get("sites", [])]
    return Domains(domains=await _kept(desk, sites))


async def domain(desk: Desk, caller: Caller, domain_id: str) -> Domain:
    """One of them. Raises NotFoundError."""
    found = (await domains(desk, caller)).domains
    one = next((one for one in found if one.id == domain_id), None)
    if one is None:
        raise NotFoundError(f"no domain {domain_id}")
    return one


async def certificate(desk: Desk, caller: Caller, domain_id: str) -> Certificate:
    """Its certificate's state."""
    found = await domain(desk, caller, domain_id)
    return Certificate.model_validate(found.model_dump())


async def planned(desk: Desk, caller: Caller, body: NewDomain) -> Planned:
    """What adding it would do. Raises the broker's refusal of what cannot be."""
    wanted = _wanted(body)
    if desk.settings.broker is None:
        raise refused()
    said = await broker.ask(desk, caller, "domain.add", wanted, dry_run=True)
    return Planned(plan=list(said.plan))


async def add(
    desk: Desk, caller: Caller, body: NewDomain, *, key: str | None = None, tell: Tell | None = None
) -> Domain:
    """Add it, and as it stands then. The same key again gives the first answer."""

    async def do() -> dict[str, Any]:
        wanted = _wanted(body)
        said = await _ask(desk, caller, "domain.add", wanted, tell=tell, limit_s=DO_S)
        name = str(said.get("site", {}).get("domain", ""))
        found = (await domains(desk, caller)).domains
        one = next((one for one in found if one.domain_name == name), None)
        if one is None:
            raise NotFoundError(f"{name or body.domain_name} was added and is not there")
        await desk.store.execute(
            "UPDATE domains SET created_by = $2 WHERE id = $1", one.id, caller.user_id
        )
        return one.model_dump(mode="json")

    if desk.settings.broker is None:
        raise refused()
    request = body.model_dump(mode="json")
    return Domain.model_validate(await desk.once(caller, key, {"domain": request}, do))


async def remove(
    desk: Desk, caller: Caller, domain_id: str, *, revoke: bool = False, tell: Tell | None = None
) -> None:
    """Serve it no more; its files are archived."""
    found = await domain(desk, caller, domain_id)
    wanted = DomainRemove(domain=found.domain_name, revoke=revoke)
    await _ask(desk, caller, "domain.remove", wanted, tell=tell, limit_s=DO_S)
    await domains(desk, caller)


async def switch(desk: Desk, caller: Caller, domain_id: str, *, enabled: bool) -> Domain:
    """Serve it, or not for now."""
    found = await domain(desk, caller, domain_id)
    verb = "domain.enable" if enabled else "domain.disable"
    await _ask(desk, caller, verb, DomainName(domain=found.domain_name), limit_s=DO_S)
    return await domain(desk, caller, domain_id)


async def renew(
    desk: Desk, caller: Caller, domain_id: str, *, force: bool = False, tell: Tell | None = None
) -> Certificate:
    """Renew its certificate if that is due, with `force` also before."""
    found = await domain(desk, caller, domain_id)
    wanted = CertRenew(domain=found.domain_name, force=force)
    await _ask(desk, caller, "cert.renew", wanted, tell=tell, limit_s=DO_S)
    return await certificate(desk, caller, domain_id)


async def history(desk: Desk, caller: Caller) -> History:
    """What was changed at the web server."""
    said = await _ask(desk, caller, "nginx.history", Nothing())
    found = [Change.model_validate(one) for one in said.get("changes", [])]
    return History(
        changes=[one.model_copy(update={"diff": one.diff[:DIFF_CHARS]}) for one in found]
    )


async def undo(
    desk: Desk, caller: Caller, change: str | None, *, tell: Tell | None = None
) -> History:
    """Take a change back, None: the last one; the history then."""
    wanted = broker.shaped("nginx.undo", {"change": change})
    assert isinstance(wanted, NginxUndo)
    await _ask(desk, caller, "nginx.undo", wanted, tell=tell, limit_s=DO_S)
    await domains(desk, caller)
    return await history(desk, caller)


async def _ask(desk: Desk, caller: Caller, verb: str, request: Any, **more: Any) -> dict[str, Any]:
    if desk.settings.broker is None:
        raise refused()
    said = await broker.ask(desk, caller, verb, request, **more)
    return said.result


def _wanted(body: NewDomain) -> Any:
    """The verb's request. Raises InputError in the words of the field that is wrong."""
    given = body.model_dump(exclude={"domain_name", "setup_ssl"}, exclude_none=True)
    try:
        return broker.shaped(
            "domain.add", given | {"domain": body.domain_name, "tls": body.setup_ssl}
        )
    except InputError as error:
        raise InputError(str(error).replace("domain: ", "domain_name: ", 1)) from error


async def _kept(desk: Desk, sites: list[Site]) -> list[Domain]:
    """The table as the broker says it is."""
    async with desk.store.transaction() as tx:
        for site in sites:
            about = site.model_dump(
                mode="json", include={"kind", "names", "upstream", "target", "release", "problem"}
            )
            await tx.execute(
                "INSERT INTO domains (domain_name, status, ssl_status, ssl_expires_at, metadata)"
                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (domain_name) DO UPDATE SET"
                " status = EXCLUDED.status, ssl_status = EXCLUDED.ssl_status,"
                " ssl_expires_at = EXCLUDED.ssl_expires_at, metadata = EXCLUDED.metadata,"
                " created_at = CASE WHEN domains.status = 'deleted' THEN NOW()"
                " ELSE domains.created_at END, updated_at = NOW()"
                " WHERE (domains.status, domains.ssl_status, domains.ssl_expires_at,"
                " domains.metadata) IS DISTINCT FROM (EXCLUDED.status, EXCLUDED.ssl_status,"
                " EXCLUDED.ssl_expires_at, EXCLUDED.metadata)",
                *(site.domain, "active" if site.enabled else "suspended", site.ssl_status),
                *(site.ssl_expires_at, about),
            )
        names = [site.domain for site in sites]
        await tx.execute(
            "UPDATE domains SET status = 'deleted', ssl_status = 'none', ssl_expires_at = NULL,"
            " updated_at = NOW() WHERE status <> 'deleted' AND domain_name <> ALL($1::text[])",
            names,
        )
        rows = await tx.fetch(
            f"SELECT {COLUMNS} FROM domains WHERE status <> 'deleted' ORDER BY domain_name"
        )
    return [_domain(dict(row)) for row in rows]


def _domain(row: dict[str, Any]) -> Domain:
    about = row.pop("metadata") or {}
    expires_at: datetime | None = row["ssl_expires_at"]
    days = None if expires_at is None else (expires_at - datetime.now(UTC)).days
    return Domain.model_validate({**row, **about, "days_left": days})
