"""Records of a name: what is there, what is wanted, and the change that lies between, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from base.errors import ConflictError
from base.verbs_outside import ALONE, DnsRemove, DnsSet, record_name, record_value

QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
#: Beside a CNAME nothing else answers for a name.
EXCLUSIVE = {"A", "AAAA", "CNAME", "NS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """id None: not at Cloudflare yet. ttl_s 1: Cloudflare decides."""

    type: str
    name: str
    content: str
    ttl_s: int = 1
    proxied: bool = False
    priority: int | None = None
    comment: str | None = None
    id: str | None = None

    def __str__(self) -> str:
        words = [self.type, self.name]
        words += [str(self.priority)] if self.priority is not None else []
        words += [self.content, "ttl auto" if self.ttl_s == 1 else f"ttl {self.ttl_s} s"]
        return " ".join([*words, *(["proxied"] if self.proxied else [])])

    @property
    def value(self) -> str:
        """What two records are compared by."""
        if self.type == "TXT":
            parts = QUOTED.findall(self.content)
            joined = "".join(re.sub(r"\\(.)", r"\1", part) for part in parts)
            return joined if parts and self.content.startswith('"') else self.content
        return self.content.rstrip(".").lower() if self.type != "A" else self.content

    def same(self, other: Record) -> bool:
        """Whether nothing but the identity differs."""
        return replace(self, id=None, content=self.value) == replace(
            other, id=None, content=other.value
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """All or nothing of it is carried out. patches: (as it is, as it becomes)."""

    deletes: tuple[Record, ...] = ()
    patches: tuple[tuple[Record, Record], ...] = ()
    posts: tuple[Record, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.deletes or self.patches or self.posts)

    def words(self) -> list[str]:
        return [
            *(f"remove {record}" for record in self.deletes),
            *(f"change {old} to {new}" for old, new in self.patches),
            *(f"add {record}" for record in self.posts),
        ]


def read(found: Any) -> Record:
    """One of Cloudflare's records."""
    return Record(
        type=found.type,
        name=found.name,
        content=found.content or "",
        ttl_s=int(found.ttl or 1),
        proxied=bool(getattr(found, "proxied", False)),
        priority=int(found.priority) if getattr(found, "priority", None) is not None else None,
        comment=found.comment or None,
        id=found.id,
    )


def wanted(asked: DnsSet, have: Sequence[Record]) -> list[Record]:
    """What the records of that name and type are to be. have: all records of the name.

    Raises ConflictError when a record of another type stands against it.
    """
    name = record_name(asked.name, asked.zone)
    values = list(dict.fromkeys(record_value(asked.type, value) for value in asked.values))
    for record in have if asked.type in ALONE else ():
        kinds = {asked.type, record.type}
        if "CNAME" in kinds and len(kinds) == 2 and kinds <= EXCLUSIVE:
            raise ConflictError(
                f"{name} has a {record.type} record ({record.content}), beside which there can be "
                f"no {asked.type}; remove it first"
            )
    same_type = [record for record in have if record.type == asked.type]
    keep = asked.others == "keep" or (asked.others is None and asked.type not in ALONE)
    made = [record for record in same_type if keep and record.value not in values]
    if asked.type == "CNAME" and made:
        raise ConflictError(f"{name} has a CNAME record already; a name has one")
    for value in values:
        old = next((record for record in same_type if record.value == value), None)
        model = old or next(iter(same_type if asked.type in ALONE and not keep else ()), None)
        proxied = asked.proxied if asked.proxied is not None else bool(model and model.proxied)
        ttl_s = asked.ttl_s or (model.ttl_s if model else 1)
        made.append(
            Record(
                type=asked.type,
                name=name,
                content=old.content if old else value,
                ttl_s=1 if proxied else ttl_s,
                proxied=proxied,
                priority=asked.priority,
                comment=model.comment if model else None,
                id=old.id if old else None,
            )
        )
    return made


def remaining(asked: DnsRemove, have: Iterable[Record]) -> list[Record]:
    """What of the records of that name and type is left."""
    values = {record_value(asked.type, value) for value in asked.values}
    return [record for record in have if values and record.value not in values]


def difference(have: Sequence[Record], want: Sequence[Record]) -> Change:
    """The change that makes `have` to `want`. A record is changed in place where one can be."""
    left, patches, posts = list(have), [], []
    for record in want:
        old = next(
            (one for one in left if one.value == record.value and _kind(one) == _kind(record)), None
        )
        if old is None:
            posts.append(record)
            continue
        left.remove(old)
        if not old.same(record):
            patches.append((old, replace(record, id=old.id)))
    for record in list(posts):
        old = next((one for one in left if _kind(one) == _kind(record)), None)
        if old is not None:
            left.remove(old)
            posts.remove(record)
            patches.append((old, replace(record, id=old.id)))
    return Change(deletes=tuple(left), patches=tuple(patches), posts=tuple(posts))


def alike(one: Sequence[Record], other: Sequence[Record]) -> bool:
    """Whether both hold the same records, whatever their identities."""
    return not difference(one, other)


def _kind(record: Record) -> tuple[str, str]:
    return record.type, record.name
