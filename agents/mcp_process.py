"""A started MCP server: a program in a sandbox of its own, with pipes to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from dataclasses import replace
from pathlib import Path

from agents import box, egress, hands, ration, sandbox
from agents.indexes import Indexes
from agents.workspace import prepare
from base.deadline import Deadline
from base.levels import Level, Limits
from base.mcp import Server
from base.settings import load

COMPLAINT_BYTES = 4_000
END_S = 5.0


class Process:
    """Start it, end it. Killed with all that it started, also when this process dies."""

    def __init__(self, opened: box.Box, level: Level, workspace: Path) -> None:
        process = opened.process
        assert process.stdin is not None
        assert process.stdout is not None
        self.stdin, self.stdout = process.stdin, process.stdout
        self._box = opened
        self._level = level
        self._seen = egress.Seen()
        self._complaint = b""
        self._readers = [
            asyncio.create_task(self._complaints(), name="mcp-complaints"),
            asyncio.create_task(self._connections(), name="mcp-connections"),
            asyncio.create_task(self._ration(workspace), name="mcp-ration"),
        ]

    @classmethod
    async def start(
        cls, server: Server, level: Level, workspace: Path, user: str | None
    ) -> Process:
        """Start the server's command at `level`, in the workspace. SandboxError says why not."""
        who = sandbox.account(user)
        settings = load()
        real = await asyncio.to_thread(prepare, workspace, settings, who)
        indexes = await Indexes.of(settings, level)
        wish = hands.wish(real, settings, who, level, (), indexes)
        environment = {**wish.environment, **server.environment}
        command = [*_limited(level.limits), *server.command]
        opened = await box.start(replace(wish, environment=environment, command=command))
        return cls(opened, level, real)

    def refused(self) -> str:
        """What a model is told of addresses that were refused since this was last asked."""
        return egress.told(self._seen.take().refused, self._level.name)

    async def end(self) -> str:
        """Kill it and wait until it is dead; the last that it said on stderr."""
        self._kill()
        try:
            await box.ended(self._box.pidfd, Deadline.after(END_S))
        finally:
            await asyncio.wait(self._readers[:1], timeout=1.0)
            for reader in self._readers:
                reader.cancel()
            await asyncio.gather(*self._readers, return_exceptions=True)
            await self._box.remove()
        return self._complaint.decode("utf-8", "replace")

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._box.pidfd, signal.SIGKILL)

    async def _ration(self, workspace: Path) -> None:
        """End it when all its processes together take more than its level lets them."""
        reason = await ration.exceeded(self._box.pid, self._level.limits, workspace)
        self._complaint += f"\nended: {reason}\n".encode()
        self._kill()

    async def _complaints(self) -> None:
        stderr = self._box.process.stderr
        assert stderr is not None
        while piece := await stderr.read(4096):
            self._complaint = (self._complaint + piece)[-COMPLAINT_BYTES:]

    async def _connections(self) -> None:
        """Take in what the driver tells of every connection."""
        while line := await self._box.events.readline():
            self._seen.note(json.loads(line))


def _limited(limits: Limits) -> list[str]:
    """The program that sets the level's limits, then becomes what stands behind it."""
    most = {
        "nproc": limits.processes,
        "data": limits.memory_bytes,
        "as": limits.memory_bytes * 16,
        "fsize": max(limits.file_bytes, 1),
        "nofile": limits.open_files,
        "cpu": limits.cpu_s,
        "core": 0,
    }
    return ["prlimit", *(f"--{name}={most[name]}" for name in most), "--"]
