"""Verbs that play the sites: they keep a file of them in the broker's state, nothing else.

Run as a program this is the broker with these in place of the domain verbs, so that all before
and after a verb is the real thing.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from base import program
from base.errors import ConflictError, InputError, NotFoundError
from base.verbs import (
    VERBS,
    Ask,
    By,
    CertRenew,
    DomainAdd,
    DomainName,
    DomainRemove,
    NginxUndo,
    Nothing,
    Site,
    SiteDeploy,
    UpdateApply,
    Upload,
)
from provision import registry
from provision.__main__ import main, prepare
from provision.box import Box
from provision.record import NAME
from provision.verb import Approval, Tell, Verb
from tests.provision import played_backups


def _sites(box: Box) -> dict[str, dict[str, Any]]:
    path = box.state / "played.json"
    found: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _keep(box: Box, sites: dict[str, dict[str, Any]]) -> None:
    (box.state / "played.json").write_text(json.dumps(sites))


def _did(box: Box, what: str) -> None:
    with (box.state / "did").open("a") as out:
        out.write(what + "\n")


def _known(box: Box, domain: str) -> dict[str, Any]:
    found = _sites(box).get(domain)
    if found is None:
        raise NotFoundError(f"no site {domain}")
    return found


async def plan_add(request: DomainAdd, box: Box) -> list[str]:
    if request.domain in _sites(box):
        raise ConflictError(f"{request.domain} is a site already")
    if request.domain.endswith(".invalid"):
        raise InputError(f"{request.domain} does not lead to this server")
    return [f"write the site {request.domain}", "have a certificate issued", "reload nginx"]


async def add(request: DomainAdd, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    await plan_add(request, box)
    _did(box, f"begun {request.domain}")
    await tell(f"writing the site {request.domain}")
    if request.domain.startswith("slow"):
        await _let_go(box)
    if request.domain.startswith("broken"):
        raise RuntimeError("a fault of the verb's own")
    await tell("asking for the certificate")
    site = Site(
        domain=request.domain,
        names=(request.domain, *(f"{one}.{request.domain}" for one in request.subdomains)),
        kind=request.kind,
        upstream=request.upstream,
        target=request.target,
        enabled=True,
        tls=request.tls,
        ssl_status="active" if request.tls else "none",
        ssl_expires_at=datetime.now(UTC) + timedelta(days=61) if request.tls else None,
    )
    _keep(box, _sites(box) | {request.domain: site.model_dump(mode="json")})
    _did(box, f"added {request.domain} for {by.agent or by.role}")
    return {"site": site.model_dump(mode="json")}


async def _let_go(box: Box) -> None:
    """Until the test says so."""
    try:
        while not (box.state / "go").exists():
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        _did(box, "undone")
        raise


async def remove(request: DomainRemove, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    _known(box, request.domain)
    _keep(box, {name: one for name, one in _sites(box).items() if name != request.domain})
    _did(box, f"removed {request.domain}")
    return {"archive": f"/var/backups/{request.domain}.tar.gz"}


async def switch(to: bool, request: DomainName, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    site = _known(box, request.domain) | {"enabled": to}
    _keep(box, _sites(box) | {request.domain: site})
    return {"site": site}


async def listed(request: Nothing, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    return {"sites": list(_sites(box).values())}


async def deploy(request: SiteDeploy, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    site, source = _known(box, request.domain), request.source
    if isinstance(source, Upload):
        laid = box.inbox / source.name
        _did(box, f"deployed {source.name} {laid.stat().st_size}")
        (box.state / "deployed").write_bytes(laid.read_bytes())
    _keep(box, _sites(box) | {request.domain: site | {"release": "20261128-1"}})
    return {"release": "20261128-1", "files": 3}


async def renew(request: CertRenew, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    await tell("asking the authority")
    return {"renewed": [] if request.domain is None else [request.domain]}


async def history(request: Nothing, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    change = {
        "id": "c1", "at": "2026-11-28T12:00:00Z", "verb": "add", "domain": "example.org",
        "who": "infra", "state": "done", "diff": "+ server_name example.org;\n+ <b>bold</b>",
    }  # fmt: skip
    return {"changes": [change]}


async def undo(request: NginxUndo, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    _did(box, f"undid {request.change}")
    return {"change": {"id": "c2", "what": "undo c1"}}


async def update(request: UpdateApply, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    await asyncio.sleep(3600)
    return {}


async def planned(request: Any, box: Box) -> list[str]:
    if isinstance(request, DomainRemove | SiteDeploy):
        _known(box, request.domain)
    return ["one step", "another one"]


def verbs() -> dict[str, Verb[Any]]:
    """The real ones of the machine, and these."""

    def verb(
        name: str, approval: Approval, run: Any, plan: Any = planned, deadline_s: float = 60.0
    ) -> Verb[Any]:
        shape: type[Ask] = VERBS[name]
        return Verb(
            name=name, request=shape, approval=approval, plan=plan, run=run,
            deadline_s=deadline_s, alone=approval != "none",
        )  # fmt: skip

    played = (
        verb("domain.add", "admin", add, plan_add),
        verb("domain.remove", "person", remove),
        verb("domain.enable", "admin", partial(switch, True)),
        verb("domain.disable", "admin", partial(switch, False)),
        verb("domain.list", "none", listed),
        verb("site.deploy", "admin", deploy),
        verb("cert.renew", "admin", renew),
        verb("nginx.history", "none", history),
        verb("nginx.undo", "admin", undo),
        verb("update.apply", "person", update, deadline_s=0.3),
    )
    return registry.collect() | {one.name: one for one in (*played, *played_backups.VERBS)}


if __name__ == "__main__":
    program.run(NAME, partial(main, verbs=verbs()), prepare=prepare)
