"""The command's own line to the keeper of memory, for what is too long or too large for HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from base.bus import Bus
from base.errors import AIError, NoAnswerError
from portal.cli_client import EXIT_NOT_RUNNING, settings, stop

T = TypeVar("T")


def keeper(do: Callable[[Bus], Awaitable[T]]) -> T:
    """What `do` gives with an open bus. Exits 3 when nobody answers, 1 on a refusal."""
    config = settings()

    async def done() -> T:
        bus = await Bus.open(config.redis, "cli")
        try:
            return await do(bus)
        finally:
            await bus.close()

    try:
        return asyncio.run(done())
    except NoAnswerError:
        stop("memory does not answer; see: ai-infra doctor", EXIT_NOT_RUNNING)
    except AIError as error:
        stop(str(error), EXIT_NOT_RUNNING)
