"""The client against real servers of the package: over pipes and over streamable HTTP."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import agent_rig as bench
import pytest
from present import wait_for

from agents.mcp_client import MESSAGE_MAX_BYTES, Connection
from base.deadline import Deadline
from base.errors import McpError

SERVER = Path(__file__).parent / "mcp_server.py"
PLAIN = Path(__file__).parent / "mcp_plain.py"


def soon() -> Deadline:
    return Deadline.after(30)


@dataclass(frozen=True, slots=True)
class Pipes:
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    process: asyncio.subprocess.Process


async def spawn(tmp_path: Path, *command: str) -> Pipes:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=pipe,
        stdout=pipe,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=tmp_path,
        limit=MESSAGE_MAX_BYTES,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    return Pipes(process.stdin, process.stdout, process)


@pytest.fixture
async def piped(tmp_path: Path) -> AsyncIterator[Connection]:
    pipes = await spawn(tmp_path, sys.executable, str(SERVER), "stdio")
    connection = await Connection.start(pipes, soon())
    yield connection
    await connection.close()
    if pipes.process.returncode is None:
        pipes.process.kill()
    await pipes.process.wait()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a real server that listens on loopback."""
    port = bench.free_port()
    command = [sys.executable, str(SERVER), "http", str(port)]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, cwd=tmp_path, stdout=quiet, stderr=quiet)
    wait_for("the MCP server", lambda: _listens(port), 30)
    yield f"http://127.0.0.1:{port}/mcp"
    server.kill()
    server.wait(10)


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
async def reached(served: str) -> AsyncIterator[Connection]:
    connection = await Connection.reach(served, {}, soon())
    yield connection
    await connection.close()


@pytest.fixture(params=["piped", "reached"])
def both(request: pytest.FixtureRequest) -> Connection:
    found: Connection = request.getfixturevalue(request.param)
    return found


async def test_tools_are_listed_and_called(both: Connection) -> None:
    listed = {one.name: one for one in await both.list(soon())}
    assert listed["add"].description == "Adds."
    assert listed["add"].input_schema["required"] == ["a", "b"]
    answer = await both.call("add", {"a": 40, "b": 2}, soon())
    assert answer.ok
    assert answer.parts == ("42",)


async def test_a_failure_of_the_tool_is_an_answer_that_is_not_ok(both: Connection) -> None:
    for tool, given in (("fail", {}), ("no_such_tool", {}), ("add", {"a": "one", "b": 2})):
        answer = await both.call(tool, given, soon())
        assert not answer.ok
        assert answer.parts


async def test_what_is_no_text_is_described_and_not_dumped(both: Connection) -> None:
    answer = await both.call("mixed", {}, soon())
    assert answer.parts[1] == "[image image/png, 900 bytes: not shown]"
    assert answer.parts[2] == "[resource note://one]\nthe note's text"


async def test_a_slow_call_ends_at_its_deadline_and_the_server_stays(both: Connection) -> None:
    with pytest.raises(McpError, match="in time"):
        await both.call("slow", {"seconds": 60}, Deadline.after(0.5))
    assert (await both.call("add", {"a": 1, "b": 1}, soon())).ok


async def test_an_answer_that_is_too_large_is_refused_and_the_server_stays(
    both: Connection,
) -> None:
    with pytest.raises(McpError, match="4,000,000 bytes"):
        await both.call("big", {"size": 10_000_000}, soon())
    assert len((await both.call("big", {"size": 3_000_000}, soon())).parts[0]) == 3_000_000


async def test_a_crash_in_mid_call_is_an_error_at_once(both: Connection) -> None:
    with pytest.raises(McpError, match="ended"):
        await both.call("crash", {}, soon())
    assert both.gone
    with pytest.raises(McpError, match="ended"):
        await both.call("add", {"a": 1, "b": 1}, soon())


async def test_a_server_that_dies_between_calls_is_known_to_be_gone(tmp_path: Path) -> None:
    pipes = await spawn(tmp_path, sys.executable, str(PLAIN))
    connection = await Connection.start(pipes, soon())
    pipes.process.kill()
    await pipes.process.wait()
    for _ in range(200):
        if connection.gone:
            break
        await asyncio.sleep(0.02)
    assert connection.gone
    await connection.close()


async def test_a_cancelled_call_leaves_the_server_usable(both: Connection) -> None:
    call = asyncio.create_task(both.call("slow", {"seconds": 60}, soon()))
    await asyncio.sleep(0.3)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await both.call("add", {"a": 1, "b": 1}, soon())).ok


async def test_what_the_server_says_of_a_tool_is_told_as_it_is_now(both: Connection) -> None:
    before = {one.name: one.digest() for one in await both.list(soon())}
    assert (await both.call("change", {"text": "Deletes."}, soon())).ok
    after = {one.name: one.digest() for one in await both.list(soon())}
    assert before["add"] != after["add"]
    assert before["fail"] == after["fail"]


@pytest.mark.parametrize("tool", ["sample", "elicit", "roots"])
async def test_what_a_server_asks_for_itself_is_refused(tmp_path: Path, tool: str) -> None:
    pipes = await spawn(tmp_path, sys.executable, str(PLAIN))
    with closing(pipes.stdin):
        connection = await Connection.start(pipes, soon())
        answer = await connection.call(tool, {}, soon())
        await connection.close()
    assert "not supported" in answer.parts[0]
    await pipes.process.wait()


@pytest.mark.parametrize(
    "program", ["import time; time.sleep(60)", "print('{}', flush=True); input()", "1/0"]
)
async def test_a_program_that_is_no_server_is_one_error(tmp_path: Path, program: str) -> None:
    pipes = await spawn(tmp_path, sys.executable, "-c", program)
    with pytest.raises(McpError):
        await Connection.start(pipes, Deadline.after(2))
    if pipes.process.returncode is None:
        pipes.process.kill()
    await pipes.process.wait()


class Astray(BaseHTTPRequestHandler):
    """Sends every request to another host."""

    to = ""
    seen: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        type(self).seen.append(dict(self.headers))
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(307 if type(self).to else 404)
        if type(self).to:
            self.send_header("Location", type(self).to)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing to tell."""


def listener(to: str = "") -> tuple[ThreadingHTTPServer, type[Astray], str]:
    kind = type("One", (Astray,), {"to": to, "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    Thread(target=server.serve_forever, daemon=True).start()
    return server, kind, f"http://127.0.0.1:{server.server_address[1]}/mcp"


async def test_a_redirect_to_another_host_is_not_followed_and_the_secret_stays() -> None:
    thief, stolen, elsewhere = listener()
    astray, asked, url = listener(to=elsewhere)
    try:
        with pytest.raises(McpError):
            await Connection.reach(url, {"Authorization": "Bearer word"}, Deadline.after(10))
        assert asked.seen[0]["Authorization"] == "Bearer word"
        assert stolen.seen == []
    finally:
        thief.shutdown()
        astray.shutdown()


async def test_no_proxy_of_the_environment_is_used(
    served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, asked, url = listener()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, url.removesuffix("/mcp"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    try:
        connection = await Connection.reach(served, {}, soon())
        await connection.close()
        assert asked.seen == []
    finally:
        proxy.shutdown()


async def test_a_server_that_is_not_there_is_one_error() -> None:
    with pytest.raises(McpError, match="failed"):
        await Connection.reach(f"http://127.0.0.1:{bench.free_port()}/mcp", {}, soon())
