"""Where orders come in and outcomes go out: one task at a time, nothing while idle.

    agent:<name> ─▶ take (may I?) ─▶ loop.run ─▶ results ─▶ ack

The outcome is in the journal before it is published and published before the order is acked, so
a crash in between gives a duplicate, which the supervisor refuses by its epoch. A process that is
asked to end gives its task back at the next safe point.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import psutil
from pydantic import ValidationError

from agents import learn, loop, tool_audit
from agents.parts import Parts
from agents.reins import StoppingError
from agents.task import Task
from base import log, streams
from base.bus import Delivery
from base.deadline import Deadline
from base.errors import (
    AIError,
    BusError,
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    SettingsError,
    StaleLeaseError,
    StoreError,
)
from base.messages import (
    Heartbeat,
    Kind,
    Message,
    ModelCall,
    Outcome,
    Status,
    Type,
    Usage,
    WorkOrder,
)

TAKE_S = 10.0
OPEN_S = 10.0
AGAIN_S = 1.0
KEEPALIVE_S = 15.0
#: The supervisor knows the order and says no; asking again would not change it.
REFUSALS = (StaleLeaseError, NotFoundError, ConflictError, ForbiddenError, InputError)

Doing = Literal["starting", "running", "idle", "busy", "stopping", "stopped", "error"]

logger = log.get("desk")


class Desk:
    """`work` and `beat` run for the life of the process; `idle` is set between tasks."""

    def __init__(self, parts: Parts, stop: asyncio.Event) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self._parts = parts
        self._stop = stop
        self._status: Doing = "starting"
        self._changed = asyncio.Event()

    # Orders --------------------------------------------------------------------------------

    async def work(self) -> None:
        """Take orders until `stop`; a task in work is left at its next safe point."""
        parts = self._parts
        self._set("idle")
        stream = streams.agent(parts.spec.name)
        orders = parts.bus.consume(stream, streams.GROUP_AGENT, batch=1)
        async with contextlib.aclosing(orders):
            async for deliveries in orders:
                for delivery in deliveries:
                    await self._one(stream, delivery)
                if self._stop.is_set():
                    return

    async def _one(self, stream: str, delivery: Delivery) -> None:
        """Handle one order, kept alive meanwhile, and ack it unless it is to come again."""
        bus = self._parts.bus
        self.idle.clear()
        keeper = asyncio.create_task(self._keep(stream, delivery.id), name="keepalive")
        try:
            if await self._handle(stream, delivery):
                await self._persist(lambda: bus.ack(stream, streams.GROUP_AGENT, delivery.id))
        finally:
            keeper.cancel()
            self.idle.set()

    async def _handle(self, stream: str, delivery: Delivery) -> bool:
        """Whether the order is dealt with and may be acked."""
        parts = self._parts
        try:
            order = WorkOrder.model_validate(delivery.message.payload)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            reason = f"no work order: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            await parts.bus.bury(stream, streams.GROUP_AGENT, delivery, reason)
            return False
        await parts.reins.unpaused()
        if not await self._take(order):
            return await self._give_back(order) if self._stop.is_set() else True
        try:
            task = await self._open(order)
        except (InputError, SettingsError) as error:
            await self.publish(_ended(order, Status.FAILED, str(error)))
            return True
        if task is None:
            return await self._give_back(order)
        try:
            outcome = await self._run(task)
        finally:
            parts.reins.end()
            task.close()
            self._set("stopping" if self._stop.is_set() else "idle")
        if outcome is None:
            return await self._give_back(order, task.spent)
        await parts.feed.flush()
        await self.publish(outcome)
        return True

    async def _give_back(self, order: WorkOrder, spent: Usage = Usage()) -> bool:
        """This process cannot go on with it: the task goes back, and it counts as no failure.

        Always True: the supervisor sends a new order, and the journal stands where it stood.
        """
        await self.publish(_ended(order, Status.PENDING).model_copy(update={"usage": spent}))
        return True

    async def _take(self, order: WorkOrder) -> bool:
        """Whether the supervisor lets us; without its word nothing is begun."""
        payload = {
            "verb": "take",
            "task_id": order.task_id,
            "epoch": order.epoch,
            "agent": self._parts.spec.name,
        }
        while not self._stop.is_set():
            try:
                await self._parts.bus.ask(
                    streams.SERVICE_SUPERVISOR, payload, deadline=Deadline.after(TAKE_S)
                )
            except REFUSALS as error:
                logger.info("order dropped", task_id=order.task_id, reason=str(error))
                return False
            except (BusError, StoreError, AIError) as error:
                logger.info("take unanswered", task_id=order.task_id, reason=str(error))
                await self._pause(AGAIN_S)
            else:
                return True
        return False

    async def _open(self, order: WorkOrder) -> Task | None:
        """The task's journal, once no other process holds it; None when we must stop, or waited
        for so long that the supervisor is about to take the task for lost.

        Raises InputError when the journal is damaged, SettingsError for a level that is none.
        """
        parts, deadline = self._parts, Deadline.after(OPEN_S)
        while not self._stop.is_set() and not deadline.passed:
            try:
                return Task.open(parts.settings, parts.levels, order, parts.spec)
            except ConflictError as error:
                logger.warning("journal is held", task_id=order.task_id, reason=str(error))
                await self._pause(AGAIN_S)
        return None

    async def _run(self, task: Task) -> Outcome | None:
        """The outcome; None when the process is to stop first."""
        parts, order = self._parts, task.order
        if task.end is not None:
            return task.end.model_copy(update={"epoch": order.epoch})
        parts.transcript.task(order, resumed=task.resumed)
        if not parts.reins.begin(task):
            return await self._cancelled(task)
        self._set("busy")
        runner = asyncio.create_task(loop.run(parts, task), name=f"task {order.task_id[:8]}")
        parts.reins.runner = runner
        try:
            outcome = await runner
        except StoppingError:
            parts.transcript.line("stopping; the task goes on after the restart", "33")
            return None
        except asyncio.CancelledError:
            if parts.reins.cancelled is None or not runner.done():
                runner.cancel()
                await asyncio.gather(runner, return_exceptions=True)
                current = asyncio.current_task()
                if not self._stop.is_set() or current is None:
                    raise
                current.uncancel()  # the drain is over: give the task back, then end
                parts.transcript.line("stopped in the middle of a step; the task goes on", "33")
                return None
            outcome = await self._cancelled(task)
        parts.transcript.line(f"{outcome.status} {outcome.error or ''}".rstrip(), "1")
        parts.transcript.cost(outcome.usage)
        return outcome

    async def _cancelled(self, task: Task) -> Outcome:
        """A cancel that names an epoch is the supervisor's: it knows already, and the task may
        be with another agent by now, so the journal is not ended.
        """
        told = self._parts.reins.cancelled
        await tool_audit.unfinished(self._parts, task, "the task was cancelled")
        if task.end is None:
            await self._parts.hooked.ended(task, Status.CANCELLED)
            await self._parts.hooked.release()
        return task.end or learn.cancel(task, final=told is None or told.epoch is None)

    # What goes out ---------------------------------------------------------------------------

    async def publish(self, outcome: Outcome) -> None:
        """Put an outcome on `results`, however long Redis is away."""
        name = self._parts.spec.name
        message = Message(
            source=name,
            target=streams.SERVICE_SUPERVISOR,
            type=Type.HANDOFF if outcome.handoff_to else Type.RESULT,
            payload=outcome.model_dump(mode="json"),
        )
        await self._persist(lambda: self._parts.bus.publish(streams.RESULTS, message))

    async def spent(self, call: ModelCall) -> None:
        """One model call ended: into the task's journal and on `usage`."""
        task = self._parts.reins.task
        if task is not None and call.task_id == task.order.task_id and call.purpose != "peer":
            task.add("spent", purpose=call.purpose, usage=call.usage.model_dump())
        message = Message(
            source=self._parts.spec.name,
            target=streams.SERVICE_SUPERVISOR,
            type=Type.RESULT,
            payload=call.model_dump(mode="json"),
        )
        try:
            await self._parts.bus.publish(streams.USAGE, message)
        except BusError as error:
            logger.error("usage lost", task_id=call.task_id, error=str(error))

    async def beat(self) -> None:
        """Heartbeats: every `heartbeat_s` and at each change of what the agent does."""
        while True:
            self._changed.clear()
            await self._beat_once()
            try:
                async with asyncio.timeout(self._parts.settings.heartbeat_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def farewell(self) -> None:
        """The last heartbeat."""
        self._status = "stopped"
        await self._beat_once()

    async def _beat_once(self) -> None:
        parts = self._parts
        task = parts.reins.task
        beat = Heartbeat(
            agent=parts.spec.name,
            pid=os.getpid(),
            status=self._status,
            paused=parts.reins.paused,
            task_id=task.order.task_id if task else None,
            epoch=task.order.epoch if task else None,
            phase=task.phase if task else None,
            rss_bytes=psutil.Process().memory_info().rss,
        )
        message = Message(
            source=parts.spec.name,
            target=streams.SERVICE_SUPERVISOR,
            type=Type.HEARTBEAT,
            payload=beat.model_dump(mode="json"),
        )
        try:
            await parts.bus.publish(streams.HEARTBEATS, message)
        except BusError as error:
            logger.warning("heartbeat lost", error=str(error))

    def _set(self, status: Doing) -> None:
        """Change what heartbeats and the live view say."""
        self._status = status
        self.changed()

    def changed(self) -> None:
        """Say at once what the agent does now."""
        self._changed.set()
        task = self._parts.reins.task
        self._parts.emit(
            Kind.AGENT,
            status=self._status,
            paused=self._parts.reins.paused,
            task_id=task.order.task_id if task else None,
        )

    # Small things ----------------------------------------------------------------------------

    async def drain(self) -> None:
        """After `stop`: wait until the running step is done, at most `drain_s`."""
        await self._stop.wait()
        began_s = time.monotonic()
        self._set("stopping")
        self._parts.reins.wake()
        try:
            async with asyncio.timeout(self._parts.settings.drain_s):
                await self.idle.wait()
        except TimeoutError:
            logger.warning("drain took too long; the step is cut")
        logger.info("drained", duration_ms=round((time.monotonic() - began_s) * 1000))

    async def _keep(self, stream: str, delivery_id: str) -> None:
        """Show the bus that the order is being worked on."""
        while True:
            await asyncio.sleep(KEEPALIVE_S)
            try:
                await self._parts.bus.keepalive(stream, streams.GROUP_AGENT, delivery_id)
            except BusError as error:
                logger.warning("keepalive failed", error=str(error))

    async def _pause(self, seconds_s: float) -> None:
        """Sleep, but not past `stop`."""
        try:
            async with asyncio.timeout(seconds_s):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _persist(self, send: Callable[[], Awaitable[None]]) -> None:
        """Repeat `send` until Redis takes it."""
        while True:
            try:
                return await send()
            except BusError as error:
                logger.warning("redis did not take it; again", error=str(error))
                await asyncio.sleep(AGAIN_S)


def _ended(order: WorkOrder, status: Status, error: str | None = None) -> Outcome:
    """The outcome of an order of which no more is known than this."""
    return Outcome(
        task_id=order.task_id,
        root_id=order.root_id,
        epoch=order.epoch,
        agent=order.agent,
        status=status,
        error=error,
    )
