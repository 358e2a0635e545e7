"""The audit log as JSON Lines that can be checked anywhere (`audit_verify.check_file`).

First a header {kind export: version, public_key, first_seq, last_seq, rows, whole}, then the seals
and the signed heads, then the rows with their hashes, each with its `kind`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

import orjson

from base import audit_chain, audit_heads
from base.audit_verify import pages, seals, snapshot
from base.errors import NotFoundError
from base.settings import Settings
from base.store import Store

VERSION = 1


async def export(
    settings: Settings, store: Store, since: datetime | None = None, until: datetime | None = None
) -> AsyncIterator[bytes]:
    """The lines, each ending in a newline. `since` and `until`: rows whose events happened then
    and those between them, so that the part is one run of the chain.

    Raises NotFoundError when there is no public key yet: nothing was ever written.
    """
    public = audit_heads.public_path(settings)
    if not public.is_file():
        raise NotFoundError("nothing was ever written to the audit log of this home")
    heads = audit_heads.read(audit_heads.heads_path(settings))
    async with snapshot(store) as tx:
        ends = await tx.fetchrow(
            "SELECT min(seq) AS first, max(seq) AS last FROM audit_logs"
            " WHERE ($1::timestamptz IS NULL OR timestamp >= $1)"
            " AND ($2::timestamptz IS NULL OR timestamp < $2)",
            *(since, until),
        )
        first, last = (ends["first"], ends["last"]) if ends else (None, None)
        count = await tx.fetchval(
            "SELECT count(*) FROM audit_logs WHERE seq BETWEEN $1 AND $2", first, last
        )
        whole = since is None and until is None
        kept = [head for head in heads if whole or (first or 1) <= head.seq <= (last or 0)]
        yield _line(
            "export",
            version=VERSION,
            public_key=public.read_text(encoding="utf-8"),
            first_seq=first,
            last_seq=last or 0,
            rows=count,
            whole=whole,
        )
        for seal in await seals(tx):
            yield _row("seal", seal)
        for head in kept:
            yield _line("head", **asdict(head))
        if first is not None:
            async for page in pages(tx, first, last):
                for row in page:
                    yield _row("row", row)


def _row(kind: str, row: audit_chain.Row) -> bytes:
    return _line(kind, **audit_chain.plain(row), hash=row["hash"])


def _line(kind: str, **fields: Any) -> bytes:
    return orjson.dumps({"kind": kind, **fields}, option=orjson.OPT_APPEND_NEWLINE)
