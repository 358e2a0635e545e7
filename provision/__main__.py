"""`python -m provision`: the root broker. Its rules: `config/broker.toml`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from base import log, program
from base.bus import Bus
from base.errors import SettingsError
from base.program import EXIT_POST_TAKEN
from base.settings import Settings
from base.settings import load as base_settings
from base.store import Store
from provision import broker, domains, door, product, registry, renewal, rules
from provision.broker import Broker
from provision.live import Live
from provision.record import NAME, Journal, Trail
from provision.rules import exposed
from provision.verb import Verb

logger = log.get(NAME)


def prepare(settings: Settings) -> Path:
    """Make the broker's own folder; the folder of its logs. The home is another user's.

    Raises SettingsError when there is no socket to listen on, or others could write the folder.
    """
    if settings.broker is None:
        raise SettingsError(["broker: say where to listen, as AI_INFRA_BROKER=/run/…/broker.sock"])
    _ = settings.redis, settings.postgres
    state = rules.here(settings).box.state
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError([f"box.state: {state}: {error.strerror}"]) from error
    if fault := exposed(state):
        raise SettingsError([f"box.state: {fault}"])
    return state / "logs"


async def main(
    settings: Settings, stop: asyncio.Event, *, verbs: Mapping[str, Verb[Any]] | None = None
) -> int | None:
    """Wire the parts and serve until `stop`. verbs None: those of `provision/verbs`."""
    assert settings.broker is not None
    allowed = rules.here(settings)
    known = registry.collect() if verbs is None else verbs
    lock = door.held(allowed.box.state)
    if lock is None:
        logger.error("another broker works here")
        return EXIT_POST_TAKEN
    here = door.bound(settings.broker, settings.broker_group)
    bus = await Bus.open(settings.redis, NAME)
    store = await Store.open(settings.postgres, NAME)
    journal, trail, live = Journal(allowed.box.state), Trail(allowed.box.state, bus), Live(bus)
    try:
        trail.open()
        broker.report(journal.open(), trail)
        if verbs is None:  # what a kill left of the sites, before the first order
            await domains.recover(allowed.box)
        made = Broker(
            rules=allowed, verbs=known, store=store, journal=journal, trail=trail, live=live
        )
        ended = asyncio.Event()

        async def serve() -> None:
            await door.Door(made, allowed, stop, settings.drain_s).run(here)

        logger.info("listening", socket=str(settings.broker), verbs=len(known))
        product.started(settings, allowed.box.state)
        await program.watch(ended, serve=serve(), trail=trail.run(), live=live.run())
        await trail.flush()
    finally:
        settings.broker.unlink(missing_ok=True)
        here.close()
        await store.close()
        await bus.close()
        os.close(lock)
    return None


if __name__ == "__main__":
    if sys.argv[1:] == ["--renew"]:
        sys.exit(asyncio.run(renewal.renew(base_settings().broker)))
    program.run(NAME, main, prepare=prepare)
