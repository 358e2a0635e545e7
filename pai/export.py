"""Everything that is remembered of one user, page by page, for taking it along."""

from __future__ import annotations

import json
from typing import Any

from base.errors import InputError
from pai import cards
from pai.shapes import Signal
from pai.stores import Stores

PAGE = 500
SIGNALS = "signals"


async def page(stores: Stores, user_id: str, after: str | None) -> dict[str, Any]:
    """`memories` and `signals` (those that a person gave as a rating), and `next`: ask with it
    for what follows, None at the end. What is remembered meanwhile may be missing.

    Raises InputError for an `after` that is none.
    """
    if after == SIGNALS:
        return {"memories": [], "signals": await _signals(stores, user_id), "next": None}
    month, last = _place(after)
    rows = await stores.store.fetch(
        f"SELECT {cards.CARD} FROM memory WHERE user_id = $1 AND NOT leaving"
        " AND ($3::uuid IS NULL OR (COALESCE(cold_month, ''), id) > ($2, $3::uuid))"
        " ORDER BY COALESCE(cold_month, ''), id LIMIT $4",
        *(user_id, month, last, PAGE),
    )
    cold = {row["id"]: row["cold_month"] for row in rows if row["text"] is None}
    texts = await stores.archive.texts(cold)
    found = [
        cards.to_memory(row, texts.get(row["id"])).model_dump(mode="json")
        for row in rows
        if row["text"] is not None or row["id"] in texts
    ]
    more = len(rows) == PAGE
    place = json.dumps([rows[-1]["cold_month"] or "", rows[-1]["id"]]) if more else SIGNALS
    return {"memories": found, "signals": [], "next": place}


async def _signals(stores: Stores, user_id: str) -> list[dict[str, Any]]:
    names = ", ".join(Signal.model_fields)
    rows = await stores.store.fetch(
        f"SELECT {names} FROM memory_signal WHERE user_id = $1 AND rating IS NOT NULL"
        " ORDER BY at, id",
        user_id,
    )
    return [Signal.model_validate(row).model_dump(mode="json") for row in rows]


def _place(after: str | None) -> tuple[str, str | None]:
    if after is None:
        return "", None
    try:
        month, last = json.loads(after)
    except (ValueError, TypeError) as error:
        raise InputError("after: not one that an export gave") from error
    return str(month), str(last)
