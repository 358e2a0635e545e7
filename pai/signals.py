"""Signals: what says how well a task went, and what the memories it used gain or lose by it.

feedback of each memory that the request's tasks were given = clamp(old + weight · strength · 0.1)
within 0 and 1, with the seed plan's weights. The row in `memory_signal` and what it changes are
one transaction, so a signal counts once. Files under MEMORY/Signals are for people and for PAI.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from types import MappingProxyType
from typing import Any

from base import log
from base.deadline import Deadline
from base.errors import AIError, InputError
from base.streams import SERVICE_SCORE
from pai import cards, hearing, maintain
from pai.passport_rows import rating_row
from pai.shapes import Collection, Memory, Signal, SignalKind, Told
from pai.stores import Stores

WEIGHTS: Mapping[SignalKind, float] = MappingProxyType(
    {
        SignalKind.USER_RATING: 1.0,
        SignalKind.USER_CORRECTION: -0.5,
        SignalKind.USER_ACCEPTANCE: 0.8,
        SignalKind.TASK_SUCCESS: 0.6,
        SignalKind.TASK_FAILURE: -0.4,
        SignalKind.TASK_RETRY: -0.3,
        SignalKind.TASK_ABANDON: -0.6,
        SignalKind.RESPONSE_EDIT: -0.2,
        SignalKind.FOLLOW_UP: -0.1,
        SignalKind.CONTEXT_SWITCH: -0.2,
    }
)
RATE = 0.1
#: What counts as help or harm of a learning; everything else only moves feedback.
JUDGES = MappingProxyType({SignalKind.TASK_SUCCESS: True, SignalKind.TASK_FAILURE: False})
FOLDER = "Signals"
RATINGS = "ratings/ratings.jsonl"
SCORE_S = 1.0
#: A row is looked for in so much of the end of its file before it is written once more.
TAIL_BYTES = 256 * 1024

logger = log.get(__name__)


def strength(signal: Signal) -> float:
    """How strongly it counts, -1 to 1: of a rating how far it is from the middle of its scale.

    Raises InputError for a rating without a number, and for a number that nobody gave as one.
    """
    rated = signal.kind is SignalKind.USER_RATING
    if rated != (signal.rating is not None):
        raise InputError("a rating is a number that a person gave, and nothing else has one")
    if signal.rating is None:
        return signal.weight
    if signal.rating > signal.scale:
        raise InputError(f"{signal.rating} is no rating of 1 to {signal.scale}")
    middle = (1 + signal.scale) / 2
    return (signal.rating - middle) / (signal.scale - middle)


def step(signal: Signal) -> float:
    """How far it moves the feedback of a memory, which stays within 0 and 1 (`cards.judged`)."""
    return WEIGHTS[signal.kind] * strength(signal) * RATE


# Taking in ------------------------------------------------------------------------------------


async def signalled(stores: Stores, told: Told) -> None:
    """A signal as it was told. Safe twice. Raises InputError for one that cannot be."""
    if told.signal is None or told.signal.user_id != told.user_id:
        raise InputError("a signal belongs to the user it is told for")
    await take(stores, told.signal)


async def take(stores: Stores, signal: Signal) -> None:
    """Write it down, let the memories that were used feel it, and file it. Safe twice."""
    change = step(signal)
    await maintain.write_all_uses(stores)
    async with stores.lock, stores.store.transaction() as tx:
        fresh = await tx.execute(
            "INSERT INTO memory_signal (id, kind, user_id, root_id, task_id, weight, rating,"
            " scale, comment, at, applied_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,"
            " NOW()) ON CONFLICT DO NOTHING",
            *(signal.id, signal.kind.value, signal.user_id, signal.root_id, signal.task_id),
            *(strength(signal), signal.rating, signal.scale, signal.comment, signal.at),
        )
        used = await _used(tx, signal) if fresh else []
        if used:
            by = dict.fromkeys(used, change)
            helped = JUDGES.get(signal.kind)
            await cards.judged(tx, by, stores.rules, signal.at, helped=helped)
    if fresh:
        logger.info("signal", kind=signal.kind.value, task_id=signal.root_id, memories=len(used))
    await _file(stores, signal)


async def _used(tx: cards.Statements, signal: Signal) -> list[str]:
    """The user's own memories that the request, or the one task, was given. What is shared stays
    as it is: one person's bad day is not everybody's.
    """
    rows = await tx.fetch(
        "SELECT DISTINCT used.memory_id AS id FROM memory_use AS used"
        " JOIN memory AS card ON card.id = used.memory_id"
        " WHERE card.user_id = $1 AND NOT card.leaving AND CASE WHEN $3::text IS NULL"
        " THEN used.root_id = $2 OR used.task_id = $2 ELSE used.task_id = $3 END",
        *(signal.user_id, signal.root_id, signal.task_id),
    )
    return [row["id"] for row in rows]


# What people say next -------------------------------------------------------------------------


async def heard(stores: Stores, told: Told) -> None:
    """After a conversation was remembered: how each message of the person sounds, and whether it
    asks again or turns away (`pai/hearing.py`). Nothing here is missed when a worker is away.
    """
    said = [
        one
        for one in told.memories
        if one.collection is Collection.CONVERSATIONS and one.kind == "message"
    ]
    for message in said:
        if (found := await hearing.turn(stores, message)) is not None:
            await take(stores, found)
    if said:
        await _sounds(stores, said)


async def _sounds(stores: Stores, said: list[Memory]) -> None:
    if not await stores.bus.served(SERVICE_SCORE):
        return
    asked = {"verb": "sentiment", "texts": [one.text for one in said]}
    try:
        found = await stores.bus.ask(SERVICE_SCORE, asked, deadline=Deadline.after(SCORE_S))
    except AIError as error:
        logger.info("no sentiment", reason=str(error))
        return
    for message, score in zip(said, found["scores"], strict=True):
        row = {
            "id": message.id,
            "timestamp": _when(message),
            "user_id": message.user_id,
            "session_id": message.conversation_id or "",
            "root_id": message.task_id,
            "sentiment": round(float(score), 3),
            "by": found["by"],
            "source": "implicit",
        }
        path = _folder(stores) / "sentiment" / f"{_when(message)[:7]}.jsonl"
        await asyncio.to_thread(append, path, row)


def _when(message: Memory) -> str:
    return message.created_at.astimezone(UTC).isoformat(timespec="seconds")


# Files ----------------------------------------------------------------------------------------


def _folder(stores: Stores) -> Path:
    return stores.settings.memory / FOLDER


async def _file(stores: Stores, signal: Signal) -> None:
    """Ratings in PAI's row, what was measured with its counts, all else as behaviour."""
    home = _folder(stores)
    if signal.kind is SignalKind.USER_RATING:
        row = rating_row(signal) | {"user_id": signal.user_id}
        await asyncio.to_thread(append, home / RATINGS, row | {"id": signal.id})
        return
    at = signal.at.astimezone(UTC).isoformat(timespec="seconds")
    row = {
        "id": signal.id,
        "timestamp": at,
        "kind": signal.kind.value,
        "user_id": signal.user_id,
        "root_id": signal.root_id,
        "task_id": signal.task_id,
        "weight": round(strength(signal), 3),
    }
    if signal.comment:
        row["comment"] = signal.comment
    measured = signal.kind in JUDGES
    if measured:
        row["criteria"] = await _criteria(stores, signal)
    path = home / ("verification" if measured else "behavioral") / f"{at[:7]}.jsonl"
    await asyncio.to_thread(append, path, row)


async def _criteria(stores: Stores, signal: Signal) -> dict[str, int]:
    """How many criteria passed, failed and were not measured in the request."""
    count = await stores.store.fetchval(
        f"SELECT output->'criteria_count' FROM tasks WHERE id = {cards.task('$1::text')}",
        signal.root_id or "",
    )
    return count if isinstance(count, dict) else {}


def append(path: Path, row: Mapping[str, Any]) -> bool:
    """Add a row to a file of rows unless its id stands near the end; whether it was added.

    A last line that a crash tore is cut off.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a+b") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(0, size_bytes - TAIL_BYTES))
        tail = file.read()
        torn = len(tail) - (tail.rfind(b"\n") + 1)
        if torn:
            file.truncate(size_bytes - torn)
            tail = tail[:-torn]
        mark = json.dumps(row["id"]).encode()
        if any(mark in one and json.loads(one).get("id") == row["id"] for one in _whole(tail)):
            return False
        file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return True


def _whole(tail: bytes) -> list[bytes]:
    """The lines of a file's end, but for the first when it may have been cut."""
    lines = tail.splitlines()
    return lines[1:] if len(tail) == TAIL_BYTES else lines
