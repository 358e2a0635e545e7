"""Domains: list, add, remove, deploy, certificates."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, File, UploadFile

from portal import domains as sites
from portal.api.responses import response
from portal.door import Admin, Asking, Key, need
from portal.shapes import NewDomain

LOCAL: dict[int | str, dict[str, Any]] = {409: response(409, sites.REASON)}
ADMINS: dict[int | str, dict[str, Any]] = {403: response(403), **LOCAL}
router = APIRouter(prefix="/domains", tags=["domains"])


@router.get("", summary="List managed domains", responses=LOCAL, dependencies=[need("agents:read")])
async def domains(_: Asking) -> sites.Domains:
    """The domains of this server, by name. In local mode: 409 with the reason."""
    sites.refused()


@router.post(
    "", status_code=201, summary="Add a domain", responses=ADMINS, dependencies=[need("admin")]
)
async def add(_: Admin, body: NewDomain, key: Key = None) -> sites.Domain:
    """Serve a new domain, with a certificate unless `setup_ssl` is false (admin)."""
    sites.refused()


@router.get(
    "/{domain_id}", summary="Get a domain", responses=LOCAL, dependencies=[need("agents:read")]
)
async def domain(_: Asking, domain_id: UUID) -> sites.Domain:
    """One domain with its states."""
    sites.refused()


@router.delete(
    "/{domain_id}",
    status_code=204,
    summary="Remove a domain",
    responses=ADMINS,
    dependencies=[need("admin")],
)
async def remove(_: Admin, domain_id: UUID) -> None:
    """Serve it no more (admin)."""
    sites.refused()


@router.post(
    "/{domain_id}/deploy",
    summary="Deploy files to a domain",
    responses=ADMINS,
    dependencies=[need("admin")],
)
async def deploy(
    _: Admin, domain_id: UUID, files: Annotated[list[UploadFile], File()]
) -> sites.Deployed:
    """Put files into the domain's folder (admin)."""
    sites.refused()


@router.get(
    "/{domain_id}/certificate",
    summary="Get a certificate's state",
    responses=LOCAL,
    dependencies=[need("agents:read")],
)
async def certificate(_: Asking, domain_id: UUID) -> sites.Certificate:
    """Whether the domain's certificate is valid, and for how many days."""
    sites.refused()
