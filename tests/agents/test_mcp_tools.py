"""The servers of an agent in a task: started in a sandbox, pinned, gated, let go."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boxed
import pytest
from boxed import ground, hands_user, workspace

from agents import mcp_tools
from agents.hands import ToolResult
from agents.mcp_offer import Offer
from agents.mcp_tools import Mcp
from base.levels import Levels
from base.mcp import Rule, Server

__all__ = ["ground", "hands_user", "workspace"]
PLAIN = Path(__file__).parent / "mcp_plain.py"
LEVEL = boxed.STANDARD
STARTED = "open('starts', 'a').write('x')"
SLOW = 'case "add" if not __import__("time").sleep(60):'
Look = Callable[[str], str | None]


class World:
    """The servers, the workspace, and what was said in the window."""

    def __init__(self, ground: Path, workspace: Path, user: str | None) -> None:
        self.folder = ground / "servers"
        self.folder.mkdir()
        shutil.copy(PLAIN, self.folder)
        self.workspace = workspace
        self.user = user
        self.said: list[str] = []
        self.mcp = Mcp()
        self.offers: dict[str, Offer] = {}

    def server(self, name: str = "one", **more: Any) -> Server:
        command = ("python3", str(self.folder / PLAIN.name))
        given = {"command": command, "agents": ("code",), "read": (str(self.folder),)}
        return Server(name=name, **(given | more))

    async def begin(
        self, *servers: Server, secret: Callable[[str], str | None] | None = None
    ) -> None:
        """A new agent process whose first task begins."""
        await self.mcp.release()
        look = secret or (lambda _: None)
        self.mcp = Mcp(servers, user=self.user, secret=look, tell=self.said.append)
        await self.task()

    async def task(self) -> None:
        """The next task begins."""
        await self.mcp.release()
        found = await self.mcp.offers(LEVEL, self.workspace)
        self.offers = {offer.name: offer for offer in found}

    async def call(self, tool: str, server: str = "one", **given: Any) -> ToolResult:
        offer = self.offers[f"mcp__{server}__{tool}"]
        return await self.mcp.call(offer, given, LEVEL, self.workspace)


@pytest.fixture
async def world(ground: Path, workspace: Path, hands_user: str | None) -> AsyncIterator[World]:
    one = World(ground, workspace, hands_user)
    yield one
    await one.mcp.release()


def said(result: ToolResult) -> str:
    """What stands inside the frame of an answer."""
    return result.text.partition("<mcp_answer>\n")[2].partition("\n</mcp_answer>")[0]


async def test_the_tools_of_a_server_are_offered_and_called(world: World) -> None:
    await world.begin(world.server(tools={"add": Rule(level=2), "write": Rule(enabled=False)}))
    assert not world.said
    assert world.offers["mcp__one__add"].level == 2
    assert world.offers["mcp__one__look"].level == 1
    assert "mcp__one__write" not in world.offers
    result = await world.call("add", a=40, b=2)
    assert result.ok
    assert said(result) == "42"
    assert result.untrusted == "mcp:one"
    failed = await world.call("add", a=1, b=None)
    assert not failed.ok
    assert "TypeError" in said(failed)
    assert failed.untrusted == "mcp:one"


async def test_the_offers_stand_in_the_journal_as_they_were(world: World) -> None:
    await world.begin(world.server())
    record: dict[str, Any] = {"kind": "offered", **mcp_tools.record(list(world.offers.values()))}
    records = [json.loads(json.dumps(record))]
    assert mcp_tools.offered(records) == tuple(world.offers.values())
    tool = mcp_tools.declared(records)["mcp__one__add"]
    assert (tool.where, tool.level) == ("mcp", 1)
    assert mcp_tools.offered([]) is None
    assert mcp_tools.declared([]) == {}


async def test_a_server_sees_the_workspace_and_nothing_of_the_box(
    world: World, ground: Path
) -> None:
    secret = ground / "home" / "secrets"
    secret.mkdir()
    (secret / "key").write_text("the word")
    (ground / "beside").write_text("the word")
    (world.workspace / "in.txt").write_text("for the task")
    os.environ["A_SECRET_OF_OURS"] = "the word"
    try:
        await world.begin(world.server(environment={"UNITS": "metric"}))
        assert said(await world.call("look", path="in.txt")) == "for the task"
        hidden = [secret / "key", ground / "beside", "/etc/shadow", f"/proc/{os.getpid()}/environ"]
        for path in hidden:
            result = await world.call("look", path=str(path))
            assert not result.ok, path
            assert "the word" not in result.text
        own = json.loads(said(await world.call("environment")))
    finally:
        del os.environ["A_SECRET_OF_OURS"]
    assert own["UNITS"] == "metric"
    assert own["cwd"] == str(world.workspace)
    assert own["uid"] != 0
    assert "the word" not in json.dumps(own)
    assert (await world.call("write", path="out.txt")).ok
    assert (world.workspace / "out.txt").read_text() == "written"
    for path in (world.folder / "x", "/etc/x", ground / "x"):
        await world.call("write", path=str(path))
        assert not Path(path).exists()  # what it wrote there is gone with its sandbox


async def test_a_server_cannot_connect_outside_its_hosts(world: World) -> None:
    met = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def accept() -> None:
            while True:
                try:
                    listener.accept()
                except OSError:
                    return
                met.set()

        threading.Thread(target=accept, daemon=True).start()
        await world.begin(world.server())
        result = await world.call("connect", host="127.0.0.1", port=port)
        assert not result.ok
        for host in ("169.254.169.254", "example.com"):
            assert not (await world.call("connect", host=host, port=443)).ok
        listener.shutdown(socket.SHUT_RDWR)
    assert not met.is_set()


async def test_a_server_reaches_its_hosts_and_a_refusal_is_told(world: World) -> None:
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    here = f"127.0.0.1:{listener.server_address[1]}"
    try:
        await world.begin(world.server("open", hosts=(here,)), world.server("shut"))
        assert said(await world.call("fetch", "open", url=f"http://{here}/")) == "a page"
        assert not (await world.call("fetch", "shut", url=f"http://{here}/")).ok
        refused = await world.call("fetch", "shut", url="http://blocked.example/")
    finally:
        await world.mcp.release()
        listener.shutdown()
    assert not refused.ok
    assert "\nblocked by policy: blocked.example:80" in refused.text


class Page(BaseHTTPRequestHandler):
    """One page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a page")

    def log_message(self, *_: object) -> None:
        """Nothing to tell."""


async def test_the_sandbox_has_the_lower_level_and_the_servers_hosts_alone() -> None:
    levels = Levels.load()
    server = Server(
        name="x", command=("x",), agents=("code",), level=1, hosts=("api.example.com:443",)
    )
    assert server.inside(levels.get(2), levels).name == "standard"
    assert server.inside(levels.get(0), levels).workspace == "read"
    assert server.inside(levels.get(2), levels).network == ("api.example.com:443",)
    assert Server(name="x", command=("x",), agents=("a",)).inside(LEVEL, levels).network == ()


async def test_a_tool_that_changed_since_the_task_began_is_refused(world: World) -> None:
    await world.begin(world.server())
    assert (await world.call("add", a=1, b=1)).ok
    assert (await world.call("change", text="Sends your files away.")).ok
    refused = await world.call("add", a=1, b=1)
    assert not refused.ok
    assert "has changed what it says about this tool" in refused.text
    assert "Sends your files" not in refused.text
    assert (await world.call("look", path="/usr/bin/env")).text  # the others are as they were


async def test_the_next_task_is_offered_what_the_server_says_by_then(world: World) -> None:
    await world.begin(world.server())
    first = world.offers["mcp__one__add"]
    source = (world.folder / PLAIN.name).read_text().replace('"Adds."', '"Adds two numbers."')
    (world.folder / PLAIN.name).write_text(source)
    await world.task()
    assert world.offers["mcp__one__add"] == first  # as it was listed last
    refused = await world.call("add", a=1, b=1)
    assert "has changed" in refused.text
    await world.task()
    assert "Adds two numbers." in world.offers["mcp__one__add"].description
    assert (await world.call("add", a=1, b=1)).ok


async def test_a_server_is_started_when_used_and_killed_with_the_task(world: World) -> None:
    await world.begin(world.server())
    assert _running(world)
    await world.task()
    assert not _running(world)  # its tools are known: nothing is started
    assert (await world.call("add", a=1, b=1)).ok
    assert _running(world)
    await world.mcp.release()
    assert not _running(world)


def _running(world: World) -> bool:
    found = subprocess.run(
        ["pgrep", "-f", f"python3 {world.folder / PLAIN.name}"], capture_output=True, check=False
    )
    return found.returncode == 0


async def test_a_crash_is_never_repeated_and_the_server_comes_back_once(world: World) -> None:
    script = world.folder / "crash.py"
    source = PLAIN.read_text().replace(
        '        case "look":',
        '        case "look" if given["path"] == "die":\n'
        '            open("log", "a").write("died\\n")\n'
        '            print("it fell over", file=sys.stderr, flush=True)\n'
        "            os._exit(3)\n"
        '        case "look":',
    )
    script.write_text(source)
    await world.begin(world.server(command=("python3", str(script))))
    first = await world.call("look", path="die")
    assert not first.ok
    assert "what the call did is unknown" in first.text
    assert "it fell over" in first.text
    assert (world.workspace / "log").read_text() == "died\n"
    assert (await world.call("add", a=1, b=1)).ok
    await world.call("look", path="die")
    third = await world.call("add", a=1, b=1)
    assert not third.ok
    assert "ended 2 times in this task" in third.text
    await world.task()
    assert (await world.call("add", a=1, b=1)).ok


async def test_a_call_that_is_slow_ends_at_the_servers_limit(world: World) -> None:
    script = world.folder / "slow.py"
    source = PLAIN.read_text().replace(
        'case "add":', 'case "add" if not __import__("time").sleep(60):'
    )
    script.write_text(source)
    await world.begin(world.server(command=("python3", str(script)), limit_s=1))
    began_s = time.monotonic()
    result = await world.call("add", a=1, b=1)
    assert time.monotonic() - began_s < 15
    assert not result.ok
    assert "did not answer in time; what the call did is unknown" in result.text


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("no-such-program",), "no-such-program"),
        (("python3", "-c", f"{STARTED}; raise SystemExit('bad weather')"), "bad weather"),
    ],
)
async def test_a_bad_server_is_told_once_and_the_others_work(
    world: World, command: tuple[str, ...], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.begin(world.server("bad", command=command), world.server("good"))
    assert {offer.server for offer in world.offers.values()} == {"good"}
    assert len(world.said) == 1
    assert world.said[0].startswith("mcp: bad: no tools:")
    assert reason in world.said[0]
    await world.task()  # it is left alone for now
    starts = world.workspace / "starts"
    assert not starts.exists() or starts.read_text() == "x"
    monkeypatch.setattr(mcp_tools, "RETRY_S", 0.0)
    await world.task()
    assert not starts.exists() or starts.read_text() == "xx"
    assert len(world.said) == 1
    assert (await world.call("add", "good", a=1, b=1)).ok


async def test_a_server_without_its_secret_is_told_by_name(world: World) -> None:
    server = Server(
        name="far",
        url="http://127.0.0.1:9/mcp",
        agents=("code",),
        secrets={"Authorization": "far-token"},
    )
    await world.begin(server)
    assert world.said == ["mcp: far: no tools: servers.far.secrets: there is no secret 'far-token'"]


async def test_a_cancelled_call_and_release_leave_nothing_behind(world: World) -> None:
    script = world.folder / "slow.py"
    source = PLAIN.read_text().replace(
        'case "add":', 'case "add" if not __import__("time").sleep(60):'
    )
    script.write_text(source)
    await world.begin(world.server(command=("python3", str(script))))
    call = asyncio.create_task(world.call("add", a=1, b=1))
    await asyncio.sleep(0.3)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await world.mcp.release()
    found = subprocess.run(["pgrep", "-f", str(script)], capture_output=True, check=False)
    assert found.returncode != 0


def test_an_agent_without_servers_does_not_load_the_package() -> None:
    code = (
        "import sys, agents.__main__\n"
        "assert not {'mcp', 'mcp_types', 'jsonschema', 'agents.mcp_client'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Echo(BaseHTTPRequestHandler):
    """A listening server of the older protocol that tells back what it was sent."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        told = f"you sent {self.headers.get('Authorization')}"
        results: dict[str, Any] = {
            "initialize": {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "echo", "version": "1"},
            },
            "tools/list": {
                "tools": [{"name": "tell", "inputSchema": {"type": "object"}, "description": ""}]
            },
            "tools/call": {"content": [{"type": "text", "text": told}]},
        }
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked.get("id")}
        if asked["method"] in results:
            answer["result"] = results[asked["method"]]
        else:
            answer["error"] = {"code": -32601, "message": "Method not found"}
        data = json.dumps(answer).encode()
        self.send_response(200 if "id" in asked else 202)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data) if "id" in asked else 0))
        self.end_headers()
        if "id" in asked:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing to tell."""


async def test_a_secret_goes_to_the_server_and_never_to_the_model(world: World) -> None:
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    server = Server(
        name="far",
        url=f"http://127.0.0.1:{listener.server_address[1]}/mcp",
        agents=("code",),
        secrets={"Authorization": "far-token"},
    )
    try:
        await world.begin(server, secret={"far-token": "the-word-itself"}.get)
        result = await world.call("tell", "far")
    finally:
        await world.mcp.release()
        listener.shutdown()
    assert said(result) == "you sent Bearer [secret]"
