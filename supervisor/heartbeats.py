"""Heartbeats: who is alive, whose lease is renewed, and who works at what is no longer theirs."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from pydantic import ValidationError

from base import log, streams
from base.errors import AIError
from base.messages import Control, Heartbeat, Kind, Message, Phase
from base.messages import Event as LiveEvent
from supervisor import tally
from supervisor.parts import Parts, task_event
from supervisor.tasks import Seen

#: A living agent that tells nothing new is written this often.
WRITE_S = 10.0
LOOK_BACK_S = 60.0
PHASES = list(Phase)

logger = log.get(__name__)


class Heartbeats:
    """Reads the heartbeats. Starts a minute back, so that a restart knows at once who is there."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._written_s: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        after = f"{int((time.time() - LOOK_BACK_S) * 1000)}-0"
        async for entries in self._parts.bus.tail(streams.HEARTBEATS, after=after):
            newest: dict[str, tuple[Heartbeat, datetime]] = {}
            for entry_id, raw in entries:
                try:
                    message = Message.model_validate_json(raw)
                    beat = Heartbeat.model_validate(message.payload)
                except ValidationError as error:
                    logger.warning(
                        "unreadable heartbeat", entry=entry_id, error=error.error_count()
                    )
                    continue
                newest[beat.agent] = (beat, message.timestamp)
            for beat, at in newest.values():
                await self._one(beat, at)

    async def _one(self, beat: Heartbeat, at: datetime) -> None:
        try:
            await self._take(beat, at)
        except AIError as error:  # its words may be such as the record cannot hold
            logger.warning("heartbeat was not written", error=str(error))

    async def _take(self, beat: Heartbeat, at: datetime) -> None:
        parts = self._parts
        before = parts.seen.get(beat.agent)
        now = datetime.now(UTC)
        seen = Seen(
            agent=beat.agent,
            status=beat.status,
            at=min(at, now),
            paused=beat.paused,
            task_id=beat.task_id,
            epoch=beat.epoch,
            pid=beat.pid,
            phase=beat.phase,
        )
        parts.seen[beat.agent] = seen
        changed = before is None or _face(before) != _face(seen)
        await self._write(beat, changed)
        if beat.agent in parts.agents:
            await self._follow(beat, before, seen, changed)

    async def _write(self, beat: Heartbeat, changed: bool) -> None:
        now_s = time.monotonic()
        if changed or now_s - self._written_s.get(beat.agent, -WRITE_S) >= WRITE_S:
            self._written_s[beat.agent] = now_s
            await tally.beat(self._parts.store, [beat])

    async def _follow(
        self, beat: Heartbeat, before: Seen | None, seen: Seen, changed: bool
    ) -> None:
        parts = self._parts
        if beat.task_id is not None and beat.epoch is not None:
            held = await tally.renew(parts.store, beat, parts.settings.lease_s)
            if held is None:
                if await tally.is_elsewhere(parts.store, beat):
                    control = Control(verb="cancel", task_id=beat.task_id, epoch=beat.epoch)
                    await parts.control(beat.agent, control)
                    logger.info(
                        "told a stale agent to stop", agent=beat.agent, task_id=beat.task_id
                    )
            elif beat.phase is not None and (before is None or before.phase != beat.phase):
                progress = (PHASES.index(beat.phase) + 1) / (len(PHASES) + 1)
                shown = task_event(held, held.status, round(progress, 3), phase=beat.phase)
                await parts.emit(shown)
        if changed:
            data = {"status": beat.status, "paused": beat.paused, "task_id": beat.task_id}
            await parts.emit(LiveEvent(kind=Kind.AGENT, agent=beat.agent, data=data))
            if before is None or before.status != seen.status or before.paused != seen.paused:
                parts.wake.set()


def _face(seen: Seen) -> tuple[object, ...]:
    return (seen.status, seen.paused, seen.task_id, seen.pid, seen.phase)
