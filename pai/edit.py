"""Changing what a memory says. Its id, its place, its tier and when it was said stay.

The card notes when a person changed it, how often, and the hashes of what it said before: the old
text told again under the same id (a second delivery, an import) does not undo the change. How
often it had been said counts from one again, since the new text was said once.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from base import log, streams
from base.errors import BusError, ConflictError, InputError, NotFoundError
from pai import browse, cards, intake, learn, points
from pai.shapes import Collection, Edit, Memory, Tier
from pai.stores import Stores

WAS_MAX = 20
#: What an edit does not reach, told with its answer.
KEPT = (
    "what was said in the conversation itself, a task's journal and PRD.md stay as they were",
    "to leave no trace of the old text, forget the memory and remember the new one",
)
COLD = "its old line in the archive goes when that file is next written anew, within the hour"
IMPORTED = "the file it was imported from keeps the old text"

logger = log.get(__name__)


async def edit(stores: Stores, wanted: Edit) -> dict[str, Any]:
    """The card as it is now, and what still holds the old text (`kept`).

    Raises NotFoundError for what is not that user's, ConflictError when it says something else
    than was `seen`, InputError for a text that cannot be stored.
    """
    if not wanted.text.strip():
        raise InputError("there is nothing in it to remember; to remove it, forget it")
    async with stores.lock, stores.store.transaction() as tx:
        row = await _row(tx, wanted)
        if wanted.seen and wanted.seen != row["hash"]:
            raise ConflictError("it was changed meanwhile; look at it again first")
        old = cards.to_memory(row, "?") if row["text"] is None else cards.to_memory(row)
        new = intake.checked(_changed(old, row["hash"], wanted, datetime.now(UTC)))
        await cards.replace(tx, new, stores.rules, datetime.now(UTC))
        if cards.fingerprint(new) != row["hash"]:
            await tx.execute("UPDATE memory SET support = 1 WHERE id = $1::uuid", new.id)
    await intake.place(stores, [new], wait_s=intake.EMBED_S)
    if row["text"] not in {None, new.text}:
        await _uncache(stores, old)
    filed = await asyncio.to_thread(_refile, stores.settings.memory, new)
    kept = [*KEPT]
    if row["tier"] == Tier.COLD:
        kept.append(COLD)
    if new.file and new.source == "pai" and not filed:
        kept.append(IMPORTED)
    (card,) = await browse.about(stores, wanted.user_id, [new.id])
    logger.info("edited", memory_id=new.id)
    return {"card": card.model_dump(mode="json"), "kept": kept}


async def _row(tx: cards.Statements, wanted: Edit) -> cards.Row:
    known = (await cards.known(tx, [intake.identity(wanted.id)])).values()
    for one in known:
        if one["user_id"] == wanted.user_id and not one["leaving"]:
            (row,) = await cards.get(tx, [one["into_id"]])
            return row
    raise NotFoundError(f"you have no memory {wanted.id}")


def _changed(old: Memory, digest: str, wanted: Edit, now: datetime) -> Memory:
    """Pure. `digest`: the hash of what `old` says, whose text may be in the archive alone."""
    before = old.extra.get("edited")
    before = before if isinstance(before, dict) else {}
    new = old.model_copy(
        update={
            "text": wanted.text,
            "kind": old.kind if wanted.kind is None else wanted.kind,
            "tags": old.tags if wanted.tags is None else wanted.tags,
        }
    )
    was = [one for one in [*before.get("was", ()), digest] if one != cards.fingerprint(new)]
    noted = {
        "at": now.isoformat(timespec="seconds"),
        "times": int(before.get("times", 0)) + 1,
        "was": list(dict.fromkeys(was))[-WAS_MAX:],
    }
    return new.model_copy(update={"extra": {**old.extra, "edited": noted}})


def _refile(home: Path, memory: Memory) -> bool:
    """Write a learning's own page anew, whole or not at all; whether it has one of ours."""
    if memory.collection is not Collection.LEARNINGS or not memory.file:
        return False
    path = (home / memory.file).resolve()
    if not path.is_relative_to((home / learn.FOLDER).resolve()) or not path.is_file():
        return False
    part = path.with_name(f".{memory.id}.part")
    with part.open("w", encoding="utf-8", errors="replace") as file:
        file.write(learn.page(memory))
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    return True


async def _uncache(stores: Stores, old: Memory) -> None:
    """The old text's vector leaves the cache, unless Redis is away: then after its 30 days."""
    try:
        await stores.bus.call(("DEL", streams.embedding(stores.meaning.model, points.said(old))))
    except BusError as error:
        logger.warning("the cache is left to its 30 days", error=str(error))
