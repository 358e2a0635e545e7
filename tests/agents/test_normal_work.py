"""What an agent needs for honest work at level 1 goes through the same hands that hold the rest."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agents.hands import Hands, ToolResult
from base.deadline import Deadline
from base.levels import Levels

pytest_plugins = ["boxed"]

Call = Callable[..., Awaitable[ToolResult]]
PAGE = b"""<!doctype html><html><head><title>Tides</title></head><body><nav>menu</nav>
<article><h1>Tides</h1><p>The tide table says that high water is at noon, and the harbour master
asks that every boat be moored by then. This paragraph is long enough to be the article.</p>
<p>A second paragraph tells about the winds, the currents and the lights at the pier, so that no
reader can mistake it for a menu or an advertisement.</p></article></body></html>"""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """host:port of a page on this machine."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-length", str(len(PAGE)))
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
async def worker(workspace: Path, hands_user: str | None, site: str) -> AsyncIterator[Hands]:
    standard = Levels.load().get(1)
    level = standard.model_copy(update={"network": (*standard.network, site)})
    opened = await Hands.open(workspace=workspace, user=hands_user, level=level)
    yield opened
    await opened.close()


@pytest.fixture
def work(worker: Hands) -> Call:
    async def _work(name: str, **given: object) -> ToolResult:
        result = await worker.call(name, given, deadline=Deadline.after(170))
        assert result.ok, result.text
        return result

    return _work


async def test_a_repository_from_the_first_commit_to_a_clone(work: Call) -> None:
    await work("git", verb="init", folder="one")
    await work("write", path="one/a.py", content="def two():\n    return 2\n")
    await work("git", verb="add", folder="one", paths=["a.py"])
    await work("git", verb="commit", folder="one", message="one: begins")
    await work("edit", path="one/a.py", old="return 2", new="return 1 + 1")
    assert "+    return 1 + 1" in (await work("git", verb="diff", folder="one")).text
    await work("shell", command="git clone -q one two && cd two && git log --oneline | grep begins")


async def test_a_program_is_installed_and_tested(work: Call) -> None:
    """pip and pytest, from the index that this machine is configured for."""
    installed = await work(
        "shell",
        command="python3 -m venv venv && venv/bin/pip install -q pytest && "
        "venv/bin/pytest --version",
        limit_s=160,
    )
    assert not installed.untrusted, "a package index is no foreign text"
    await work("write", path="test_sum.py", content="def test_sum():\n    assert 1 + 1 == 2\n")
    assert "1 passed" in (await work("shell", command="venv/bin/pytest -q", limit_s=60)).text


async def test_a_package_for_node_is_installed_and_used(work: Call) -> None:
    await work("shell", command="npm install --no-audit --no-fund left-pad@1.3.0", limit_s=160)
    ran = await work("shell", command='node -e \'console.log(require("left-pad")(7, 3, "0"))\'')
    assert "007" in ran.text


async def test_an_allowed_page_is_read_and_marked(work: Call, site: str) -> None:
    read = await work("web_fetch", url=f"http://{site}/tides")
    assert "high water is at noon" in read.text
    assert site in read.untrusted


async def test_an_allowed_page_is_fetched_by_the_shell_and_marked(work: Call, site: str) -> None:
    ran = await work("shell", command=f"curl -sf http://{site}/tides | grep -c article")
    assert ran.untrusted
