"""A managed domain as it is written down: what was asked for, and how far its making has come.

    (nothing) ─▶ making ─▶ ready ─▶ removing ─▶ (nothing)
                  ▲ └─ undone ─┘ │
                  └── changed ───┘ ─▶ revoking ─▶ ready

Only `ready` is at rest. A record that a start finds in another stage was left by a kill: making
is finished when its certificate is there and undone when it is not; the others are finished.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict

from base.hostname import hostname
from base.verbs import Challenge, DomainAdd
from provision import kept
from provision.box import Box
from provision.spec import Spec

Stage = Literal["making", "ready", "removing", "revoking"]


class Wanted(BaseModel):
    """What the site shall be. names: all of them, the domain first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...]
    kind: Literal["static", "proxy", "redirect"]
    upstream: str | None = None
    target: str | None = None
    tls: bool = True
    challenge: Challenge = "http-01"


class Managed(BaseModel):
    """before: what the site was before the change under way; None: there was none. made_files: it
    had no releases before. revoke: why the certificate is to be revoked, and revoked: it
    is. problem: why the last change came to nothing; refused: that was its certificate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: str
    wanted: Wanted
    stage: Stage = "ready"
    before: Wanted | None = None
    made_files: bool = False
    revoke: str | None = None
    revoked: bool = False
    problem: str | None = None
    refused: bool = False


def wanted(request: DomainAdd) -> Wanted:
    """Raises ValueError for a name that is too long with its label in front."""
    names = [request.domain, *(f"{label}.{request.domain}" for label in request.subdomains)]
    return Wanted(
        names=tuple(dict.fromkeys(hostname(name) for name in names)),
        kind=request.kind,
        upstream=request.upstream,
        target=request.target,
        tls=request.tls,
        challenge=request.challenge,
    )


def adopted(site: Spec) -> Managed:
    """The record of a site that nginx serves and nobody wrote down."""
    aim = Wanted(
        names=site.hosts,
        kind=cast(Literal["static", "proxy", "redirect"], site.kind),
        upstream=site.upstream,
        target=site.target,
        tls=site.certificate is not None,
    )
    return Managed(domain=site.domain, wanted=aim)


class Register:
    """One file a domain below the broker's state."""

    def __init__(self, box: Box) -> None:
        self._folder = box.state / "domains"

    def get(self, domain: str) -> Managed | None:
        return kept.read(self._path(domain), Managed)

    def put(self, managed: Managed) -> Managed:
        kept.keep(self._path(managed.domain), managed)
        return managed

    def drop(self, domain: str) -> None:
        kept.forget(self._path(domain))

    def all(self) -> Iterator[Managed]:
        return kept.each(self._folder, Managed)

    def _path(self, domain: str) -> Path:
        return self._folder / f"{domain}.json"
