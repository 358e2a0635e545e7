"""Holding still for a backup: the stores copied at one moment, and no change until released.

The copy lies in the keeper's own folder, so that nobody on the bus can say where it writes. Who
asked and went away holds nothing up for longer than `HOLD_S`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from base import log
from base.errors import ConflictError
from pai.stores import Stores

HOLD_S = 60.0
logger = log.get(__name__)


async def hold(stores: Stores, _: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the warm store and the archive; from the answer on nothing moves until `release`.

    copied: False when the warm store is a server, which has its own copies. ConflictError: held.
    """
    if stores.held:
        raise ConflictError("another backup holds the memory")
    ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    free = asyncio.Event()
    task = asyncio.create_task(_hold(stores, ready, free), name="hold")
    stores.held[task] = free
    task.add_done_callback(lambda done: _ended(stores, done, ready))
    return {"copied": await ready}


async def release(stores: Stores, _: Mapping[str, Any]) -> dict[str, Any]:
    """Go on. Safe twice. held: whether it was held all the time."""
    held = bool(stores.held)
    for free in stores.held.values():
        free.set()
    return {"held": held}


def _ended(stores: Stores, task: asyncio.Task[None], ready: asyncio.Future[bool]) -> None:
    """Who waits for the copy hears what the task died of."""
    stores.held.pop(task, None)
    if not ready.done():
        if task.cancelled():
            ready.cancel()
        else:
            ready.set_exception(task.exception() or ConflictError("nothing was copied"))


def copies(stores: Stores) -> Path:
    return stores.settings.home / "data" / "qdrant" / "copy"


async def _hold(stores: Stores, ready: asyncio.Future[bool], free: asyncio.Event) -> None:
    place = copies(stores)
    async with stores.archive.lock, stores.lock:
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        place.mkdir(mode=0o700, parents=True)
        copied = await stores.warm.copy(place / "vectors")
        # A month's file only grows or is replaced, so a link is a copy: see pai/cold.py.
        await asyncio.to_thread(
            shutil.copytree, stores.archive.folder, place / "archive", copy_function=os.link
        )
        ready.set_result(copied)
        try:
            async with asyncio.timeout(HOLD_S):
                await free.wait()
        except TimeoutError:
            logger.warning("a backup held the memory too long and was let go")
