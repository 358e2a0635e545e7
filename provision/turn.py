"""Whose turn it is: one lock file that dies with the last process that holds it."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from base.errors import ConflictError

LOOK_S = 0.2


@asynccontextmanager
async def turn(path: Path, *, what: str, wait_s: float) -> AsyncIterator[int]:
    """Holds the lock `path` and gives its descriptor: a program that inherits it goes on holding
    it when this process is killed. Raises ConflictError when others hold it for `wait_s`.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            async with asyncio.timeout(wait_s):
                while not _taken(number):
                    await asyncio.sleep(LOOK_S)
        except TimeoutError as error:
            raise ConflictError(f"{what} is already under way; ask again when it has ended") from (
                error
            )
        yield number
    finally:
        os.close(number)


def _taken(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
