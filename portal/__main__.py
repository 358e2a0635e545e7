"""`python -m portal`: serve the REST interface, the WebSocket and the pages."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from base import log, program, pulse
from base.errors import SettingsError
from base.settings import Settings
from portal.app import create

DRAIN_S = 5
START_LOOK_S = 0.05
#: The question that the portal puts to itself for systemd.
ALIVE = b"GET /api/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class _Server(uvicorn.Server):
    """Signals belong to `base.program`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn would take them over."""
        yield


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop`. Raises SettingsError when the port is in use."""
    listening = _listen(settings.host, settings.port)
    app = create(settings, stop)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        ws_max_size=1_100_000,
        ws_ping_interval=20.0,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=DRAIN_S,
    )
    # Its info lines name WebSocket addresses with their query, and a token may be in it.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = _Server(config)
    log.get("portal").info("started", host=settings.host, port=settings.port)

    async def leave() -> None:
        await stop.wait()
        if (desk := getattr(app.state, "desk", None)) is not None:
            desk.feed.close()  # streams end by themselves, so that the server need not wait
        server.should_exit = True

    leaving = asyncio.create_task(leave(), name="leave")
    alive = asyncio.create_task(_alive(listening), name="alive")
    try:
        await server.serve(sockets=[listening])
    except SystemExit:
        if getattr(app.state, "failure", None) is None:
            raise
    finally:
        leaving.cancel()
        alive.cancel()
    if (reason := getattr(app.state, "failure", None)) is not None:
        raise reason
    log.get("portal").info("stopped")


async def _alive(listening: socket.socket) -> None:
    """Tell systemd that requests are answered, first and for as long as they are."""
    host, port = listening.getsockname()[:2]
    where = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)

    async def answers() -> None:
        reader, writer = await asyncio.open_connection(where, port)
        try:
            writer.write(ALIVE)
            await reader.read()
        finally:
            writer.close()

    while True:
        try:
            await answers()
        except OSError:  # it does not listen yet
            await asyncio.sleep(START_LOOK_S)
        else:
            break
    pulse.ready("serves the portal")
    await pulse.keep(answers)


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket; uvicorn would log a traceback for a port in use."""
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With its protocol named, or asyncio leaves Nagle's delay on (40 ms an answer).
        bound = socket.socket(info[0], info[1], socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(info[4])
    except OSError as error:
        raise SettingsError(
            [f"cannot listen on {host}:{port}: {error.strerror}; set AI_INFRA_PORT to a free one"]
        ) from error
    bound.set_inheritable(True)
    return bound


if __name__ == "__main__":
    program.run("portal", main)
