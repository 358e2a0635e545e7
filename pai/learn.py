"""Learnings: kept as files and memories, used again only where their trigger fits, faded when
they do not help.

A use is noted by task and learning; the end of the task's request counts it as help (success) or
harm (failure). usefulness = (helped + 1) / (helped + harmed + 2): 0.5 before anything is known.
A learning has faded once it was judged three times and even the upper bound of its rate of help
(Wilson, 80 % two-sided) is below a half: it is not recalled any more and moves on to cold.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from base.errors import InputError
from base.messages import Phase
from pai import cards, intake, moves, search, suppliers, triggers
from pai.meaning import QUERY_S
from pai.shapes import SHARED, Collection, Found, Item, Learned, Memory, Query, Tier, Told
from pai.shapes import memory_id as id_of
from pai.stores import Stores

FOLDER = "Learning"
PHASES = frozenset([*Phase, "ALGORITHM"])
LEARNED_MAX = 20
CANDIDATES = 60
JUDGED_MIN = 3
USEFUL_MIN = 0.5
Z = 1.2816  # 80 % two-sided
RECENT_MAX = 500


# Taking in ------------------------------------------------------------------------------------


async def learned(stores: Stores, told: Told) -> None:
    """What a task taught: a file for people and a memory for recall. Safe twice: ids follow from
    the task's. Raises InputError for what cannot be.
    """
    if not told.task_id:
        raise InputError("what was learned belongs to a task")
    if len(told.learned) > LEARNED_MAX:
        raise InputError(f"a task teaches at most {LEARNED_MAX} things")
    memories = [_memory(told, number, one) for number, one in enumerate(told.learned)]
    folder = stores.settings.memory / FOLDER
    memories = [await asyncio.to_thread(_filed, folder, memory) for memory in memories]
    if memories:
        await intake.remember(stores, memories)


def _memory(told: Told, number: int, one: Learned) -> Memory:
    phase = one.phase.upper()
    if phase not in PHASES:
        raise InputError(f"a learning is of one of {', '.join(sorted(PHASES))}, not {phase!r}")
    if not one.applies_when.strip() or not one.lesson.strip():
        raise InputError("a learning says what to do and when it applies")
    return Memory(
        id=id_of("learned", str(told.task_id), phase, str(number)),
        collection=Collection.LEARNINGS,
        user_id=told.user_id,
        text=one.lesson,
        kind="lesson",
        agent=told.agent,
        source="reflection",
        task_id=told.task_id,
        tainted=told.tainted,
        phase=phase,
        outcome=one.outcome,
        applies_when=one.applies_when,
        evidence=one.evidence,
    )


def _filed(folder: Path, memory: Memory) -> Memory:
    """The memory with the file it now has; one that has a file already keeps it."""
    home = folder / memory.phase
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    there = next(home.glob(f"*_{memory.id}.md"), None)
    path = there or home / f"{memory.created_at.astimezone(UTC):%Y-%m-%d}_{memory.id}.md"
    if there is None:
        part = home / f".{memory.id}.part"
        with part.open("w", encoding="utf-8", errors="replace") as file:
            file.write(page(memory))
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    return memory.model_copy(update={"file": f"{FOLDER}/{memory.phase}/{path.name}"})


def page(memory: Memory) -> str:
    """A learning as people read it: what it is about in front, flat; then what, when and why."""
    front = {
        "id": memory.id,
        "phase": memory.phase,
        "outcome": memory.outcome,
        "agent": memory.agent,
        "task": memory.task_id or "",
        "user": memory.user_id,
        "tainted": str(memory.tainted).lower(),
        "extracted_at": memory.created_at.astimezone(UTC).isoformat(timespec="seconds"),
    }
    head = "\n".join(f"{name}: {line(value)}" for name, value in front.items())
    parts = {
        "Lesson": memory.text,
        "Applies when": memory.applies_when,
        "Evidence": memory.evidence or "none was given",
    }
    body = "\n\n".join(f"## {title}\n\n{line(text)}" for title, text in parts.items())
    return f"---\n{head}\n---\n\n{body}\n"


def line(text: str) -> str:
    """One line: nothing in it can look like a part of the page."""
    return " ".join(text.split())


# Giving out -----------------------------------------------------------------------------------


async def learnings(stores: Stores, query: Query) -> Found:
    """Those whose trigger fits the situation `query.text`, best first, at most `query.limit`.

    Never one that is tainted, faded, cold, or somebody else's, whatever the query says. No task
    and no agent gives more than a fifth (`pai/suppliers.py`).
    """
    wide = query.model_copy(
        update={
            "collections": (Collection.LEARNINGS,),
            "tiers": (Tier.WARM,),
            "limit": CANDIDATES,
            "budget_tokens": None,
            "neighbours": 0,
            "task_id": None,
            "agent": None,
            "trusted": True,
        }
    )
    found = await search.search(stores, wide)
    fitting = await _fitting(stores, query, found.items)
    kept = search.cut(suppliers.guarded(fitting, query.limit), query.budget_tokens)
    kept = suppliers.guarded(kept, len(kept))
    search.note(stores, query, kept)
    return found.model_copy(update={"items": tuple(kept)})


async def _fitting(stores: Stores, query: Query, items: tuple[Item, ...]) -> list[Item]:
    """Those of `items` that fit and have not faded, best first, each with why."""
    given = [one for one in items if one.memory.applies_when]
    situation = f"{query.agent or ''} {query.text}".strip()
    texts = [query.text, *(one.memory.applies_when for one in given)]
    vectors = await stores.meaning.of(texts, "query", QUERY_S) if given else None
    counts = await _counts(stores, [one.memory.id for one in given])
    found: list[tuple[float, Item]] = []
    for number, one in enumerate(given, 1):
        helped, harmed = counts.get(one.memory.id, (0, 0))
        trigger = one.memory.applies_when
        near = None if vectors is None else float(vectors.matrix[0] @ vectors.matrix[number])
        shared = triggers.overlap(trigger, situation)
        fit = triggers.fit(shared, near)
        if fit is None or faded(helped, harmed):
            continue
        score = fit * (0.5 + usefulness(helped, harmed))
        why = (*triggers.why(trigger, shared, near), f"helped {helped}, did not {harmed}")
        found.append((score, one.model_copy(update={"score": score, "why": why})))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])]


async def recent(stores: Stores, user_id: str, phase: str | None, limit: int) -> list[Memory]:
    """That user's youngest learnings that are not cold, youngest first."""
    names = ", ".join(cards.FIELDS)
    rows = await stores.store.fetch(
        f"SELECT {names} FROM memory WHERE user_id = ANY($1::text[])"
        " AND collection = 'learnings' AND tier <> 'cold' AND NOT leaving"
        " AND ($2::text IS NULL OR phase = $2) ORDER BY created_at DESC, id LIMIT $3",
        *([user_id, SHARED], phase and phase.upper(), max(1, min(limit, RECENT_MAX))),
    )
    return [cards.to_memory(row) for row in rows]


# Fading ---------------------------------------------------------------------------------------


def usefulness(helped: int, harmed: int) -> float:
    """How likely it helps next time, 0 to 1."""
    return (helped + 1) / (helped + harmed + 2)


def faded(helped: int, harmed: int) -> bool:
    """Whether it was tried often enough to say that it does not help."""
    judged = helped + harmed
    return judged >= JUDGED_MIN and upper(helped, judged) < USEFUL_MIN


def upper(helped: int, judged: int) -> float:
    """The upper bound of Wilson's interval for the rate of help."""
    rate, square = helped / judged, Z * Z
    middle = rate + square / (2 * judged)
    spread = Z * math.sqrt(rate * (1 - rate) / judged + square / (4 * judged * judged))
    return (middle + spread) / (1 + square / judged)


async def fade(stores: Stores, now: datetime) -> int:
    """Move faded learnings on to cold. A step of maintenance; it is never left to do."""
    rows = await stores.store.fetch(
        f"SELECT {cards.CARD}, helped, harmed FROM memory WHERE collection = 'learnings'"
        " AND tier = 'warm' AND NOT leaving AND harmed > helped"
    )
    gone = [row for row in rows if faded(row["helped"], row["harmed"])]
    if gone:
        async with stores.archive.lock, stores.lock:
            stores.count("faded", await moves.demote(stores, gone, now))
    return 0


async def _counts(stores: Stores, ids: list[str]) -> dict[str, tuple[int, int]]:
    rows = await stores.store.fetch(
        "SELECT id, helped, harmed FROM memory WHERE id = ANY($1::uuid[])", ids
    )
    return {row["id"]: (row["helped"], row["harmed"]) for row in rows}


# Verbs ----------------------------------------------------------------------------------------


async def ask_learnings(stores: Stores, payload: Mapping[str, Any]) -> dict[str, Any]:
    found = await learnings(stores, Query.model_validate(payload["query"]))
    return found.model_dump(mode="json")


async def ask_recent(stores: Stores, payload: Mapping[str, Any]) -> dict[str, Any]:
    limit = payload.get("limit", 50)
    if not isinstance(limit, int):
        raise InputError("limit is a number")
    found = await recent(stores, str(payload["user_id"]), payload.get("phase"), limit)
    return {"memories": [one.model_dump(mode="json") for one in found]}
