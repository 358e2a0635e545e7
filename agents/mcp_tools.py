"""The tools of MCP servers in a task: listed and pinned at its start, called, and let go.

What a task is offered stands in its journal (`offered`), so that it stays the same for as long as
the task does. A server is started or reached when a task first needs it, and ended with the task.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents import mcp_answer, mcp_offer
from agents.hands import ToolResult
from agents.mcp_offer import Offer
from agents.mcp_process import Process
from agents.tools import Tool
from base import log
from base.deadline import Deadline
from base.errors import AIError, McpError
from base.levels import Level, Levels
from base.mcp import Server
from base.redact import MARK
from base.terminal import short
from pai.record import Record

if TYPE_CHECKING:
    from agents.mcp_client import Connection

PREFIX = "mcp__"
OPEN_S = 30.0
#: A server that could not be listed is left alone for as long; a listing is good for as long.
RETRY_S = 60.0
LISTED_S = 3600.0
RESTARTS_MAX = 1
Listing = tuple[mcp_offer.Listed, ...]

logger = log.get("mcp")


class Held:
    """One server in one task: its connection, and how often it was lost."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.process: Process | None = None
        self.losses = 0


class Mcp:
    """The servers of one agent. `tell` shows a fault to whoever watches the window.

    secret: the value of a secret by its name, or None.
    """

    def __init__(
        self,
        servers: Sequence[Server] = (),
        *,
        levels: Levels | None = None,
        user: str | None = None,
        secret: Callable[[str], str | None] = lambda _: None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.servers = {server.name: server for server in servers}
        self._levels = levels or Levels.load()
        self._user = user
        self._secret = secret
        self._tell = tell
        self._told: set[str] = set()
        self._listings: dict[str, tuple[float, Listing]] = {}
        self._failed: dict[str, float] = {}
        self._held: dict[str, Held] = {}

    async def offers(self, level: Level, workspace: Path) -> tuple[Offer, ...]:
        """The tools to offer to a task that begins now; a server that fails has none."""
        await asyncio.gather(*(self._look(one, level, workspace) for one in self.servers.values()))
        found: list[Offer] = []
        for name, (_, listing) in sorted(self._listings.items()):
            given, faults = mcp_offer.offers(self.servers[name], listing)
            found += given
            for fault in faults:
                self._say(fault)
        return tuple(found)

    async def call(
        self, offer: Offer, given: dict[str, Any], level: Level, workspace: Path
    ) -> ToolResult:
        """One call; whatever goes wrong is a result. Never made twice."""
        server = self.servers.get(offer.server)
        if server is None or not server.enabled(offer.tool):
            return _failed(offer, "the owner has taken it away since the task began")
        try:
            connection = await self._connect(server, level, workspace)
            listing = await self._list(server, connection)
        except AIError as error:
            return _failed(offer, f"the server cannot be used: {error}", foreign=True)
        now = next((one for one in listing if one.name == offer.tool), None)
        if now is None or now.digest() != offer.digest:
            return _failed(
                offer,
                "refused: the server has changed what it says about this tool since the task "
                "began. It is offered again, as it is then, to the next task",
            )
        try:
            limit = Deadline.after(server.limit_s)
            answer = await connection.call(offer.tool, given, limit)
        except McpError as error:
            told = f"{self._bare(server, str(error))}; what the call did is unknown"
            if connection.gone and (last := await self._lose(server.name)):
                told += f" (the server's last words: {last})"
            return _failed(offer, told, foreign=True)
        text = self._bare(server, mcp_answer.text(server.name, answer))
        process = self._held[server.name].process
        if process is not None and (policy := process.refused()):
            text += f"\n{policy}"
        return ToolResult(ok=answer.ok, text=text, untrusted=f"mcp:{server.name}")

    async def release(self) -> None:
        """End every server of the task. Safe to call at any time."""
        held, self._held = self._held, {}
        await asyncio.gather(*(_end(one) for one in held.values()))

    async def _look(self, server: Server, level: Level, workspace: Path) -> None:
        """List a server anew when its listing is old or missing."""
        now_s = time.monotonic()
        listed_s, _ = self._listings.get(server.name, (None, ()))
        failed_s = self._failed.get(server.name)
        if listed_s is not None and now_s - listed_s < LISTED_S:
            return
        if failed_s is not None and now_s - failed_s < RETRY_S:
            return
        try:
            await self._list(server, await self._connect(server, level, workspace))
            self._failed.pop(server.name, None)
        except AIError as error:
            self._failed[server.name] = now_s
            self._listings.pop(server.name, None)
            self._say(f"{server.name}: no tools: {error}")

    async def _list(self, server: Server, connection: Connection) -> Listing:
        try:
            listing = await connection.list(Deadline.after(OPEN_S))
        except McpError as error:
            if connection.gone and (last := await self._lose(server.name)):
                raise McpError(f"{error} (the server's last words: {last})") from error
            raise
        self._listings[server.name] = (time.monotonic(), listing)
        return listing

    async def _connect(self, server: Server, level: Level, workspace: Path) -> Connection:
        """The task's connection to the server; a lost one is made anew once. AIError."""
        held = self._held.setdefault(server.name, Held())
        if held.connection is not None and held.connection.gone:
            await self._lose(server.name)
        if held.connection is not None:
            return held.connection
        if held.losses > RESTARTS_MAX:
            raise McpError(f"it ended {held.losses} times in this task and is not started again")
        client = await asyncio.to_thread(import_module, "agents.mcp_client")
        deadline = Deadline.after(OPEN_S)
        try:
            if server.url is not None:
                headers = await asyncio.to_thread(self._headers, server)
                made = await client.Connection.reach(server.url, headers, deadline)
            else:
                inside = server.inside(level, self._levels)
                held.process = await Process.start(server, inside, workspace, self._user)
                made = await client.Connection.start(held.process, deadline)
        except McpError as error:
            last = await self._lose(server.name)
            raise McpError(f"{error} (its last words: {last})" if last else str(error)) from error
        held.connection = made
        logger.info("server connected", server=server.name)
        return held.connection

    async def _lose(self, name: str) -> str:
        """Let a connection go that ended; the server's last words."""
        held = self._held[name]
        held.losses += 1
        words = await _end(held)
        held.connection = held.process = None
        logger.warning("server lost", server=name)
        return short(" ".join(words.splitlines()[-1:]))

    def _headers(self, server: Server) -> dict[str, str]:
        headers: dict[str, str] = {}
        for header, name in server.secrets.items():
            value = self._secret(name)
            if not value:
                raise McpError(f"servers.{server.name}.secrets: there is no secret {name!r}")
            plain = header.lower() == "authorization" and " " not in value
            headers[header] = f"Bearer {value}" if plain else value
        return headers

    def _bare(self, server: Server, text: str) -> str:
        """`text` without the secrets that the server was sent, which it may send back."""
        for name in server.secrets.values():
            if value := self._secret(name):
                text = text.replace(value, MARK)
        return text

    def _say(self, fault: str) -> None:
        """Each fault once."""
        if fault not in self._told:
            self._told.add(fault)
            self._tell(f"mcp: {fault}")
            logger.warning("server fault", error=short(fault))


def record(offers: Sequence[Offer]) -> dict[str, Any]:
    """What the journal keeps of what a task is offered."""
    return {"tools": [asdict(one) for one in offers]}


def offered(records: Sequence[Record]) -> tuple[Offer, ...] | None:
    """What the task was offered; None: nobody looked yet."""
    found = next((one for one in records if one["kind"] == "offered"), None)
    return None if found is None else tuple(Offer(**one) for one in found["tools"])


def declared(records: Sequence[Record]) -> dict[str, Tool]:
    """The offered tools as the agent's own are declared, by name. A pure function."""
    return {
        one.name: Tool(
            name=one.name,
            told=one.description,
            input_schema=one.input_schema,
            where="mcp",
            level=one.level,
        )
        for one in offered(records) or ()
    }


async def _end(held: Held) -> str:
    """Close the connection, kill the process; its last words."""
    if held.connection is not None:
        await held.connection.close()
    return await held.process.end() if held.process is not None else ""


def _failed(offer: Offer, reason: str, *, foreign: bool = False) -> ToolResult:
    """foreign: words of the server may be in `reason`."""
    source = f"mcp:{offer.server}" if foreign else ""
    return ToolResult(ok=False, text=f"{offer.name}: {reason}", untrusted=source)
