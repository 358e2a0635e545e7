"""The watchdog's end of the wire: hears heartbeats, answers asks, tells events, and leaves a
picture of the whole in `run/watch.json` for the monitor window.

All of it may fail for as long as Redis is down; the watchdog goes on without it, since it is
the one to bring Redis back.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psutil

from base import log, streams
from base.bus import Bus
from base.errors import AIError, BusError
from base.messages import UNPAID_PROVIDER, Event, Heartbeat, Message, Type, decode
from base.settings import Settings
from base.store import Store
from supervisor.layout import SUPERVISOR, WATCH

logger = log.get("watch")

RETRY_S = 1.0
COST_S = 30.0
PENDING_EVENTS = 100
#: Today's cost; days are UTC days.
COST_SQL = f"""SELECT COALESCE(SUM(cost_usd), 0) FROM api_usage
WHERE provider <> '{UNPAID_PROVIDER}'
AND timestamp >= date_trunc('day', NOW() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'"""


class Vitals:
    """`heard_since_s`: since when heartbeats reach us (monotonic), None while they cannot."""

    def __init__(
        self, settings: Settings, answer: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
    ) -> None:
        self.heard_since_s: float | None = None
        self.changed: Callable[[], None] = lambda: None
        self._settings = settings
        self._answer = answer
        self._beats: dict[str, tuple[float, Heartbeat]] = {}
        self._own_s = 0.0
        self._events: asyncio.Queue[Event] = asyncio.Queue(PENDING_EVENTS)
        self._queues: dict[str, int] = {}
        self._cost_usd: float | None = None
        self._written = ""

    def tasks(self) -> dict[str, Any]:
        return {"wire": self._wire(), "cost": self._count_cost()}

    def beat_s(self, name: str, pid: int) -> float | None:
        """When (monotonic) this very process last sent a heartbeat; None: not heard yet."""
        at_s, beat = self._beats.get(name, (0.0, None))
        return at_s if beat is not None and beat.pid == pid else None

    def tell(self, event: Event) -> None:
        """Send an event as soon as the wire allows; the oldest goes when too many wait."""
        if self._events.full():
            self._events.get_nowait()
        self._events.put_nowait(event)

    def write(self, windows: dict[str, dict[str, Any]]) -> None:
        """Leave the picture for the monitor; its age tells that the watchdog lives."""
        silent_s = time.monotonic() - self._own_s
        if self.heard_since_s is not None and silent_s > 3 * self._settings.heartbeat_s:
            self.heard_since_s = None  # our own heartbeat does not come back to us
        picture = {
            "windows": windows,
            "wire": self.heard_since_s is not None,
            "queues": self._queues,
            "cost_usd": self._cost_usd,
            "model": "rehearsal" if self._settings.rehearsal else "provider",
            "agents": {
                name: beat.model_dump(mode="json") for name, (_, beat) in self._beats.items()
            },
        }
        text = json.dumps(picture)
        path = self._settings.run / "watch.json"
        try:
            if text == self._written and path.exists():
                os.utime(path)
                return
            beside = path.with_suffix(".new")
            beside.write_text(text)
            beside.replace(path)
            self._written = text
        except OSError as error:
            logger.warning("could not write the monitor's picture", error=str(error))

    async def _wire(self) -> None:
        while True:
            try:
                await self._on_wire()
            except BusError as error:
                if self.heard_since_s is not None:
                    logger.warning("lost the wire", error=str(error))
            self.heard_since_s = None
            await asyncio.sleep(RETRY_S)

    async def _on_wire(self) -> None:
        bus = await Bus.open(self._settings.redis, WATCH)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear(bus), name="hear")
                group.create_task(self._beat(bus), name="beat")
                group.create_task(self._send(bus), name="send")
                group.create_task(bus.serve(streams.SERVICE_WATCH, self._answer), name="serve")
        except* AIError as errors:
            raise BusError(str(errors.exceptions[0])) from errors
        finally:
            await bus.close()

    async def _hear(self, bus: Bus) -> None:
        async for batch in bus.tail(streams.HEARTBEATS):
            now_s = time.monotonic()
            for _, raw in batch:
                try:
                    beat = Heartbeat.model_validate(decode(raw).payload)
                except (AIError, ValueError):
                    continue  # the supervisor reports undecodable heartbeats
                if beat.agent == WATCH:
                    if beat.pid == os.getpid():
                        self._own_s = now_s
                        self.heard_since_s = self.heard_since_s or now_s
                    continue
                if self.beat_s(beat.agent, beat.pid) is None:
                    self.changed()
                self._beats[beat.agent] = (now_s, beat)

    async def _beat(self, bus: Bus) -> None:
        process = psutil.Process()
        while True:
            rss_bytes = process.memory_info().rss
            beat = Heartbeat(agent=WATCH, pid=os.getpid(), status="running", rss_bytes=rss_bytes)
            payload = beat.model_dump(mode="json")
            message = Message(source=WATCH, target="*", type=Type.HEARTBEAT, payload=payload)
            await bus.publish(streams.HEARTBEATS, message)
            keys = [streams.TASKS_NEW, streams.RESULTS]
            keys += [streams.agent(name) for name in self._beats if name != SUPERVISOR]
            depths = await asyncio.gather(*(bus.depth(key) for key in keys))
            self._queues = dict(zip(keys, depths, strict=True))
            await asyncio.sleep(self._settings.heartbeat_s)

    async def _send(self, bus: Bus) -> None:
        while True:
            event = await self._events.get()
            try:
                await bus.emit(event)
            except BusError:
                self.tell(event)
                raise

    async def _count_cost(self) -> None:
        """Read today's cost after work was seen; an idle installation is never asked."""
        seen: set[str] = set()
        while True:
            await asyncio.sleep(COST_S)
            busy = {beat.task_id for _, beat in self._beats.values() if beat.task_id}
            if self._cost_usd is not None and not busy and not seen:
                continue
            seen = busy
            try:
                store = await Store.open(self._settings.postgres, WATCH)
                try:
                    self._cost_usd = float(await store.fetchval(COST_SQL))
                finally:
                    await store.close()
            except AIError as error:
                logger.warning("could not read the cost", error=str(error))
