"""The hash chain: the canonical form of a row, and what is wrong with rows that were read.

Canonical form of a row: the JSON object of all `FIELDS`, as UTF-8 bytes without white space, keys
sorted by their bytes at every level, characters above ASCII as they are, numbers in their shortest
form that reads back the same, `timestamp` as `2026-01-31T23:59:59.000001Z` (UTC, always six
decimals), `id` as lower-case hexadecimal with dashes, `actor_ip` in Python's compressed form, what
is absent as null. `hash` is the SHA-256 of it, in hexadecimal; `prev_hash` is the hash of the row
with the `seq` before, of row 1 `GENESIS`.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import orjson

GENESIS = "0" * 64
#: `event_type` of the rows that the writer itself adds; no event can carry it. Their
#: `resource_type` is SEAL or START.
CHAIN = "audit"
SEAL, START = "seal", "start"
FAULTS_MAX = 100
#: How far from its place a row is looked for before it counts as edited.
MOVED_MAX = 1_000

FIELDS = (
    "seq", "id", "timestamp", "event_type", "actor_type", "actor_id", "actor_ip",
    "resource_type", "resource_path", "action", "outcome", "details", "risk_level", "prev_hash",
)  # fmt: skip

Row = Mapping[str, Any]
FaultKind = Literal[
    "edited", "deleted", "reordered", "cut", "rewritten", "signature", "heads", "unchained"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong. `seq` and `id` name the row; None: it is not about a row that is there."""

    kind: FaultKind
    said: str
    seq: int | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Rows `first` to `last` that were dropped with their month, as a seal row tells it."""

    first: int
    last: int
    prev_hash: str
    last_hash: str


def stamp(at: datetime) -> str:
    """The one text of a moment; naive ones count as UTC."""
    if at.tzinfo is not None and at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    return at.isoformat(timespec="microseconds")[:26] + "Z"


@lru_cache(maxsize=4096)
def address(text: str) -> str:
    """The one text of an address; what is none stays as it is."""
    try:
        return ipaddress.ip_address(text).compressed
    except ValueError:
        return text


def plain(row: Row) -> dict[str, Any]:
    """What is hashed, as JSON data. `details` may be JSON text, `timestamp` the one text of it."""
    found = dict(row)
    found.pop("hash", None)
    ip, at, details = found["actor_ip"], found["timestamp"], found["details"]
    if type(details) is str:
        found["details"] = orjson.loads(details)
    if type(at) is not str:
        found["timestamp"] = stamp(at)
    if ip is not None:
        found["actor_ip"] = address(ip)
    return found


def canonical(row: Row) -> bytes:
    """The bytes that are hashed. Raises TypeError or ValueError for what no written row holds."""
    return orjson.dumps(plain(row), option=orjson.OPT_SORT_KEYS)


def digest(row: Row) -> str:
    """The hash of a row."""
    return hashlib.sha256(canonical(row)).hexdigest()


def link(rows: Iterable[dict[str, Any]], seq: int, last_hash: str) -> list[dict[str, Any]]:
    """The rows with seq, prev_hash and hash, continuing after row `seq` whose hash is given."""
    linked = []
    for row in rows:
        seq += 1
        whole = {**row, "seq": seq, "prev_hash": last_hash}
        last_hash = digest(whole)
        linked.append({**whole, "hash": last_hash})
    return linked


def spans(seals: Iterable[Row]) -> list[Span]:
    """What seal rows say was dropped. One whose own hash is wrong says nothing."""
    found = []
    for row in seals:
        if fits(row, row["seq"]):
            details = row["details"]
            details = orjson.loads(details) if isinstance(details, str) else details
            found += [Span(**one) for one in details["spans"]]
    return found


def fits(row: Row, seq: int) -> bool:
    """Whether the row's hash is that of its content at place `seq`."""
    try:
        return bool(digest({**row, "seq": seq}) == row["hash"])
    except (TypeError, ValueError):  # only a hand from outside puts such values there
        return False


class Check:
    """Give it the rows in order of seq; `faults` grows. Pure: knows nothing of where rows are.

    `heads` maps a seq to the hashes that were signed for it. `whole` False: the rows begin
    somewhere (a part that was exported), and what was before is taken on trust.
    """

    def __init__(
        self, *, sealed: Sequence[Span] = (), heads: Mapping[int, str] | None = None,
        whole: bool = True,
    ) -> None:  # fmt: skip
        self.faults: list[Fault] = []
        self.fault_count = 0
        self.rows = 0
        self.first_seq: int | None = None
        self.last_seq = 0
        self.last_hash = GENESIS
        self.starts: list[Row] = []
        self._sealed = {span.first: span for span in sealed}
        self._sealed_ends = {span.last: span for span in sealed}
        self._heads = heads or {}
        self._whole = whole
        self._told_seq = 0

    def feed(self, rows: Iterable[Row]) -> None:
        """Check the next rows."""
        heads, sha256 = self._heads, hashlib.sha256
        for row in rows:
            seq, prev_hash, said = row["seq"], row["prev_hash"], row["hash"]
            if self.first_seq is None:
                self._begin(row)
            elif seq != self.last_seq + 1:
                self._jump(row)
            try:
                true = sha256(canonical(row)).hexdigest() == said
            except (TypeError, ValueError):
                true = False
            if not true:
                self._edited(row)
            elif prev_hash != self.last_hash:
                self._fault("rewritten", f"it does not follow from row {seq - 1}", row)
            elif seq in heads and heads[seq] != said:
                self._fault("rewritten", "it is not the row that was signed at this place", row)
            if row["event_type"] == CHAIN and row["resource_type"] == START:
                self.starts.append(row)
            self.last_seq, self.last_hash = seq, said
            self.rows += 1

    def end(self, last_seq: int, told_by: str) -> None:
        """Say that the log once reached `last_seq`."""
        if last_seq > max(self.last_seq, self._told_seq):
            self._told_seq = last_seq
            gone = _places(self.last_seq + 1, last_seq)
            last = f"the log ends at row {self.last_seq}" if self.rows else "the log is empty"
            self.add(
                Fault(
                    kind="cut", seq=self.last_seq + 1,
                    said=f"{gone} cut off: {last}, but {told_by} {last_seq}",
                )
            )  # fmt: skip

    def add(self, fault: Fault) -> None:
        self.fault_count += 1
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(fault)

    def _fault(self, kind: FaultKind, said: str, row: Row) -> None:
        self.add(Fault(kind=kind, said=said, seq=row["seq"], id=row["id"]))

    def _begin(self, row: Row) -> None:
        self.first_seq = seq = row["seq"]
        if not self._whole:
            self.last_seq, self.last_hash = seq - 1, row["prev_hash"]
        elif seq < 1:
            self._fault("reordered", "the first row of a log is row 1", row)
            self.last_hash = row["prev_hash"]
        elif seq != 1:
            span = self._sealed_ends.get(seq - 1)
            if span is not None:
                self.last_seq, self.last_hash = span.last, span.last_hash
            else:
                self._missing(1, row)

    def _jump(self, row: Row) -> None:
        seq = row["seq"]
        if seq <= self.last_seq:
            self._fault("reordered", f"row {seq} is there more than once", row)
            self.last_hash = row["prev_hash"]
            return
        while self.last_seq + 1 < seq:
            span = self._sealed.get(self.last_seq + 1)
            if span is None or span.last >= seq or span.prev_hash != self.last_hash:
                self._missing(self.last_seq + 1, row)
                return
            self.last_seq, self.last_hash = span.last, span.last_hash

    def _missing(self, first: int, row: Row) -> None:
        gone = _places(first, row["seq"] - 1)
        self._fault("deleted", f"{gone} missing before this one, and no seal tells of them", row)
        self.last_hash = row["prev_hash"]

    def _edited(self, row: Row) -> None:
        """Say what became of a row whose hash is not that of its content."""
        seq = row["seq"]
        if self.fault_count < FAULTS_MAX and isinstance(seq, int):
            for away in range(1, MOVED_MAX + 1):
                for place in (seq - away, seq + away):
                    if fits(row, place):
                        self._fault("reordered", f"it was written as row {place}", row)
                        return
        self._fault("edited", "its content is not what was written", row)


def _places(first: int, last: int) -> str:
    return f"row {first} is" if first == last else f"rows {first} to {last} are"
