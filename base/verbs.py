"""The broker's verbs: what each is asked and what it answers. Nothing takes a command string.

A request is one typed shape a verb; the broker, the command, the API and the agents' tools share
these. `VERBS` names each shape once.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from base import verbs_outside
from base.messages import Wire
from base.verb_words import Ask as Ask  # noqa: PLC0414
from base.verb_words import Host, Identity, Label, Name

Challenge = Literal["http-01", "dns-01"]
#: Where a proxied site's program listens: on this machine alone.
UPSTREAM = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\]):(\d{2,5})")


def _upstream(value: str) -> str:
    found = UPSTREAM.fullmatch(value)
    if found is None or not 1 <= int(found[1]) <= 65_535:
        raise ValueError("an upstream is http://127.0.0.1:PORT, a program of this machine")
    return value


Upstream = Annotated[str, Field(max_length=60), AfterValidator(_upstream)]


# Domains and their sites ---------------------------------------------------------------------


class DomainAdd(Ask):
    """A new site. static: served from releases under the web root; proxy: to `upstream`;
    redirect: everything to `target`. subdomains: labels in front, served alike ("www").
    """

    domain: Host
    kind: Literal["static", "proxy", "redirect"] = "static"
    upstream: Upstream | None = None
    target: Host | None = None
    subdomains: tuple[Label, ...] = Field(default=(), max_length=20)
    tls: bool = True
    challenge: Challenge = "http-01"

    @model_validator(mode="after")
    def _whole(self) -> DomainAdd:
        if (self.kind == "proxy") != (self.upstream is not None):
            raise ValueError("upstream is for kind proxy, which needs one")
        if (self.kind == "redirect") != (self.target is not None):
            raise ValueError("target is for kind redirect, which needs one")
        if self.target == self.domain:
            raise ValueError("a domain cannot be redirected to itself")
        return self


class DomainRemove(Ask):
    """The site is taken away and its files are archived. revoke: its certificate, too."""

    domain: Host
    revoke: bool = False


class DomainName(Ask):
    """domain.enable, domain.disable, domain.status."""

    domain: Host


class Nothing(Ask):
    """Verbs that need to be told nothing."""


class Folder(Ask):
    """Files of a folder of the agents' workspaces or of the web roots."""

    kind: Literal["folder"] = "folder"
    path: Annotated[str, Field(pattern=r"^/[^\x00]{1,1000}$")]


class Git(Ask):
    """A checkout of `ref` (the default branch without one)."""

    kind: Literal["git"] = "git"
    url: Annotated[str, Field(pattern=r"^https://[^\s\x00@]{3,1000}$")]
    ref: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,200}$")] | None = None
    folder: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,200}$")] | None = None


class Upload(Ask):
    """An archive or a file that the portal laid into the broker's inbox, by its name there."""

    kind: Literal["upload"] = "upload"
    name: Name


class Previous(Ask):
    """The release before the present one: roll back."""

    kind: Literal["previous"] = "previous"


class SiteDeploy(Ask):
    """A new release of a static site, switched to at once when it is whole."""

    domain: Host
    source: Annotated[Folder | Git | Upload | Previous, Field(discriminator="kind")]


class CertIssue(Ask):
    domain: Host
    challenge: Challenge = "http-01"


class CertRenew(Ask):
    """domain None: every certificate that is due. force: also one that is not due yet."""

    domain: Host | None = None
    force: bool = False


class CertRevoke(Ask):
    domain: Host
    reason: Literal["unspecified", "keycompromise", "superseded", "cessationofoperation"] = (
        "unspecified"
    )


class NginxUndo(Ask):
    """change None: the last one."""

    change: Identity | None = None


# The machine -----------------------------------------------------------------------------------


class UnitName(Ask):
    """unit.restart, unit.status: a unit of the list in config/broker.toml."""

    unit: Name


class ContainerName(Ask):
    container: Name


class DockerLogs(Ask):
    container: Name
    lines: int = Field(default=200, ge=1, le=5_000)


class BackupVerify(Ask):
    """whole: every byte is read, not the lists alone."""

    whole: bool = True


class BackupRestore(Ask):
    """parts: what is restored; the rest stays as it is."""

    snapshot: Identity = "latest"
    parts: tuple[
        Literal["database", "vectors", "memory", "configuration", "certificates", "sites"], ...
    ] = ("database", "vectors", "memory", "configuration", "certificates", "sites")


class UpdateApply(Ask):
    """version: of the product, from the configured source."""

    version: Annotated[str, Field(pattern=r"^[0-9]+(?:\.[0-9]+){1,3}(?:[a-z0-9.+-]{0,30})$")]


VERBS: dict[str, type[Ask]] = {
    "broker.verbs": Nothing,
    "domain.add": DomainAdd,
    "domain.remove": DomainRemove,
    "domain.enable": DomainName,
    "domain.disable": DomainName,
    "domain.list": Nothing,
    "site.deploy": SiteDeploy,
    "cert.issue": CertIssue,
    "cert.renew": CertRenew,
    "cert.revoke": CertRevoke,
    "cert.list": Nothing,
    "nginx.undo": NginxUndo,
    "nginx.history": Nothing,
    "unit.restart": UnitName,
    "unit.status": UnitName,
    "docker.ps": Nothing,
    "docker.logs": ContainerName,
    "docker.restart": ContainerName,
    "backup.run": Nothing,
    "backup.list": Nothing,
    "backup.verify": BackupVerify,
    "backup.restore": BackupRestore,
    "update.apply": UpdateApply,
}
VERBS["docker.logs"] = DockerLogs
VERBS |= verbs_outside.VERBS


#: What an agent's tool and its approval are called.
TOOL = "broker"


def words(verb: str, request: Ask) -> tuple[str, ...]:
    """The verb and its request as an approval shows and binds them: `name=JSON` for each field
    that says something, in the shape's order. The same request always has the same words.
    """
    fields = request.model_dump(mode="json", exclude_none=True)
    told = (f"{name}={_plain(value)}" for name, value in fields.items())
    return (verb, *told)


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class By(Wire):
    """For whom a verb is done, as the asking program says; the broker adds the peer's uid.

    agent and task_id: where an agent asks. approval_id: the person's yes, where one is needed.
    """

    user_id: str | None = None
    role: Literal["user", "admin", "system"] = "user"
    agent: str | None = None
    task_id: str | None = None
    approval_id: str | None = None


class Order(Wire):
    """One line on the broker's socket. dry_run: only say what would be done."""

    id: Identity
    verb: str
    request: dict[str, Any] = Field(default_factory=dict)
    dry_run: bool = False
    by: By = By()


class Said(Wire):
    """One line back. step: what is being done now; the last line has `done`.

    error: in words, with `kind` as in base.errors' names; plan: the steps of a dry run.
    """

    id: Identity
    step: str | None = None
    done: bool = False
    ok: bool = False
    plan: tuple[str, ...] = ()
    result: dict[str, Any] = Field(default_factory=dict)
    error: str | None = None
    kind: str | None = None


# What the verbs answer -------------------------------------------------------------------------


class Site(Wire):
    """A managed domain as it stands. ssl_expires_at None: no certificate."""

    domain: str
    names: tuple[str, ...]
    kind: Literal["static", "proxy", "redirect"]
    upstream: str | None = None
    target: str | None = None
    enabled: bool
    tls: bool
    challenge: Challenge = "http-01"
    release: str | None = None
    ssl_status: Literal["none", "pending", "active", "expired", "failed"] = "none"
    ssl_expires_at: AwareDatetime | None = None
    problem: str | None = None


class Cert(Wire):
    """A certificate that the appliance had issued. due: it should be renewed now."""

    domain: str
    names: tuple[str, ...]
    not_before: AwareDatetime
    not_after: AwareDatetime
    days_left: float
    due: bool
    challenge: Challenge
    problem: str | None = None
