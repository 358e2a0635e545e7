"""The verbs for what is outside this machine: Cloudflare and GitHub, as docs/outside.md says."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

import idna
from pydantic import AfterValidator, Field, model_validator

from base.hostname import hostname
from base.verb_words import Ask, Host, Identity, Label, Name

RecordType = Literal["A", "AAAA", "CNAME", "MX", "TXT"]
#: What may stand alone at a name: setting one takes the others of its type away.
ALONE = {"A", "AAAA", "CNAME"}
#: Over which Cloudflare counts requests.
PERIODS_S = (10, 60, 120, 300, 600, 3600)
PROXIED = {"A", "AAAA", "CNAME"}
_LABEL = re.compile(r"\*|[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PATH = re.compile(r"[^\x00-\x1f\x7f\\]+")
_PRINTED = re.compile(r"[ -~]{1,2048}")


def _period(value: int) -> int:
    if value not in PERIODS_S:
        raise ValueError(f"period_s is one of {', '.join(map(str, PERIODS_S))}")
    return value


Period = Annotated[int, AfterValidator(_period)]
RecordName = Annotated[str, Field(min_length=1, max_length=253)]
Value = Annotated[str, Field(min_length=1, max_length=2_048)]
Expression = Annotated[str, Field(pattern=r"^[^\x00\r\n]{1,4096}$")]
Address = Annotated[str, Field(pattern=r"^https?://[^\s\x00]{3,2000}$")]


def repository_path(value: str) -> str:
    """`value` when it names a file of a repository. Raises ValueError."""
    if any(part in {"", ".", "..", ".git"} for part in value.split("/")) or not _PATH.fullmatch(
        value
    ):
        raise ValueError(f"{value!r} is no path in a repository")
    return value


RepositoryPath = Annotated[str, Field(max_length=1_000), AfterValidator(repository_path)]


def record_name(name: str, zone: str) -> str:
    """`name` in full: "@" is the zone itself, "www" is below it. Raises ValueError."""
    text = name.strip().removesuffix(".").lower()
    if text == "@":
        return zone
    try:
        labels = [
            label if label.isascii() else idna.encode(label, uts46=True).decode("ascii")
            for label in text.split(".")
        ]
    except idna.IDNAError as error:
        raise ValueError(f"no name of a record: {error}") from error
    if any(not _LABEL.fullmatch(label) for label in labels) or "*" in labels[1:]:
        raise ValueError(f"{name!r} is no name of a record")
    full = ".".join(labels)
    full = full if full == zone or full.endswith(f".{zone}") else f"{full}.{zone}"
    if len(full) > 253:
        raise ValueError("the name of a record has at most 253 characters")
    return full


def record_value(kind: RecordType, value: str) -> str:
    """`value` in the one form in which records are compared. Raises ValueError."""
    text = value.strip()
    if kind == "A":
        return str(ipaddress.IPv4Address(text))
    if kind == "AAAA":
        return str(ipaddress.IPv6Address(text))
    if kind == "TXT":
        if not _PRINTED.fullmatch(text):
            raise ValueError("the text of a TXT record is 1 to 2048 printable ASCII characters")
        return text
    labels = text.removesuffix(".").lower().split(".")
    if any(label.startswith("_") for label in labels):  # a target such as _x.acme.example
        record_name(".".join(labels[:-2]) or "@", ".".join(labels[-2:]))
        return ".".join(labels)
    return hostname(text)


# Cloudflare ------------------------------------------------------------------------------------


class ZoneName(Ask):
    """zone.add, zone.show, waf.list, rate.list, balancer.list: a zone of config/outside.toml."""

    zone: Host


class ZoneSet(Ask):
    """What is None stays as it is. ssl: how Cloudflare speaks with this server; strict is best."""

    zone: Host
    ssl: Literal["off", "flexible", "full", "strict"] | None = None
    always_https: bool | None = None

    @model_validator(mode="after")
    def _something(self) -> ZoneSet:
        if self.ssl is None and self.always_https is None:
            raise ValueError("say what is to be set: ssl, always_https, or both")
        return self


class DnsList(Ask):
    zone: Host
    type: str | None = Field(None, pattern=r"^[A-Z0-9]{1,10}$")
    name: RecordName | None = None

    @model_validator(mode="after")
    def _named(self) -> DnsList:
        if self.name is not None:
            record_name(self.name, self.zone)
        return self


class DnsSet(Ask):
    """The records of one name and type. name: "@" is the zone itself, "www" is below it.

    others: what becomes of other values there; None: A, AAAA and CNAME are replaced, MX and TXT
    kept. ttl_s 1: Cloudflare decides. ttl_s and proxied None: as they are, for a new record 1
    and False. priority: of MX, which needs one.
    """

    zone: Host
    type: RecordType
    name: RecordName
    values: tuple[Value, ...] = Field(min_length=1, max_length=20)
    ttl_s: int | None = Field(None, ge=1, le=86_400)
    proxied: bool | None = None
    priority: int | None = Field(None, ge=0, le=65_535)
    others: Literal["keep", "remove"] | None = None

    @model_validator(mode="after")
    def _whole(self) -> DnsSet:
        record_name(self.name, self.zone)
        for value in self.values:
            record_value(self.type, value)
        if (self.type == "MX") != (self.priority is not None):
            raise ValueError("priority is for type MX, which needs one")
        if self.proxied and self.type not in PROXIED:
            raise ValueError(f"a {self.type} record cannot be proxied")
        if self.type == "CNAME" and len(self.values) > 1:
            raise ValueError("a name has one CNAME record")
        if self.ttl_s is not None and 1 < self.ttl_s < 60:
            raise ValueError("ttl_s is 1 (Cloudflare decides) or 60 to 86400")
        return self


class DnsRemove(Ask):
    """values (): all of that name and type. What is not there is no error."""

    zone: Host
    type: RecordType
    name: RecordName
    values: tuple[Value, ...] = Field(default=(), max_length=20)

    @model_validator(mode="after")
    def _named(self) -> DnsRemove:
        record_name(self.name, self.zone)
        return self


class DnsHistory(Ask):
    """The changes that were made here, newest first. zone None: of all zones."""

    zone: Host | None = None
    limit: int = Field(default=50, ge=1, le=1_000)


class DnsUndo(Ask):
    """change None: the last one that was not undone. Refused when the records changed since."""

    change: Identity | None = None


class CdnPurge(Ask):
    """Cloudflare forgets its copies: of `files` (whole addresses), or of everything."""

    zone: Host
    files: tuple[Address, ...] = Field(default=(), max_length=300)
    everything: bool = False

    @model_validator(mode="after")
    def _one(self) -> CdnPurge:
        if self.everything == bool(self.files):
            raise ValueError("say either files or everything")
        return self


class WafSet(Ask):
    """One rule of ours, known by its name; other rules of the zone stay. expression: in
    Cloudflare's rule language, which Cloudflare checks.
    """

    zone: Host
    name: Label
    expression: Expression
    action: Literal["block", "managed_challenge", "js_challenge", "challenge", "log"] = "block"
    enabled: bool = True


class RateSet(Ask):
    """At most `requests` of one address in `period_s`; above it `action` holds for `block_s`."""

    zone: Host
    name: Label
    expression: Expression
    requests: int = Field(ge=1, le=1_000_000)
    period_s: Period = 60
    block_s: int = Field(default=600, ge=0, le=86_400)
    action: Literal["block", "managed_challenge", "js_challenge", "challenge", "log"] = "block"
    enabled: bool = True


class RuleName(Ask):
    """waf.remove, rate.remove. What is not there is no error."""

    zone: Host
    name: Label


class TrafficShow(Ask):
    """Requests, bytes, threats and visitors of the last hours, hour by hour."""

    zone: Host
    hours: int = Field(default=24, ge=1, le=72)


# GitHub ----------------------------------------------------------------------------------------


class GithubJob(Ask):
    """github.backup, github.status: a repository of config/outside.toml by its name there."""

    name: Name


class GithubSync(Ask):
    """here, there: of a file that was changed on both sides, which one holds from now on."""

    name: Name
    here: tuple[RepositoryPath, ...] = Field(default=(), max_length=100)
    there: tuple[RepositoryPath, ...] = Field(default=(), max_length=100)

    @model_validator(mode="after")
    def _apart(self) -> GithubSync:
        if both := set(self.here) & set(self.there):
            raise ValueError(f"{min(both)} cannot be taken from both sides")
        return self


class GithubRelease(Ask):
    """A release at GitHub. commit: a branch or commit for a tag that is not there yet."""

    name: Name
    tag: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,100}$")]
    title: str = Field(default="", max_length=200)
    notes: str = Field(default="", max_length=100_000)
    commit: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,200}$")] | None = None
    prerelease: bool = False


class All(Ask):
    """zone.list, github.list, github.due: nothing needs to be told."""


VERBS: dict[str, type[Ask]] = {
    "zone.list": All,
    "zone.add": ZoneName,
    "zone.show": ZoneName,
    "zone.set": ZoneSet,
    "dns.list": DnsList,
    "dns.set": DnsSet,
    "dns.remove": DnsRemove,
    "dns.history": DnsHistory,
    "dns.undo": DnsUndo,
    "cdn.purge": CdnPurge,
    "waf.list": ZoneName,
    "waf.set": WafSet,
    "waf.remove": RuleName,
    "rate.list": ZoneName,
    "rate.set": RateSet,
    "rate.remove": RuleName,
    "balancer.list": ZoneName,
    "traffic.show": TrafficShow,
    "github.list": All,
    "github.status": GithubJob,
    "github.backup": GithubJob,
    "github.sync": GithubSync,
    "github.release": GithubRelease,
    "github.due": All,
}
