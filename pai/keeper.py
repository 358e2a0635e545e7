"""The keeper: the one process that opens the stores. It answers, reads the stream, maintains.

    search ──▶ pai/search     remember, write ──▶ pai/intake     forget ──▶ pai/forget
    told on the stream ──▶ TOLD                            maintain ──▶ pai/maintain

Shutdown: the tasks are cancelled (what is unanswered or unacknowledged comes again), the uses
that wait are written, then the warm store, the bus and the record are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from base import log, program, pulse, streams
from base.bus import Bus, Delivery
from base.errors import AIError, BusError, InputError, StoreError, TornError, WarmError
from base.plural import counted
from base.settings import Settings
from base.store import HeldLock, Store
from pai import (
    browse,
    edit,
    export,
    forget,
    hold,
    intake,
    learn,
    maintain,
    search,
    signals,
    stats,
    tiers,
)
from pai.cold import Archive
from pai.embed import Embedder
from pai.hot import Index, Shared
from pai.meaning import Meaning
from pai.rebuild import rebuild
from pai.shapes import SHARED, Browse, Edit, Memory, Query, Told
from pai.stores import Stores
from pai.warm import open_warm

NAME = "keeper"
POST = "memory"
GROUP = streams.GROUP_KEEPER
CONCURRENCY = 32
PAUSE_S = 1.0
AGAIN_S = 15.0

Payload = Mapping[str, Any]
Answer = Callable[[Stores, Payload], Awaitable[dict[str, Any]]]
logger = log.get(__name__)


async def main(settings: Settings, stop: asyncio.Event) -> int | None:
    """Run until `stop`; 75 when another keeper has the post."""
    rules = tiers.Rules.load(settings)
    store = await Store.open(settings.postgres, NAME)
    async with contextlib.AsyncExitStack() as held:
        held.push_async_callback(store.close)
        post = await store.advisory_lock(POST)
        if post is None:
            print("keeper: another keeper has the post")
            return program.EXIT_POST_TAKEN
        held.push_async_callback(post.release)
        await store.migrate()
        bus = await Bus.open(settings.redis, NAME)
        held.push_async_callback(bus.close)
        stores = await held.enter_async_context(opened(settings, rules, store, bus))
        await run(stores, post, stop)
    return None


@contextlib.asynccontextmanager
async def opened(settings: Settings, rules: tiers.Rules, store: Store, bus: Bus) -> Any:
    """The stores, ready for searches. A warm store that cannot be read is made anew from the
    cards: it starts empty and maintenance fills it.
    """
    warm = await open_warm(settings)
    restored = settings.home / "data" / "qdrant" / "restored"
    if settings.qdrant_url and restored.exists():
        await warm.reset()  # the server kept what was before a restore
    meaning = Meaning(Embedder(bus), store, warm)
    archive = Archive(settings.memory / "Work" / "archive", store)
    stores = Stores(
        settings=settings, rules=rules, bus=bus, store=store, warm=warm, index=Index(),
        shared=Shared(bus), archive=archive, meaning=meaning,
    )  # fmt: skip
    try:
        await archive.open()
        try:
            await meaning.start()
        except TornError as error:
            logger.error("the warm store cannot be read and is made anew", error=str(error))
            await warm.reset()
            await meaning.start()
        await rebuild(stores, thorough=restored.exists())
        restored.unlink(missing_ok=True)
        yield stores
        await maintain.write_all_uses(stores)
    finally:
        await warm.close()


async def run(stores: Stores, post: HeldLock, stop: asyncio.Event) -> None:
    """All that goes on at once. The first to end stops the rest."""
    logger.info("ready", model=stores.meaning.model, hot=len(stores.index))

    async def answer(payload: dict[str, Any]) -> dict[str, Any]:
        return await ask(stores, payload)

    async def turn() -> None:
        await ask(stores, {"verb": "stats", "user_id": None})

    pulse.ready(f"keeps {counted(len(stores.index), 'hot memory', 'hot memories')}")
    await program.watch(
        stop,
        pulse=pulse.keep(turn),
        post=post.watch(),
        asks=stores.bus.serve(streams.SERVICE_MEMORY, answer, concurrency=CONCURRENCY),
        told=read(stores),
        maintenance=maintain.run(stores),
    )


# Asked ---------------------------------------------------------------------------------------


async def ask(stores: Stores, payload: Payload) -> dict[str, Any]:
    """Answer one request. Raises InputError for what cannot be."""
    verb = payload.get("verb")
    answer = VERBS.get(str(verb))
    if answer is None:
        raise InputError(f"memory has no verb {verb!r}; there are: {', '.join(VERBS)}")
    try:
        return await answer(stores, payload)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where or verb}: {first['msg']}") from None
    except KeyError as error:
        raise InputError(f"memory {verb}: {error.args[0]} is missing") from error


async def _search(stores: Stores, payload: Payload) -> dict[str, Any]:
    return _plain(await search.search(stores, Query.model_validate(payload["query"])))


async def _remember(stores: Stores, payload: Payload) -> dict[str, Any]:
    memories = [Memory.model_validate(one) for one in _list(payload, "memories")]
    return {"ids": await intake.remember(stores, memories)}


def _list(payload: Payload, name: str) -> list[Any]:
    value = payload[name]
    if not isinstance(value, list | tuple):
        raise InputError(f"{name}: a list is wanted")
    return list(value)


async def _write(stores: Stores, payload: Payload) -> dict[str, Any]:
    """What an agent's tool writes down: only for its own user, and known as the agent's."""
    names = ("text", "kind", "tags", "user_id", "agent", "task_id", "tainted", "conversation_id")
    memory = Memory.model_validate({name: payload[name] for name in names if name in payload})
    if memory.user_id == SHARED:
        raise InputError("what agents write belongs to one user")
    return {"id": (await intake.remember(stores, [memory]))[0]}


async def _forget(stores: Stores, payload: Payload) -> dict[str, Any]:
    return await forget.forget(stores, str(payload["user_id"]), _list(payload, "ids"))


async def _browse(stores: Stores, payload: Payload) -> dict[str, Any]:
    return _plain(await browse.page(stores, Browse.model_validate(payload["wanted"])))


async def _about(stores: Stores, payload: Payload) -> dict[str, Any]:
    found = await browse.about(stores, str(payload["user_id"]), _list(payload, "ids"))
    return {"cards": [_plain(one) for one in found]}


async def _edit(stores: Stores, payload: Payload) -> dict[str, Any]:
    return await edit.edit(stores, Edit.model_validate(payload["edit"]))


async def _stats(stores: Stores, payload: Payload) -> dict[str, Any]:
    return await stats.stats(stores, payload.get("user_id"))


async def _export(stores: Stores, payload: Payload) -> dict[str, Any]:
    return await export.page(stores, str(payload["user_id"]), payload.get("after"))


async def _maintain(stores: Stores, _: Payload) -> dict[str, Any]:
    return await maintain.once(stores)


VERBS: dict[str, Answer] = {
    "search": _search,
    "learnings": learn.ask_learnings,
    "recent": learn.ask_recent,
    "remember": _remember,
    "write": _write,
    "edit": _edit,
    "forget": _forget,
    "browse": _browse,
    "about": _about,
    "stats": _stats,
    "maintain": _maintain,
    "export": _export,
    "hold": hold.hold,
    "release": hold.release,
}


# Told ----------------------------------------------------------------------------------------


async def read(stores: Stores) -> None:
    """The stream `memory`: acknowledged once it is committed, safe twice; what no try can
    make good is buried.
    """
    bus = stores.bus
    async for deliveries in bus.consume(streams.MEMORY, GROUP, min_idle_s=AGAIN_S):
        for delivery in deliveries:
            try:
                await take(stores, Told.model_validate(delivery.message.payload))
                await bus.ack(streams.MEMORY, GROUP, delivery.id)
            except (BusError, StoreError, WarmError, OSError) as error:  # OSError: a full disk
                logger.warning("not taken in yet", error=str(error))
                bus.failed(streams.MEMORY, delivery, error)
                await asyncio.sleep(PAUSE_S)
            except (ValidationError, AIError) as error:
                await _bury(bus, delivery, error)
            except Exception as error:  # one message does not end recall for everybody
                logger.exception("a message that cannot be taken in")
                await _bury(bus, delivery, error)


async def take(stores: Stores, told: Told) -> None:
    """Do what one message says. Raises InputError for what cannot be."""
    if told.user_id == SHARED or any(one.user_id != told.user_id for one in told.memories):
        raise InputError("what is told belongs to the user it is told for")
    do = TOLD.get(told.verb)
    if do is None:
        raise InputError(f"memory cannot be told {told.verb!r}")
    await do(stores, told)


async def _told_memories(stores: Stores, told: Told) -> None:
    await intake.remember(stores, told.memories)
    await signals.heard(stores, told)


async def ended(stores: Stores, told: Told) -> None:
    """A request ended: what its tasks wrote is due to move on."""
    await stores.store.execute(
        "UPDATE memory SET due_at = NOW() WHERE tier = 'hot' AND NOT leaving AND user_id = $2"
        " AND task_id IN (SELECT id::text FROM tasks WHERE root_id = $1::uuid"
        " UNION SELECT ($1::uuid)::text)",
        *(told.root_id, told.user_id),
    )
    stores.wake.set()


TOLD: dict[str, Callable[[Stores, Told], Awaitable[None]]] = {
    "remember": _told_memories,
    "learned": learn.learned,
    "signal": signals.signalled,
    "ended": ended,
}


async def _bury(bus: Bus, delivery: Delivery, reason: Exception) -> None:
    try:
        await bus.bury(streams.MEMORY, GROUP, delivery, reason)
    except BusError as error:
        logger.warning("did not bury", error=str(error))


def _plain(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json")
