"""A keeper's whole story in a process that kills itself at its nth effect, then what is left.

    python keeper_steps.py HOME DSN REDIS POINT...

For each point: everything emptied, a child that lives the story until the effect of that number
and there takes SIGKILL, a second child that starts over the same stores, maintains once and tells
what it found, as one JSON line. Point 0 lives the story to its end and tells how many effects.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg.transaction
from keeper_world import World, memory, world

from base import log
from base.bus import Bus
from base.store import Session, Store
from pai import archive, cold, hot, warm_edge
from pai.shapes import Collection, Memory, Query, Tier

DAY = timedelta(days=1)
WORDS = "the nightly backup of the main database runs at two and is checked every single morning"


def _id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


STORY: dict[str, Memory] = {
    name: memory(text, id=_id(name), **fields)
    for name, text, fields in (
        ("hot", "the api key rotates on mondays", {"task_id": "t", "agent": "code"}),
        ("secret", "my neighbour is called Wilhelmina", {"task_id": "t", "agent": "code"}),
        ("plain", WORDS, {}),
        ("twin", WORDS + " please", {}),
        ("moved", "the office is in Berlin", {"collection": "knowledge"}),
    )
}
MOVED = STORY["moved"].model_copy(update={"text": "the office moved to Hamburg"})


class Effects:
    """Counts what changes anything outside this process, and dies before the wanted one."""

    def __init__(self, point: int) -> None:
        self.point, self.count = point, 0

    def next(self) -> None:
        self.count += 1
        if self.count == self.point:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, owner: Any, *names: str) -> None:
        for name in names:
            setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*values: Any, **named: Any) -> Any:
            self.next()
            return real(*values, **named)

        return counted

    def install(self) -> None:
        self.wrap(Session, "execute", "executemany")
        self.wrap(asyncpg.transaction.Transaction, "commit")
        self.wrap(warm_edge.EdgeWarm, "put", "remove", "fill", "switch")
        self.wrap(hot.Shared, "put", "remove")
        self.wrap(cold.Archive, "_append", "_rewrite", "_exchange")
        self.wrap(archive.shutil, "rmtree")
        self.wrap(os, "fsync")


async def live(made: World, progress: Path) -> None:
    """The story; `progress` says how far it surely came."""

    def reached(step: str) -> None:
        with progress.open("a") as file:
            file.write(step + "\n")

    now = datetime.now(UTC)
    await made.client.remember(STORY["hot"], STORY["secret"])
    reached("hot")
    await made.client.remember(STORY["plain"], STORY["moved"])
    reached("plain")
    reached("merging")
    await made.client.remember(STORY["twin"])
    await made.pass_()
    await made.pass_(now=now + timedelta(hours=25))
    await made.pass_(now=now + 32 * DAY)
    query = Query(text=STORY["hot"].text, user_id="ann", tiers=tuple(Tier), task_id="t9", limit=1)
    await made.client.search(query)
    await made.pass_()
    await made.client.remember(MOVED)
    reached("forgetting")
    await made.client.forget("ann", [STORY["secret"].id])
    reached("forgot")
    await made.pass_()
    reached("expiring")
    await made.pass_(now=now + 364 * DAY + 32 * DAY)
    await made.pass_(now=now + 900 * DAY)


async def look(made: World) -> dict[str, Any]:
    """After one pass: for each memory its card's tier, its copies, how often a search finds it."""
    stores = made.stores
    await made.pass_()
    found: dict[str, Any] = {}
    lines = [
        line["id"]
        for month in stores.archive.months()
        for _, line in stores.archive.lines(f"memories-{month}.jsonl.gz")
    ]
    for name, one in STORY.items():
        card = await made.card(one.id)
        texts = {one.text, MOVED.text} if name == "moved" else {one.text}
        query = Query(
            text=one.text, user_id="ann", tiers=tuple(Tier), limit=50, collections=tuple(Collection)
        )
        items = (await made.client.search(query)).items
        found[name] = {
            "tier": card and card["tier"],
            "notes": card and (card["sweep"], card["leaving"]),
            "support": card and card["support"],
            "copies": {
                "hot": max(int(one.id in stores.index), await stores.shared.there([one.id])),
                "warm": len(await stores.warm.get(one.collection, [one.id])),
                "cold": lines.count(one.id),
            },
            "found": sum(item.memory.text in texts for item in items),
        }
    found["counts"] = await stores.store.fetch(
        "SELECT tier, SUM(count)::INT AS count FROM memory_count GROUP BY tier ORDER BY tier"
    )
    found["really"] = await stores.store.fetch(
        "SELECT tier, COUNT(*)::INT AS count FROM memory GROUP BY tier ORDER BY tier"
    )
    found["stray_points"] = sum([await stores.warm.count(one) for one in Collection]) - sum(
        row["count"] for row in found["really"] if row["tier"] == "warm"
    )
    return found


def point(home: Path, dsn: str, redis: str, number: int) -> dict[str, Any]:
    shutil.rmtree(home, ignore_errors=True)
    progress = home.with_suffix(".progress")
    progress.write_text("")
    _child(lambda: asyncio.run(_emptied(dsn, redis)))

    def story() -> None:
        effects = Effects(number)

        async def run() -> None:
            async with world(home, dsn, redis) as made:
                effects.install()
                await live(made, progress)
            progress.write_text(progress.read_text() + f"effects {effects.count}\n")

        asyncio.run(run())

    died = _child(story) == -signal.SIGKILL
    answer = home.with_suffix(".answer")

    def check() -> None:
        async def run() -> None:
            async with world(home, dsn, redis) as made:
                answer.write_text(json.dumps(await look(made)))

        asyncio.run(run())

    assert _child(check) == 0
    reached = progress.read_text().split("\n")
    return {"point": number, "died": died, "reached": reached, **json.loads(answer.read_text())}


async def _emptied(dsn: str, redis: str) -> None:
    store = await Store.open(dsn, "emptied")
    await store.migrate()
    await store.execute("DELETE FROM memory")
    for table in ("memory_file", "memory_folder", "memory_model", "memory_count"):
        await store.execute(f"DELETE FROM {table}")
    await store.close()
    bus = await Bus.open(redis, "emptied")
    await bus.call(("FLUSHALL",))
    await bus.close()


def _child(work: Callable[[], None]) -> int:
    """The exit code, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    log.start("keeper", None, "error")
    for given in sys.argv[4:]:
        print(json.dumps(point(Path(sys.argv[1]), *sys.argv[2:4], int(given))), flush=True)
