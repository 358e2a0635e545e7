"""Long work that a person began here and does not wait for: one at a time, its steps, its end.

It ends with the portal. What has to outlive that is written down by whoever does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime

from base import log
from base.errors import AIError, ConflictError
from base.messages import Wire

Kind = Literal["backup", "verify", "restore"]
Tell = Callable[[str], Awaitable[None]]
WORDS: dict[Kind, str] = {
    "backup": "a backup is being made",
    "verify": "the backups are being checked",
    "restore": "a backup is being restored",
}
logger = log.get("portal")


class Work(Wire):
    """snapshot: the one that is restored. step: what is done now, or was last; problem: why it
    failed; ended_at None: it goes on.
    """

    id: str
    kind: Kind
    snapshot: str | None
    state: Literal["running", "done", "failed"]
    step: str
    begun_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    problem: str | None = None


class Underway:
    """`now`: what is being done, or was done last since the portal started."""

    def __init__(self) -> None:
        self.now: Work | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, kind: Kind, do: Callable[[Tell], Awaitable[object]], about: str | None) -> Work:
        """Have it done. about: the snapshot it is for. Raises ConflictError while one goes on."""
        if self.now is not None and self.now.state == "running":
            raise ConflictError(f"{WORDS[self.now.kind]}; wait for its end")
        self.now = Work(
            id=str(uuid.uuid4()),
            kind=kind,
            snapshot=about,
            state="running",
            step="",
            begun_at=datetime.now(UTC),
        )
        self._task = asyncio.create_task(self._run(do), name=f"underway {kind}")
        return self.now

    async def close(self) -> None:
        """Stop waiting for it. What the root broker has begun goes on."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, do: Callable[[Tell], Awaitable[object]]) -> None:
        async def tell(step: str) -> None:
            self._keep(step=step)

        try:
            await do(tell)
        except AIError as error:
            self._end("failed", str(error))
        except asyncio.CancelledError:
            self._end("failed", "the portal was stopped")
            raise
        except Exception as error:
            logger.exception("long work failed inside", kind=self.now and self.now.kind)
            self._end("failed", f"it failed inside: {type(error).__name__}; the log has the cause")
        else:
            self._end("done", None)

    def _end(self, state: Literal["done", "failed"], problem: str | None) -> None:
        self._keep(state=state, problem=problem, ended_at=datetime.now(UTC))

    def _keep(self, **found: object) -> None:
        assert self.now is not None
        self.now = self.now.model_copy(update=found)
