"""A wire to the rehearsal model that remembers what was asked over it."""

from __future__ import annotations

import asyncio
import contextlib


class Tee:
    """Passes bytes on both ways; `asked` is all that was sent to the model."""

    def __init__(self, port: int) -> None:
        self.asked = b""
        self.port = 0
        self._to = port
        self._server: asyncio.Server | None = None
        self._pumps: list[asyncio.Task[None]] = []

    async def open(self) -> Tee:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _meet(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, out = await asyncio.open_connection("127.0.0.1", self._to)
        self._pumps += [
            asyncio.create_task(self._pump(near, out, keep=True), name="tee-out"),
            asyncio.create_task(self._pump(far, back, keep=False), name="tee-back"),
        ]

    async def _pump(
        self, source: asyncio.StreamReader, into: asyncio.StreamWriter, *, keep: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(65_536):
                self.asked += piece if keep else b""
                into.write(piece)
                await into.drain()
        into.close()
