"""The supervisor: one post, one loop. What wakes it, what it then does, and how it stops.

Everything that it decides is in PostgreSQL before anybody hears of it; whatever it was doing
when it died is found there again and done once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

import psutil
from pydantic import ValidationError

from base import budgets, log, policy, program, roster, streams
from base.audit_writer import Writer
from base.bus import Bus, Delivery
from base.errors import AIError, BusError, ConflictError, InputError, NotFoundError, StoreError
from base.levels import Levels
from base.llm import LLM
from base.messages import Heartbeat, Message, ModelCall, Type
from base.plural import counted
from base.prices import Models
from base.settings import Settings
from base.store import HeldLock, Store
from pai import telos
from pai.hooks import Hooks
from pai.telos import Telos
from supervisor import approvals, asks, intake, outcomes, record, tally, tasks
from supervisor.dispatch import dispatch
from supervisor.heartbeats import Heartbeats
from supervisor.keyboard import listen
from supervisor.parts import NAME, Parts
from supervisor.transcript import Transcript

POST = "supervisor"
#: A result that could not be written (PostgreSQL away) comes again after this.
AGAIN_S = 15.0
PAUSE_S = 1.0
TIDY_S = 3600.0
GROUP = streams.GROUP_SUPERVISOR
INACTIVE = "the account it belongs to was deactivated"

logger = log.get(__name__)


async def main(settings: Settings, stop: asyncio.Event) -> int | None:
    """Run until `stop`; 75 when another supervisor has the post.

    Raises StoreError when the post's connection is lost: without it nothing may be written.
    """
    costs, models, team = budgets.load(settings), Models.load(settings), roster.load(settings)
    levels, rules = Levels.load(settings), policy.load(settings)
    store = await Store.open(settings.postgres, NAME)
    try:
        post = await store.advisory_lock(POST)
        if post is None:
            print("supervisor: another supervisor has the post")
            return program.EXIT_POST_TAKEN
        async with contextlib.AsyncExitStack() as held:
            held.push_async_callback(post.release)
            await store.migrate()
            telos.prepare(settings)
            bus = await Bus.open(settings.redis, NAME)
            held.push_async_callback(bus.close)
            parts = _parts(settings, bus, store, models, team, costs, levels, rules)
            held.push_async_callback(parts.llm.close)
            held.push_async_callback(parts.slots.close)
            await run(parts, post, stop)
    finally:
        await store.close()
    return None


async def run(parts: Parts, post: HeldLock, stop: asyncio.Event) -> None:
    """All that goes on at once. The first to end stops the rest."""
    for fault in parts.roster.faults:
        parts.tell(f"roster: {fault}")
    model = "the rehearsal model" if parts.settings.rehearsal else "the model"
    parts.tell(
        f"supervisor · {counted(len(parts.agents), 'agent')} · {model} · /status shows what goes on"
    )
    await program.watch(
        stop,
        post=post.watch(),
        core=core(parts),
        tasks_new=_read_new(parts),
        results=_read_results(parts),
        usage=_read_usage(parts),
        audit=Writer(parts.settings, parts.store, parts.bus).run(),
        heartbeats=Heartbeats(parts).run(),
        asks=parts.bus.serve(
            streams.SERVICE_SUPERVISOR, asks.Asks(parts).answer, concurrency=asks.CONCURRENCY
        ),
        beat=_beat(parts),
        keyboard=listen(parts),
    )


async def core(parts: Parts) -> None:
    """The loop: new requests, then ready subtasks, then joins; now and then the sweep."""
    parts.slots.add("warm the model's client", 10, parts.llm.warm)
    await _recover(parts)
    sweep_at_s = time.monotonic() + parts.settings.sweep_s
    while True:
        parts.wake.clear()
        try:
            if time.monotonic() >= sweep_at_s:
                sweep_at_s = time.monotonic() + parts.settings.sweep_s
                await sweep(parts)
            while await intake.admit(parts):
                await dispatch(parts)
            await dispatch(parts)
            outcomes.start_joins(parts)
        except (BusError, StoreError) as error:
            logger.warning("turn failed", error=str(error))
            await asyncio.sleep(PAUSE_S)
            continue
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, sweep_at_s - time.monotonic())):
                await parts.wake.wait()


async def sweep(parts: Parts) -> None:
    """The net under the events: what is due and nobody said so."""
    await parts.relay()
    held = await record.held(parts.store)
    now = await parts.store.fetchval("SELECT NOW()")
    found = tasks.sweep(
        held,
        parts.seen,
        now,
        silence_s=parts.silence_s,
        grace_s=parts.settings.assign_lease_s,
        lease_s=parts.settings.lease_s,
    )
    for task, change in found:
        await outcomes.release(parts, task, change)
    for root in await record.of_inactive(parts.store):
        with contextlib.suppress(ConflictError):  # it ended meanwhile
            await outcomes.cancel(parts, root, INACTIVE)
    await approvals.sweep(parts)
    await _recover(parts)


async def _recover(parts: Parts) -> None:
    spent = await tally.spent_today(parts.store)
    parts.spent.clear()
    parts.spent.update(spent)
    for root in await record.to_join(parts.store):
        if f"join {root.id}" not in parts.slots:
            await outcomes.finish(parts, root)


async def _read_new(parts: Parts) -> None:
    """A message only wakes: PostgreSQL knows what is pending. A replayed dead letter retries."""
    async for deliveries in parts.bus.consume(streams.TASKS_NEW, GROUP, min_idle_s=AGAIN_S):
        done = [
            delivery
            for delivery in deliveries
            if not delivery.message.payload.get("retry") or await _retry(parts, delivery)
        ]
        parts.wake.set()
        await _ack(parts, streams.TASKS_NEW, done)


async def _retry(parts: Parts, delivery: Delivery) -> bool:
    """Whether it is dealt with; what PostgreSQL could not do comes again."""
    task_id = str(delivery.message.payload.get("task_id"))
    try:
        task = await record.find(parts.store, task_id)
        if task is not None:
            await asks.retry(parts, task)
    except ConflictError as error:
        logger.warning("did not retry", task_id=task_id, error=str(error))
    except StoreError as error:
        logger.warning("could not retry yet", task_id=task_id, error=str(error))
        parts.bus.failed(streams.TASKS_NEW, delivery, error)
        return False
    return True


async def _read_results(parts: Parts) -> None:
    async for deliveries in parts.bus.consume(streams.RESULTS, GROUP, min_idle_s=AGAIN_S):
        for delivery in deliveries:
            try:
                await outcomes.conclude(parts, delivery.message.payload)
                await _ack(parts, streams.RESULTS, [delivery])
            except (ValidationError, NotFoundError, ConflictError, InputError) as error:
                await _bury(parts, streams.RESULTS, delivery, error)
            except (BusError, StoreError) as error:
                logger.warning("outcome was not written", error=str(error))
                parts.bus.failed(streams.RESULTS, delivery, error)
                await asyncio.sleep(PAUSE_S)


async def _read_usage(parts: Parts) -> None:
    async for deliveries in parts.bus.consume(streams.USAGE, GROUP, min_idle_s=AGAIN_S):
        for delivery in deliveries:
            try:
                call = ModelCall.model_validate(delivery.message.payload)
                if await tally.add_usage(parts.store, call) and call.paid:
                    parts.spend(call.agent, call.usage.cost_usd)
                await _ack(parts, streams.USAGE, [delivery])
            except (ValidationError, InputError) as error:
                await _bury(parts, streams.USAGE, delivery, error)
            except (BusError, StoreError) as error:
                logger.warning("usage was not written", error=str(error))
                parts.bus.failed(streams.USAGE, delivery, error)
                await asyncio.sleep(PAUSE_S)


async def _ack(parts: Parts, stream: str, deliveries: list[Delivery]) -> None:
    """An entry whose ack is lost comes again and is then known."""
    try:
        await parts.bus.ack(stream, GROUP, *(delivery.id for delivery in deliveries))
    except BusError as error:
        logger.warning("did not ack", stream=stream, error=str(error))


async def _bury(parts: Parts, stream: str, delivery: Delivery, reason: Exception) -> None:
    try:
        await parts.bus.bury(stream, GROUP, delivery, reason)
    except BusError as error:
        logger.warning("did not bury", stream=stream, error=str(error))


async def _beat(parts: Parts) -> None:
    """Our own heartbeat, and once an hour the record's housekeeping."""
    process, tidy_at_s = psutil.Process(), time.monotonic() + TIDY_S
    while True:
        beat = Heartbeat(
            agent=NAME, pid=os.getpid(), status="running", rss_bytes=process.memory_info().rss
        )
        payload = beat.model_dump(mode="json")
        message = Message(source=NAME, target="*", type=Type.HEARTBEAT, payload=payload)
        try:
            await parts.bus.publish(streams.HEARTBEATS, message)
            if time.monotonic() >= tidy_at_s:
                tidy_at_s = time.monotonic() + TIDY_S
                await parts.store.tidy()
        except AIError as error:
            logger.warning("heartbeat failed", error=str(error))
        await asyncio.sleep(parts.settings.heartbeat_s)


def _parts(
    settings: Settings,
    bus: Bus,
    store: Store,
    models: Models,
    team: roster.Roster,
    costs: budgets.Budgets,
    levels: Levels,
    rules: policy.Policy,
) -> Parts:
    async def count(call: ModelCall) -> None:
        payload = call.model_dump(mode="json")
        message = Message(source=NAME, target=NAME, type=Type.LEARN, payload=payload)
        try:
            await bus.publish(streams.USAGE, message)
        except BusError as error:  # the answer is paid for: it must not be lost for this
            logger.warning("usage goes straight to the record", error=str(error))
            await tally.add_usage(store, call)

    tell = Transcript().tell
    return Parts(
        settings=settings,
        bus=bus,
        store=store,
        llm=LLM(settings, models, on_call=count),
        models=models,
        roster=team,
        budgets=costs,
        levels=levels,
        policy=rules,
        tell=tell,
        hooks=Hooks(settings.config, tell),
        telos=Telos(settings, tell),
    )
