"""The wiring of the portal: every part is made here and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from fastapi import FastAPI

from base.bus import Bus
from base.errors import AIError
from base.limit import Limiter
from base.settings import Settings
from base.store import Store
from portal import api, configuration, limits, mcp_route, pages, problems, screens, ws
from portal.api import openapi, ops
from portal.auth import Auth
from portal.deliveries import Deliveries
from portal.desk import Desk
from portal.door import Door
from portal.feed import Feed
from portal.gauges import Gauges
from portal.mcp_route import Mcp
from portal.oauth import Providers
from portal.terminals import Terminals
from portal.trail import Trail
from portal.underway import Underway
from portal.voice import Voice


@asynccontextmanager
async def _reason_kept(app: FastAPI) -> AsyncIterator[None]:
    """The server turns what is raised here into an exit code; `state.failure` keeps the reason."""
    try:
        yield
    except AIError as error:
        app.state.failure = error
        raise


def create(settings: Settings, stop: asyncio.Event | None = None) -> FastAPI:
    """The application. It opens the record and the wire when it starts, and closes them last.

    `stop` is set when the live view's reader dies: the program has to end then.
    """

    def died(_: asyncio.Task[None]) -> None:
        if stop is not None:
            stop.set()

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as closing, _reason_kept(app):
            store = await Store.open(settings.postgres, "portal")
            closing.push_async_callback(store.close)
            await store.migrate()
            bus = await Bus.open(settings.redis, "portal")
            closing.push_async_callback(bus.close)
            limiter = await Limiter.open(settings)
            closing.push_async_callback(limiter.close)
            trail = Trail(store, bus)
            auth = Auth(settings, store, limiter, trail)
            await auth.ensure_admin()
            deliveries = Deliveries(settings, store)
            feed, underway = Feed(bus, deliveries.hear), Underway()
            app.state.desk = Desk(
                settings=settings,
                store=store,
                bus=bus,
                feed=feed,
                auth=auth,
                limiter=limiter,
                seats=limits.Seats(limiter.rates.websocket.connections),
                trail=trail,
                gauges=Gauges(bus),
                deliveries=deliveries,
                providers=Providers(settings, auth.derived("oauth flow")),
                terminals=Terminals(settings),
                screens=limits.Seats(screens.OPEN_MAX),
                voice=Voice(settings, bus),
                underway=underway,
            )
            tasks = [
                asyncio.create_task(feed.run(), name="feed"),
                asyncio.create_task(trail.run(), name="trail"),
                asyncio.create_task(deliveries.run(), name="deliveries"),
                asyncio.create_task(mcp.run(), name="mcp"),
                asyncio.create_task(configuration.watch(settings, trail), name="configuration"),
            ]
            for task in tasks:
                task.add_done_callback(died)
            yield
            # Listeners end first, so that sockets and pages see the end before the wire does.
            feed.close()
            await underway.close()
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await trail.close()

    mcp = Mcp()
    app = FastAPI(
        title="AI Infrastructure",
        version=openapi.VERSION,
        lifespan=life,
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    app.add_middleware(Door)
    app.add_middleware(limits.Limits)
    api.install(app)
    app.add_api_route("/metrics", ops.metrics_page, include_in_schema=False)
    app.add_api_websocket_route("/ws", ws.serve)
    mcp_route.install(app, mcp)
    app.add_api_websocket_route("/ws/terminals/{window}", screens.serve)
    pages.install(app, settings)
    return app
