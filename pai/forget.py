"""Forgetting: every copy of a memory goes, and then it is looked for everywhere again."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from base import log, streams
from base.errors import BusError, InputError, NotFoundError
from pai import cards, passport, points, search, sweep
from pai.shapes import QUERY_CHARS, Collection, Memory, Query, Tier
from pai.stores import Stores

IDS_MAX = 500
#: What forgetting cannot reach, told with every proof.
KEPT = (
    "the messages of the conversation itself stay until the conversation is deleted",
    "a task's journal and PRD.md stay in its folder and later in the tasks' archive",
    "the logs and backups of PostgreSQL and Redis hold old bytes until they are written over",
)
UNWIPED = "the Qdrant server holds old bytes until its optimiser has written the segment anew"

logger = log.get(__name__)


async def forget(stores: Stores, user_id: str, ids: Sequence[str]) -> dict[str, Any]:
    """Remove these memories of that user, with what was merged into them, and prove it.

    Raises NotFoundError, having removed nothing, when one is not that user's.
    """
    wanted = _checked(ids)
    async with stores.archive.lock:
        async with stores.lock:
            into = await _whose(stores, user_id, wanted)
            going = list(dict.fromkeys(into.values()))
            rows = {row["id"]: row for row in await cards.get(stores.store, going)}
            merged = await stores.store.fetch(
                "SELECT id, into_id, file FROM memory_merged WHERE into_id = ANY($1::uuid[])",
                going,
            )
            memories = await _memories(stores, rows)
            lines = await stores.archive.mentions(going)
            removed = {
                id: {
                    **await _copies(stores, rows[id], lines[id]),
                    "merged": [row["id"] for row in merged if row["into_id"] == id],
                }
                for id in going
            }
            names = [id for own in going for id in (own, *removed[own]["merged"])]
            gone = await asyncio.to_thread(passport.forget, stores.settings.memory, user_id, names)
            await cards.leave(stores.store, going)
            _drop_uses(stores, set(going))
            while await sweep.near(stores):
                pass
        await sweep.far(stores, only_leaving=True)
    for id, memory in memories.items():
        removed[id]["cache"] = await _uncache(stores, memory)
        taken_in = [row for row in merged if row["into_id"] == id]
        if memory.collection is Collection.LEARNINGS:  # a file's name elsewhere is only a word
            own = [memory.file, *(row["file"] for row in taken_in)]
            removed[id]["files"] = await asyncio.to_thread(_remove_files, stores, own)
        names = [id, *removed[id]["merged"]]
        removed[id]["originals"] = sorted({place for name in names for place in gone[name]})
    wiped = await stores.warm.wipe([*{memory.collection for memory in memories.values()}])
    await stores.store.execute("VACUUM memory")
    logger.info("forgot", count=len(going))
    lines = await stores.archive.mentions(memories)
    found = {id: await _found(stores, memory, lines[id]) for id, memory in memories.items()}
    same = {id: await _same(stores, memory) for id, memory in memories.items()}
    return {
        "forgotten": [
            {
                "id": id,
                "card": into[id],
                "removed": removed[into[id]],
                "found": found[into[id]],
                "same_text": same[into[id]],
            }
            for id in wanted
        ],
        "proved": all(not any(places.values()) for places in found.values()),
        "kept": [*KEPT, *(() if wiped else (UNWIPED,))],
    }


async def _whose(stores: Stores, user_id: str, ids: Sequence[str]) -> dict[str, str]:
    """id → the card that stands for it. Raises NotFoundError when one is not that user's."""
    known = await cards.known(stores.store, ids)
    strangers = [
        id
        for id in ids
        if id not in known or known[id]["user_id"] != user_id or known[id]["leaving"]
    ]
    if strangers:
        raise NotFoundError(f"you have no memory {', '.join(strangers)}")
    return {id: known[id]["into_id"] for id in ids}


async def _memories(stores: Stores, rows: Mapping[str, cards.Row]) -> dict[str, Memory]:
    """With their texts, those of cold ones out of the files."""
    cold = {id: row["cold_month"] for id, row in rows.items() if row["tier"] == Tier.COLD}
    texts = await stores.archive.texts(cold)
    return {
        id: cards.to_memory(row, texts.get(id, "(its line is missing)") if id in cold else None)
        for id, row in rows.items()
    }


async def _copies(stores: Stores, row: cards.Row, cold: int) -> dict[str, Any]:
    """How many copies there are of it before it goes; `cold`: lines of the archive."""
    id = row["id"]
    uses = await stores.store.fetchval(
        "SELECT COUNT(*) FROM memory_use WHERE memory_id = $1::uuid", id
    )
    return {
        "card": 1,
        "warm": len(await stores.warm.get(row["collection"], [id])),
        "hot": int(id in stores.index) + await _in_redis(stores, id),
        "cold": cold,
        "uses": uses + sum(use.memory_id == id for use in stores.uses),
    }


async def _same(stores: Stores, memory: Memory) -> list[str]:
    """Other memories of that person that say the same, such as another turn "yes"."""
    rows = await stores.store.fetch(
        "SELECT id FROM memory WHERE user_id = $1 AND text = $2 AND NOT leaving"
        " ORDER BY created_at, id LIMIT 100",
        memory.user_id,
        memory.text,
    )
    return [row["id"] for row in rows]


async def _found(stores: Stores, memory: Memory, cold: int) -> dict[str, int]:
    """Where anything of it is found still: all must be 0. `cold`: lines of the archive."""
    card = await stores.store.fetchval("SELECT COUNT(*) FROM memory WHERE id = $1::uuid", memory.id)
    merged = await stores.store.fetchval(
        "SELECT COUNT(*) FROM memory_merged WHERE into_id = $1::uuid", memory.id
    )
    query = Query(
        text=memory.text[:QUERY_CHARS],
        user_id=memory.user_id,
        tiers=tuple(Tier),
        collections=tuple(Collection),
    )
    answer = await search.search(stores, query)
    imported = await asyncio.to_thread(
        passport.where, stores.settings.memory, memory.user_id, [memory.id]
    )
    return {
        "card": card + merged,
        "warm": len(await stores.warm.get(memory.collection, [memory.id])),
        "hot": int(memory.id in stores.index) + await _in_redis(stores, memory.id),
        "cold": cold,
        "search": sum(item.memory.id == memory.id for item in answer.items),
        "originals": len(imported[memory.id]),
    }


async def _in_redis(stores: Stores, id: str) -> int:
    try:
        return await stores.shared.there([id])
    except BusError as error:
        logger.warning("redis could not be asked", error=str(error))
        return 0


async def _uncache(stores: Stores, memory: Memory) -> int:
    key = streams.embedding(stores.meaning.model, points.said(memory))
    try:
        (gone,) = await stores.bus.call(("DEL", key))
    except BusError as error:
        logger.warning("the cache is left to its 30 days", error=str(error))
        return 0
    return int(gone)


def _remove_files(stores: Stores, files: Sequence[str]) -> list[str]:
    """Only what lies in the folder of learnings: other files are the person's own."""
    home = (stores.settings.memory / "Learning").resolve()
    gone = []
    for name in {one for one in files if one}:
        path = (stores.settings.memory / name).resolve()
        if path.is_relative_to(home) and path.is_file():
            path.unlink()
            gone.append(str(path.relative_to(stores.settings.memory.resolve())))
    return gone


def _drop_uses(stores: Stores, ids: set[str]) -> None:
    kept = [use for use in stores.uses if use.memory_id not in ids]
    stores.uses.clear()
    stores.uses.extend(kept)
    for id in ids:
        stores.thaw.pop(id, None)


def _checked(ids: Sequence[str]) -> list[str]:
    if not 0 < len(ids) <= IDS_MAX:
        raise InputError(f"say which memories to forget, 1 to {IDS_MAX} ids")
    try:
        return list(dict.fromkeys(str(uuid.UUID(str(id))) for id in ids))
    except ValueError as error:
        raise InputError(f"the id of a memory is a UUID: {error}") from error
