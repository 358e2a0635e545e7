"""What systemd is told of a program: that it is ready, that its loop turns, that it ends.

    ready() once, then beat() at every turn of the loop, or keep(check) where nothing turns

Without systemd (no NOTIFY_SOCKET) all of this does nothing. The protocol: sd_notify(3).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from base import log
from base.errors import AIError

logger = log.get(__name__)

#: Where nobody waits for a beat, a look is taken all the same, so that code is one.
IDLE_S = 60.0
_last_s = float("-inf")


def ready(status: str = "") -> None:
    """The program does what it is for from now on."""
    _tell("READY=1", f"STATUS={status}" if status else "")
    beat()


def beat() -> None:
    """The loop turns. Call it as often as you like: systemd hears at most four in its limit."""
    global _last_s
    if not (limit_s := watchdog_s()):
        return
    now_s = time.monotonic()
    if now_s - _last_s >= limit_s / 4:
        _last_s = now_s
        _tell("WATCHDOG=1")


def stopping() -> None:
    """It was asked to end and does."""
    _tell("STOPPING=1")


async def keep(check: Callable[[], Awaitable[object]]) -> NoReturn:
    """Beat for a program that waits to be asked: after each `check`, which does a piece of its
    work. One that fails is logged and counts, since it came back; one that hangs does not.
    """
    while True:
        try:
            await check()
        except (AIError, OSError) as error:
            logger.warning("own check failed", error=str(error))
        beat()
        await asyncio.sleep((watchdog_s() or IDLE_S) / 3)


def watchdog_s() -> float:
    """How long systemd waits for a beat of this very process; 0: it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    limit = os.environ.get("WATCHDOG_USEC", "")
    return int(limit) / 1e6 if limit.isdigit() and os.environ.get("NOTIFY_SOCKET") else 0.0


def _tell(*lines: str) -> None:
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with (
        contextlib.suppress(OSError),  # systemd away: it cannot be told
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line,
    ):
        line.connect(address)
        line.sendall("\n".join(filter(None, lines)).encode())
