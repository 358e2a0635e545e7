"""Domains: list, add, remove, switch, deploy, certificates, history."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, File, Query, UploadFile

from portal import deploys
from portal import domains as sites
from portal.api.responses import may, response
from portal.door import Admin, Asking, At, Key, need
from portal.shapes import NewDomain, SwitchDomain, UndoChange

LOCAL: dict[int | str, dict[str, Any]] = {409: response(409, sites.REASON)}
ADMINS: dict[int | str, dict[str, Any]] = may(403) | LOCAL
router = APIRouter(prefix="/domains", tags=["domains"])


@router.get("", summary="List managed domains", responses=LOCAL, dependencies=[need("agents:read")])
async def domains(desk: At, caller: Asking) -> sites.Domains:
    """The domains of this server, by name. In local mode: 409 with the reason."""
    return await sites.domains(desk, caller)


@router.post(
    "", status_code=201, summary="Add a domain", responses=ADMINS, dependencies=[need("admin")]
)
async def add(desk: At, caller: Admin, body: NewDomain, key: Key = None) -> sites.Domain:
    """Serve a new domain, with a certificate unless `setup_ssl` is false (admin).

    `kind` static: files of a deploy; proxy: to `upstream`, a program of this machine; redirect:
    everything to `target`. It answers when the site does, which may take a minute.
    """
    return await sites.add(desk, caller, body, key=key)


@router.post(
    "/plan", summary="Say what adding would do", responses=ADMINS, dependencies=[need("admin")]
)
async def plan(desk: At, caller: Admin, body: NewDomain) -> sites.Planned:
    """The steps of adding that domain; nothing is changed (admin)."""
    return await sites.planned(desk, caller, body)


@router.get(
    "/history",
    summary="List changes of the web server",
    responses=ADMINS,
    dependencies=[need("admin")],
)
async def history(desk: At, caller: Admin) -> sites.History:
    """What was changed at the web server's configuration, newest first, each with its diff
    (admin).
    """
    return await sites.history(desk, caller)


@router.post("/undo", summary="Take a change back", responses=ADMINS, dependencies=[need("admin")])
async def undo(desk: At, caller: Admin, body: UndoChange) -> sites.History:
    """Have the web server as it was before `change`, or before the last one (admin)."""
    return await sites.undo(desk, caller, body.change)


@router.get(
    "/{domain_id:uuid}", summary="Get a domain", responses=LOCAL, dependencies=[need("agents:read")]
)
async def domain(desk: At, caller: Asking, domain_id: UUID) -> sites.Domain:
    """One domain with its states."""
    return await sites.domain(desk, caller, str(domain_id))


@router.patch(
    "/{domain_id:uuid}",
    summary="Switch a domain on or off",
    responses=ADMINS,
    dependencies=[need("admin")],
)
async def switch(desk: At, caller: Admin, domain_id: UUID, body: SwitchDomain) -> sites.Domain:
    """Serve it, or not for now; its files and certificate stay (admin)."""
    return await sites.switch(desk, caller, str(domain_id), enabled=body.enabled)


@router.delete(
    "/{domain_id:uuid}",
    status_code=204,
    summary="Remove a domain",
    responses=ADMINS,
    dependencies=[need("admin")],
)
async def remove(
    desk: At,
    caller: Admin,
    domain_id: UUID,
    revoke: Annotated[bool, Query(description="Revoke its certificate, too.")] = False,
) -> None:
    """Serve it no more; its files are archived (admin)."""
    await sites.remove(desk, caller, str(domain_id), revoke=revoke)


@router.post(
    "/{domain_id:uuid}/deploy",
    summary="Deploy files to a domain",
    responses=ADMINS,
    dependencies=[need("admin")],
)
async def deploy(
    desk: At, caller: Admin, domain_id: UUID, files: Annotated[list[UploadFile], File()]
) -> deploys.Deployed:
    """A new release of a static site: an archive (.zip, .tar, .tar.gz) or files with their
    relative names, at most 200,000,000 bytes (admin). The site serves it at once when it is whole.
    """
    return await deploys.deploy(desk, caller, str(domain_id), files)


@router.post(
    "/{domain_id:uuid}/rollback",
    summary="Serve the previous release",
    responses=ADMINS,
    dependencies=[need("admin")],
)
async def rollback(desk: At, caller: Admin, domain_id: UUID) -> deploys.Deployed:
    """The release before the present one (admin)."""
    return await deploys.rollback(desk, caller, str(domain_id))


@router.post(
    "/{domain_id:uuid}/renew",
    summary="Renew a certificate",
    responses=ADMINS,
    dependencies=[need("admin")],
)
async def renew(
    desk: At,
    caller: Admin,
    domain_id: UUID,
    force: Annotated[bool, Query(description="Also when it is not due yet.")] = False,
) -> sites.Certificate:
    """Renew the domain's certificate when that is due (admin)."""
    return await sites.renew(desk, caller, str(domain_id), force=force)


@router.get(
    "/{domain_id:uuid}/certificate",
    summary="Get a certificate's state",
    responses=LOCAL,
    dependencies=[need("agents:read")],
)
async def certificate(desk: At, caller: Asking, domain_id: UUID) -> sites.Certificate:
    """Whether the domain's certificate is valid, and for how many days."""
    return await sites.certificate(desk, caller, str(domain_id))
