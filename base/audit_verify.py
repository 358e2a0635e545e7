"""Whether the audit log is what was written: the table or an exported file, beside signed heads.

Found: an edit, a deletion, a reordering, rows that are not of the chain, by the chain alone; a cut
tail and a log rewritten whole with its hashes, by the signed heads; a head file that was cut,
replaced or forged, by the heads' own chain and signatures, by the start rows in the table (each
names the head before it) and by copies of the heads, such as the journal's. Not found: what was
cut after the newest head anywhere; a whole rewrite by somebody who has the private key and every
copy of the heads.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from base import audit_chain, audit_heads
from base.audit_chain import CHAIN, SEAL, Check, Fault, Row
from base.audit_heads import Head
from base.audit_months import SELECT
from base.audit_writer import ROLE, usable_role
from base.errors import InputError
from base.settings import Settings
from base.store import Session, Store

PAGE = 2_000
JOURNAL_WAIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found. `signed_seq`: rows up to here are signed. `notes` are no faults."""

    rows: int
    first_seq: int | None
    last_seq: int
    heads: int
    signed_seq: int
    signed_at: str | None
    faults: tuple[Fault, ...]
    fault_count: int
    notes: tuple[str, ...]
    duration_s: float

    @property
    def ok(self) -> bool:
        return self.fault_count == 0


async def verify(
    settings: Settings,
    store: Store,
    *,
    copies: Sequence[Head] = (),
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Check the whole table in one snapshot. `copies`: heads kept elsewhere. `progress` hears how
    many rows were checked. Raises StoreError, InputError for a public key that is none.
    """
    start_s, notes = time.monotonic(), list[str]()
    # Heads first: what is signed after this is about rows that the snapshot may not have.
    heads = audit_heads.read(audit_heads.heads_path(settings))
    key, faults = _public_key(settings)
    async with snapshot(store) as tx:
        sealed = audit_chain.spans(await seals(tx))
        check = Check(sealed=sealed, heads=_signed([*copies, *heads], key))
        for fault in faults:
            check.add(fault)
        async for page in pages(tx):
            check.feed(page)
            if progress is not None:
                progress(check.rows)
        await _outside(tx, check)
        if not await usable_role(tx):
            notes.append(
                f"the writer has no role {ROLE} here: it writes with its user's own rights"
            )
    _compare(check, heads, copies, key)
    return _report(check, heads, notes, start_s)


def journal(settings: Settings) -> list[Head]:
    """The heads that the system journal kept; none where there is no journal."""
    command = shutil.which("journalctl")
    if command is None or not audit_heads.JOURNAL.exists():
        return []
    line = [command, "--quiet", "--output=json", "--output-fields", audit_heads.JOURNAL_FIELD]
    match = f"SYSLOG_IDENTIFIER={audit_heads.JOURNAL_NAME}"
    run = subprocess.run([*line, match], capture_output=True, check=False, timeout=JOURNAL_WAIT_S)
    found = []
    for raw in run.stdout.splitlines():
        try:
            said = json.loads(raw).get(audit_heads.JOURNAL_FIELD)
        except ValueError:
            continue
        head = audit_heads.parse(said) if isinstance(said, str) else None
        if head is not None:
            found.append(head)
    ours = audit_heads.key_name(settings)
    return [head for head in found if head.key == ours]


@asynccontextmanager
async def snapshot(store: Store) -> AsyncIterator[Session]:
    """A session that sees one moment of the table and writes nothing."""
    async with store.transaction() as tx:
        await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield tx


async def seals(tx: Session) -> list[dict[str, Any]]:
    """The seal rows, oldest first."""
    return await tx.fetch(
        f"{SELECT}audit_logs WHERE event_type = $1 AND resource_type = $2 AND seq IS NOT NULL"
        " ORDER BY seq",
        *(CHAIN, SEAL),
    )


async def pages(
    tx: Session, first: int | None = None, last: int | None = None
) -> AsyncIterator[list[dict[str, Any]]]:
    """The rows by seq, a page at a time; the next is on its way while one is worked on."""
    where = f"seq >= {int(first)}" if first is not None else "seq IS NOT NULL"
    until = f" AND seq <= {int(last)}" if last is not None else ""
    await tx.execute(
        f"DECLARE audit_rows NO SCROLL CURSOR FOR {SELECT}audit_logs WHERE {where}{until}"
        " ORDER BY seq"
    )
    fetch = f"FETCH {PAGE} FROM audit_rows"
    try:
        page = await tx.fetch(fetch)
        while page:
            ahead = asyncio.create_task(tx.fetch(fetch), name="audit rows ahead")
            await asyncio.sleep(0)
            try:
                yield page
            finally:
                page = await ahead
    finally:
        await tx.execute("CLOSE audit_rows")


def check_file(lines: Iterable[bytes], key: Ed25519PublicKey | None = None) -> Report:
    """Check an exported file. `key` None: the one inside is believed, and a note says so.

    Raises InputError when it is no export.
    """
    start_s, notes = time.monotonic(), list[str]()
    rows = iter(lines)
    header = _header(next(rows, b""))
    if key is None:
        key = audit_heads.public_key(header["public_key"])
        notes.append(
            f"the key inside the file was believed: compare {audit_heads.fingerprint(key)}"
            " with the home's, or give --key"
        )
    heads: list[Head] = []
    sealed: list[dict[str, Any]] = []
    check: Check | None = None
    first = header["first_seq"] or 0
    for raw in rows:
        found = _object(raw)
        kind = found.pop("kind", None)
        if kind == "head":
            head = audit_heads.parse(orjson.dumps(found))
            if head is not None:
                heads.append(head)
        elif kind == "seal":
            sealed.append(found)
        elif kind == "row":
            if check is None:
                check = _file_check(header, sealed, heads, key)
            check.feed([found])
    check = check or _file_check(header, sealed, heads, key)
    check.end(header["last_seq"], "the file says that it goes to row")
    if header["rows"] != check.rows:
        said = f"the file has {check.rows} rows and says that it has {header['rows']}"
        check.add(Fault(kind="cut", said=said))
    for fault in audit_heads.check(heads, key):
        check.add(fault)
    if header["whole"]:
        _told_by_starts(check, heads)
        check.end(max(_signed(heads, key), default=0), "a signed head names row")
    elif first > 1:
        notes.append(f"the file begins at row {first}: what was before is not in it")
    return _report(check, heads, notes, start_s)


def _file_check(
    header: Mapping[str, Any],
    sealed: Sequence[Row],
    heads: Sequence[Head],
    key: Ed25519PublicKey,
) -> Check:
    signed = _signed(heads, key)
    return Check(sealed=audit_chain.spans(sealed), heads=signed, whole=header["whole"])


def _header(raw: bytes) -> dict[str, Any]:
    header = _object(raw)
    wanted = {"kind", "public_key", "first_seq", "last_seq", "rows", "whole"}
    if header.get("kind") != "export" or not wanted <= header.keys():
        raise InputError("this is no exported audit log: its first line is another")
    return header


def _object(raw: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(raw)
    except ValueError as error:
        raise InputError(f"a line of the file is no JSON: {raw[:60]!r}") from error
    if not isinstance(found, dict):
        raise InputError(f"a line of the file is no object: {raw[:60]!r}")
    return found


def _public_key(settings: Settings) -> tuple[Ed25519PublicKey | None, list[Fault]]:
    """The home's public key; a fault when it is gone or not the private key's."""
    path = audit_heads.public_path(settings)
    if not path.is_file():
        return None, []
    key = audit_heads.public_key(path.read_bytes())
    ours = audit_heads.key_name(settings)
    if ours is not None and ours != audit_heads.fingerprint(key):
        said = f"{path} is not the public half of this home's audit key"
        return key, [Fault(kind="signature", said=said)]
    return key, []


def _signed(heads: Iterable[Head], key: Ed25519PublicKey | None) -> dict[int, str]:
    """What the key signed for each row. Where two heads differ, the first given counts."""
    found: dict[int, str] = {}
    for head in heads:
        if key is not None and audit_heads.genuine(head, key):
            found.setdefault(head.seq, head.hash)
    return found


def _compare(
    check: Check, heads: Sequence[Head], copies: Sequence[Head], key: Ed25519PublicKey | None
) -> None:
    """Heads against themselves, against their copies and against the table's ends."""
    if key is None and (heads or check.rows):
        check.add(Fault(kind="signature", said="the public key that signed the heads is not there"))
    for fault in audit_heads.check(heads, key):
        check.add(fault)
    if check.rows and not heads:
        check.add(Fault(kind="heads", said="there are rows, and no signed head"))
    kept = {head.number: head for head in heads}
    for copy in copies:
        if key is not None and not audit_heads.genuine(copy, key):
            continue
        mine = kept.get(copy.number)
        if mine is None or mine.digest != copy.digest:
            what = "is not in" if mine is None else "is another in"
            said = f"head {copy.number} {what} the head file, and a copy of it is kept elsewhere"
            check.add(Fault(kind="heads", seq=copy.seq, said=said))
    check.end(max(_signed([*heads, *copies], key), default=0), "a signed head names row")
    _told_by_starts(check, heads)


def _told_by_starts(check: Check, heads: Sequence[Head]) -> None:
    """Each start row names the head that was the newest then."""
    kept = {head.number: head.digest for head in heads}
    for row in check.starts:
        details = row["details"]
        details = orjson.loads(details) if isinstance(details, str) else details
        number, digest = details.get("heads"), details.get("head")
        if number and kept.get(number) != digest:
            said = f"it names head {number}, which is not in the head file as it was"
            check.add(Fault(kind="heads", seq=row["seq"], id=row["id"], said=said))


async def _outside(tx: Session, check: Check) -> None:
    """Rows that are not of the chain, and where the writer's own table says that it ends."""
    strays = await tx.fetch(f"{SELECT}audit_logs WHERE seq IS NULL LIMIT 10")
    for row in strays:
        check.add(Fault(kind="unchained", id=row["id"], said="a row that the writer did not write"))
    last = await tx.fetchval("SELECT max(seq) FROM audit_chain")
    if last is not None:
        check.end(last, "the writer got to row")


def _report(check: Check, heads: Sequence[Head], notes: Sequence[str], start_s: float) -> Report:
    return Report(
        rows=check.rows,
        first_seq=check.first_seq,
        last_seq=check.last_seq,
        heads=len(heads),
        signed_seq=heads[-1].seq if heads else 0,
        signed_at=heads[-1].signed_at if heads else None,
        faults=tuple(check.faults),
        fault_count=check.fault_count,
        notes=tuple(notes),
        duration_s=time.monotonic() - start_s,
    )
