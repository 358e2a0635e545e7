"""The card table: one row a memory, the record of what it is and where. SQL only.

Every function takes the session of the caller's transaction, or the store itself where a single
statement is enough. What is `leaving` is shown to nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pai import tiers
from pai.shapes import Memory, Tier

Row = dict[str, Any]

FIELDS = (
    "id", "collection", "user_id", "text", "kind", "agent", "speaker", "source", "task_id",
    "conversation_id", "seq", "file", "tags", "tainted", "created_at", "phase", "outcome",
    "applies_when", "evidence", "domain", "extra",
)  # fmt: skip
_TYPES = (
    "id uuid, collection text, user_id text, text text, kind text, agent text, speaker text,"
    " source text, task_id text, conversation_id text, seq integer, file text, tags text[],"
    " tainted boolean, created_at timestamptz, phase text, outcome text, applies_when text,"
    " evidence text, domain text, extra jsonb, hash text, tier text, due_at timestamptz,"
    " compared boolean, utility double precision, seen timestamptz"
)
_UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_NAMES = ", ".join(FIELDS)
#: What the moves need to know of a card beside the memory.
CARD = (
    f"{_NAMES}, tier, hash, stored_at, promoted_at, used_at, first_seen, support, access_count,"
    " rank_sum, feedback, utility, vector_of, sweep, leaving, cold_month"
)


class Statements(Protocol):
    """A store or a session."""

    async def fetch(self, sql: str, *values: Any) -> list[Row]: ...
    async def fetchrow(self, sql: str, *values: Any) -> Row | None: ...
    async def fetchval(self, sql: str, *values: Any) -> Any: ...
    async def execute(self, sql: str, *values: Any) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """That `memory_id` was given to a task, at place `rank` of its list (1 is the best)."""

    memory_id: str
    task_id: str
    rank: int
    at: datetime


def task(text: str) -> str:
    """SQL: the UUID that the expression `text` has; NULL when it names no task of ours."""
    return f"(CASE WHEN {text} ~ '{_UUID}' THEN {text}::uuid END)"


def fingerprint(memory: Memory) -> str:
    """SHA-256 of what a memory says: exact duplicates share it."""
    said = (memory.text, memory.applies_when, memory.phase, memory.outcome)
    return hashlib.sha256("\x1f".join(said).encode()).hexdigest()


def to_memory(row: Mapping[str, Any], text: str | None = None) -> Memory:
    """The memory of a row; `text` for one whose card has none."""
    values = {field: row[field] for field in FIELDS}
    if text is not None:
        values["text"] = text
    return Memory.model_validate(values)


async def add(
    tx: Statements, memories: Sequence[Memory], rules: tiers.Rules, now: datetime, model: str
) -> None:
    """Insert cards in the tier where each begins, unplaced. The ids must be new.

    model: of which their vectors will be, most likely: `placed` has less to write then.
    """
    rows = []
    for memory in memories:
        tier = tiers.home(memory)
        due = tiers.due(tier, used_at=now, now=now, rules=rules)
        rows.append(
            {
                **memory.model_dump(mode="json"),
                "hash": fingerprint(memory),
                "tier": tier.value,
                "due_at": due and due.isoformat(),
                "compared": not tiers.mergeable(memory),
                "utility": tiers.utility(
                    access_count=0, rank_sum=0, unused_s=0, feedback=tiers.FEEDBACK_START
                ),
                "seen": memory.created_at.isoformat(),
            }
        )
    await tx.execute(
        f"WITH came AS (INSERT INTO memory ({_NAMES}, hash, tier, due_at, compared, utility,"
        " first_seen, stored_at, used_at, promoted_at, vector_of)"
        f" SELECT {_NAMES}, hash, tier, due_at, compared, utility, seen, $2, $2,"
        " CASE WHEN tier = 'warm' THEN $2::timestamptz END, $3"
        f" FROM jsonb_to_recordset($1) AS given ({_TYPES}) RETURNING id)"
        " INSERT INTO memory_unplaced (memory_id) SELECT id FROM came",
        *(rows, now, model),
    )


async def replace(tx: Statements, memory: Memory, rules: tiers.Rules, now: datetime) -> None:
    """Write a new text over the card of the same id; a cold one becomes warm, its line waste."""
    values = memory.model_dump(mode="json")
    due = tiers.due(Tier.WARM, used_at=now, now=now, rules=rules)
    names = [field for field in FIELDS if field != "id"]
    await tx.execute(
        f"UPDATE memory SET ({', '.join(names)}) = (SELECT {', '.join(names)}"
        f" FROM jsonb_to_record($2) AS given ({_TYPES})), hash = $3, vector_of = NULL,"
        " compared = $4, used_at = $5,"
        " due_at = CASE WHEN tier = 'hot' THEN due_at ELSE $6 END,"
        " sweep = CASE WHEN tier = 'cold' THEN array_append(sweep, 'cold') ELSE sweep END,"
        " promoted_at = CASE WHEN tier = 'cold' THEN $5 ELSE promoted_at END,"
        " tier = CASE WHEN tier = 'cold' THEN 'warm' ELSE tier END"
        " WHERE id = $1",
        *(memory.id, values, fingerprint(memory), not tiers.mergeable(memory), now, due),
    )


async def known(db: Statements, ids: Sequence[str]) -> dict[str, Row]:
    """By id what is known of those ids: `into_id` the one that stands for it now (itself, or
    what took it in), whose it is, its hash, and those it `was` before a person changed it. What
    is leaving is known too.
    """
    rows = await db.fetch(
        "SELECT id, id AS into_id, user_id, hash, leaving, extra -> 'edited' -> 'was' AS was"
        " FROM memory WHERE id = ANY($1::uuid[])"
        " UNION ALL SELECT old.id, old.into_id, old.user_id, old.hash, card.leaving, NULL"
        " FROM memory_merged AS old JOIN memory AS card ON card.id = old.into_id"
        " WHERE old.id = ANY($1::uuid[])",
        list(ids),
    )
    return {row["id"]: row for row in rows}


async def twins(db: Statements, hashes: Sequence[str]) -> list[Row]:
    """The cards with one of those hashes that may take in an exact duplicate."""
    return await db.fetch(
        "SELECT id, user_id, collection, hash, tainted, phase, outcome, seq FROM memory"
        " WHERE hash = ANY($1::bpchar[]) AND collection <> 'conversations' AND seq IS NULL"
        " AND NOT leaving",
        list(hashes),
    )


async def absorb(tx: Statements, into_id: str, memory: Memory) -> None:
    """Count a duplicate that never got a card: support, first seen, and the id it came with."""
    fresh = await tx.execute(
        "INSERT INTO memory_merged (id, into_id, user_id, hash, file, task_id)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        *(memory.id, into_id, memory.user_id, fingerprint(memory), memory.file, memory.task_id),
    )
    if fresh:
        await tx.execute(
            "UPDATE memory SET support = support + 1, first_seen = LEAST(first_seen, $2)"
            " WHERE id = $1",
            *(into_id, memory.created_at),
        )


async def merge(tx: Statements, kept: Row, gone: Row) -> None:
    """Let `kept` take in `gone`, whose copies are then to be swept. What `gone` had taken in,
    was used for and was worth goes over to `kept`.
    """
    into, old = kept["id"], gone["id"]
    await tx.execute(
        "INSERT INTO memory_merged (id, into_id, user_id, hash, file, task_id)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        *(old, into, gone["user_id"], gone["hash"], gone["file"], gone["task_id"]),
    )
    await tx.execute("UPDATE memory_merged SET into_id = $1 WHERE into_id = $2", into, old)
    await tx.execute(
        "INSERT INTO memory_use (task_id, memory_id, root_id, rank, at)"
        " SELECT task_id, $1, root_id, rank, at FROM memory_use WHERE memory_id = $2"
        " ON CONFLICT DO NOTHING",
        *(into, old),
    )
    await tx.execute(
        "UPDATE memory AS kept SET support = kept.support + gone.support,"
        " first_seen = LEAST(kept.first_seen, gone.first_seen),"
        " access_count = kept.access_count + gone.access_count,"
        " rank_sum = kept.rank_sum + gone.rank_sum,"
        " helped = kept.helped + gone.helped, harmed = kept.harmed + gone.harmed,"
        " used_at = GREATEST(kept.used_at, gone.used_at)"
        " FROM memory AS gone WHERE kept.id = $1 AND gone.id = $2",
        *(into, old),
    )
    await leave(tx, [old])


async def leave(tx: Statements, ids: Sequence[str]) -> int:
    """Show them to nobody from now on; their copies everywhere are to be swept, then the card."""
    return await tx.execute(
        "UPDATE memory SET leaving = TRUE, compared = TRUE, due_at = NULL,"
        " sweep = ARRAY['hot', 'warm', 'cold'] WHERE id = ANY($1::uuid[])",
        list(ids),
    )


async def flip(
    tx: Statements, ids: Sequence[str], to: Tier, rules: tiers.Rules, now: datetime,
    *, month: str | None = None,
) -> list[str]:  # fmt: skip
    """Say that they are in tier `to` now, their copy in the old tier being waste. The ids of
    those that were not there yet and are not leaving.
    """
    due = tiers.due(to, used_at=now, now=now, rules=rules)
    rows = await tx.fetch(
        "UPDATE memory SET sweep = array_append(array_remove(sweep, $2), tier), tier = $2,"
        " due_at = $3,"
        " text = CASE WHEN $2 = 'cold' THEN NULL ELSE text END,"
        " vector_of = CASE WHEN $2 = 'cold' THEN NULL ELSE vector_of END,"
        " compared = compared OR $2 = 'cold',"
        " cold_month = CASE WHEN $2 = 'cold' THEN $4 ELSE cold_month END,"
        " promoted_at = CASE WHEN $2 = 'warm' THEN $5::timestamptz ELSE promoted_at END"
        " WHERE id = ANY($1::uuid[]) AND tier <> $2 AND NOT leaving RETURNING id",
        *(list(ids), to.value, due, month, now),
    )
    return [row["id"] for row in rows]


async def intend(db: Statements, ids: Sequence[str], to: Tier) -> None:
    """Note, before it is written, that tier `to` may hold a copy: waste unless `flip` follows."""
    await db.execute(
        "UPDATE memory SET sweep = array_append(array_remove(sweep, $2), $2)"
        " WHERE id = ANY($1::uuid[]) AND tier <> $2",
        *(list(ids), to.value),
    )


async def thaw(
    tx: Statements, texts: Mapping[str, str], rules: tiers.Rules, now: datetime
) -> list[str]:
    """Make cold memories warm again, giving them back their text; their ids. Their cold lines
    are waste then, and the warm store gets them like any memory that it has not yet.
    """
    due = tiers.due(Tier.WARM, used_at=now, now=now, rules=rules)
    rows = await tx.fetch(
        "UPDATE memory AS card SET tier = 'warm', text = given.text, promoted_at = $3,"
        " used_at = $3, due_at = $4, vector_of = NULL, sweep = array_append(sweep, 'cold')"
        " FROM unnest($1::uuid[], $2::text[]) AS given (id, text)"
        " WHERE card.id = given.id AND tier = 'cold' AND NOT leaving RETURNING card.id",
        *(list(texts), list(texts.values()), now, due),
    )
    return [row["id"] for row in rows]


async def placed(tx: Statements, ids: Iterable[str], model: str) -> None:
    """Note of which model the vectors are that the stores now have of them ('': none)."""
    await tx.execute(
        "WITH there AS (DELETE FROM memory_unplaced WHERE memory_id = ANY($1::uuid[]))"
        " UPDATE memory SET vector_of = $2 WHERE id = ANY($1::uuid[]) AND tier <> 'cold'"
        " AND vector_of IS DISTINCT FROM $2",
        *(list(ids), model),
    )


async def unplaced(db: Statements, limit: int) -> list[Row]:
    """Cards that no store has yet."""
    await db.execute(
        "DELETE FROM memory_unplaced AS late WHERE NOT EXISTS (SELECT FROM memory"
        " WHERE id = late.memory_id AND tier <> 'cold' AND NOT leaving)"
    )
    return await db.fetch(
        f"SELECT {CARD} FROM memory WHERE id IN (SELECT memory_id FROM memory_unplaced"
        " UNION ALL (SELECT id FROM memory WHERE vector_of IS NULL AND tier <> 'cold'"
        " AND NOT leaving LIMIT $1)) LIMIT $1",
        limit,
    )


async def get(db: Statements, ids: Sequence[str]) -> list[Row]:
    """The cards of those ids, also of those that are leaving."""
    return await db.fetch(f"SELECT {CARD} FROM memory WHERE id = ANY($1::uuid[])", list(ids))


async def states(db: Statements, ids: Sequence[str]) -> dict[str, Row]:
    """By id what the stores must know of a card to hold the memory."""
    rows = await db.fetch(
        "SELECT id, tier, hash, leaving, utility, support FROM memory WHERE id = ANY($1::uuid[])",
        list(ids),
    )
    return {row["id"]: row for row in rows}


async def used(tx: Statements, uses: Sequence[Use], rules: tiers.Rules) -> int:
    """Count uses: access, place, recency, utility; and who used what. A task's second look at
    the same memory counts once. How many counted.
    """
    fresh = await tx.fetch(
        "INSERT INTO memory_use (task_id, memory_id, root_id, rank, at)"
        " SELECT given.task_id, given.id, task.root_id, given.rank, given.at"
        " FROM unnest($1::text[], $2::uuid[], $3::int[], $4::timestamptz[])"
        " AS given (task_id, id, rank, at)"
        " JOIN memory AS card ON card.id = given.id AND NOT card.leaving"
        f" LEFT JOIN tasks AS task ON task.id = {task('given.task_id')}"
        " ON CONFLICT DO NOTHING RETURNING task_id, memory_id, rank, at",
        *([getattr(use, name) for use in uses] for name in ("task_id", "memory_id", "rank", "at")),
    )
    counted: dict[str, list[Row]] = {}
    for row in fresh:
        counted.setdefault(row["memory_id"], []).append(row)
    rows = await tx.fetch(
        "SELECT id, tier, access_count, rank_sum, used_at, stored_at, due_at, feedback"
        " FROM memory WHERE id = ANY($1::uuid[]) AND NOT leaving FOR UPDATE",
        list(counted),
    )
    for row in rows:
        mine = counted[row["id"]]
        row["access_count"] += len(mine)
        row["rank_sum"] += sum(tiers.place_points(use["rank"]) for use in mine)
        row["used_at"] = max(row["used_at"], *(use["at"] for use in mine))
    await _rescore(tx, rows, rules, max((use.at for use in uses), default=None))
    return len(rows)


async def judged(
    tx: Statements, by: Mapping[str, float], rules: tiers.Rules, now: datetime,
    *, helped: bool | None = None,
) -> None:  # fmt: skip
    """Move the feedback of memories (id → how far, the result stays within 0 and 1) and count
    whether they helped (True), harmed (False) or neither (None).
    """
    rows = await tx.fetch(
        "SELECT id, tier, access_count, rank_sum, used_at, stored_at, due_at, feedback"
        " FROM memory WHERE id = ANY($1::uuid[]) AND NOT leaving FOR UPDATE",
        list(by),
    )
    for row in rows:
        row["feedback"] = min(1.0, max(0.0, row["feedback"] + by[row["id"]]))
    await _rescore(tx, rows, rules, now)
    if helped is not None:
        column = "helped" if helped else "harmed"
        ids = [row["id"] for row in rows]
        await tx.execute(
            f"UPDATE memory SET {column} = {column} + 1 WHERE id = ANY($1::uuid[])", ids
        )


async def rescore(tx: Statements, rows: Sequence[Row], rules: tiers.Rules, now: datetime) -> None:
    """Work out the utility of these cards as of `now`, and when to look at them next."""
    await _rescore(tx, [dict(row) for row in rows], rules, now)


async def _rescore(
    tx: Statements, rows: list[Row], rules: tiers.Rules, now: datetime | None
) -> None:
    if not rows or now is None:
        return
    for row in rows:
        row["utility"] = tiers.utility_of(row, now)
        if row["tier"] == Tier.WARM:
            row["due_at"] = tiers.due(Tier.WARM, used_at=row["used_at"], now=now, rules=rules)
    names = ("id", "access_count", "rank_sum", "used_at", "feedback", "utility", "due_at")
    await tx.execute(
        "UPDATE memory AS card SET access_count = given.access_count, rank_sum = given.rank_sum,"
        " used_at = given.used_at, feedback = given.feedback, utility = given.utility,"
        " due_at = given.due_at"
        " FROM unnest($1::uuid[], $2::int[], $3::float8[], $4::timestamptz[], $5::float8[],"
        " $6::float8[], $7::timestamptz[])"
        " AS given (id, access_count, rank_sum, used_at, feedback, utility, due_at)"
        " WHERE card.id = given.id",
        *([row[name] for row in rows] for name in names),
    )


async def neighbours(
    db: Statements, places: Sequence[tuple[str, int]], reach: int, users: Sequence[str],
    *, trusted: bool,
) -> list[Row]:  # fmt: skip
    """What stands at most `reach` before or after those places (series, seq), in their order,
    of those users alone; trusted: only what is not tainted. Cold ones have no text and are out.
    """
    return await db.fetch(
        f"SELECT DISTINCT ON (series, seq, id) series, {_NAMES} FROM memory JOIN"
        " unnest($1::text[], $2::int[]) AS hit (place, at) ON series = place"
        " AND seq BETWEEN at - $3 AND at + $3"
        " WHERE user_id = ANY($4::text[]) AND tier <> 'cold' AND NOT leaving"
        " AND NOT (tainted AND $5) ORDER BY series, seq, id",
        *([place for place, _ in places], [at for _, at in places], reach, list(users), trusted),
    )
