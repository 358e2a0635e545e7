"""Memory without a question: what there is of a tier and collection, in an order, page by page."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from base.errors import InputError
from pai import cards, learn
from pai.shapes import SHARED, Browse, Card, Collection, Page
from pai.stores import Stores

#: What each order sorts by, of which type, and which way.
ORDERS: dict[str, tuple[str, str, str]] = {
    "newest": ("created_at", "timestamptz", "DESC"),
    "used": ("access_count", "integer", "DESC"),
    "utility": ("utility", "float8", "ASC"),
}
#: How a value of each type is read: what cannot be one is not asked of the record.
READ: dict[str, Callable[[str], Any]] = {
    "timestamptz": datetime.fromisoformat,
    "integer": int,
    "float8": float,
}
IDS_MAX = 500
_CARD = f"{cards.CARD}, helped, harmed"


async def page(stores: Stores, wanted: Browse) -> Page:
    """The user's own and what is everybody's. What changes its place meanwhile may come twice or
    not at all. Raises InputError for an `after` that no page gave.
    """
    key, kind, way = ORDERS[wanted.order]
    value, last = _place(wanted.after, READ[kind])
    rows = await stores.store.fetch(
        f"SELECT {_CARD}, {key}::text AS place FROM memory"
        " WHERE user_id = ANY($1::text[]) AND NOT leaving"
        " AND ($2::text[] = '{}' OR tier = ANY($2)) AND ($3::text[] = '{}' OR collection = ANY($3))"
        " AND ($4::text IS NULL OR agent = $4) AND ($5::text IS NULL OR kind = $5)"
        " AND ($6::text IS NULL OR phase = $6) AND ($7::timestamptz IS NULL OR created_at >= $7)"
        f" AND ($8::text IS NULL OR ({key}, id) {'<' if way == 'DESC' else '>'}"
        f" ($8::text::{kind}, $9::uuid)) ORDER BY {key} {way}, id {way} LIMIT $10",
        *([wanted.user_id, SHARED], list(wanted.tiers), list(wanted.collections)),
        *(wanted.agent, wanted.kind),
        *(wanted.phase, wanted.since, value, last, wanted.limit + 1),
    )
    more = len(rows) > wanted.limit
    rows = rows[: wanted.limit]
    place = json.dumps([rows[-1]["place"], rows[-1]["id"]]) if more else None
    return Page(cards=tuple(await _cards(stores, rows)), next=place)


async def about(stores: Stores, user_id: str, ids: Sequence[str]) -> list[Card]:
    """The cards of those ids that the user may see, in their order; others are left out."""
    if len(ids) > IDS_MAX:
        raise InputError(f"at most {IDS_MAX} ids at once")
    try:
        wanted = [str(uuid.UUID(str(id))) for id in ids]
    except ValueError as error:
        raise InputError(f"the id of a memory is a UUID: {error}") from error
    rows = await stores.store.fetch(
        f"SELECT {_CARD} FROM memory WHERE id = ANY($1::uuid[]) AND user_id = ANY($2::text[])"
        " AND NOT leaving",
        *(wanted, [user_id, SHARED]),
    )
    found = {one.memory.id: one for one in await _cards(stores, rows)}
    return [found[id] for id in wanted if id in found]


async def _cards(stores: Stores, rows: Sequence[cards.Row]) -> list[Card]:
    """With their texts, those of cold ones out of the files; a lost line is said to be lost."""
    cold = {row["id"]: row["cold_month"] for row in rows if row["text"] is None}
    texts = await stores.archive.texts(cold) if cold else {}
    return [
        card(row, texts.get(row["id"], "(its line is missing)") if row["id"] in cold else None)
        for row in rows
    ]


def card(row: cards.Row, text: str | None = None) -> Card:
    """The card in a row; `text` for one that has none."""
    names = set(Card.model_fields) - {"memory", "usefulness"}
    learning = row["collection"] == Collection.LEARNINGS
    return Card(
        memory=cards.to_memory(row, text),
        usefulness=learn.usefulness(row["helped"], row["harmed"]) if learning else None,
        **{name: row[name] for name in names},
    )


def _place(after: str | None, read: Callable[[str], Any]) -> tuple[str | None, str | None]:
    if after is None:
        return None, None
    try:
        value, last = json.loads(after)
        read(value)
        return str(value), str(uuid.UUID(last))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError("after: not one that a page of this order gave") from error
