"""Each probe against the real sandbox: passed, failed, and the honest third."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.hands import Hands
from agents.probe import EVIDENCE_MAX_CHARS, check, off_loopback
from base.deadline import Deadline
from base.errors import ModelError, StaleLeaseError
from base.levels import Levels
from base.messages import Checked, Criterion, Probe, Verdict

pytest_plugins = ["boxed"]

LEVELS = Levels.load()
PASSED, FAILED, UNMEASURED = Verdict.PASSED, Verdict.FAILED, Verdict.UNMEASURED


async def _no_judge(criterion: Criterion) -> tuple[bool | None, str]:
    return None, "no judge"


async def measure(
    hands: Hands | None,
    workspace: Path,
    within_s: float = 20.0,
    judge: Any = _no_judge,
    rank: int = 1,
    network: tuple[str, ...] = (),
    **probe: Any,
) -> Checked:
    criterion = Criterion(id="ISC-1", text="it holds", probe=Probe(**probe))
    level = LEVELS.get(rank)
    level = level.model_copy(update={"network": (*level.network, *network)})
    checked = await check(
        criterion,
        hands,
        workspace=workspace,
        level=level,
        judge=judge,
        deadline=Deadline.after(within_s),
    )
    assert (checked.id, checked.text) == ("ISC-1", "it holds")
    assert 0 < len(checked.evidence) <= EVIDENCE_MAX_CHARS
    assert checked.evidence.isprintable()
    return checked


@pytest.mark.parametrize(
    ("probe", "verdict", "evidence"),
    [
        ({"kind": "command", "command": "test -f a.txt && echo yes"}, PASSED, "exit code 0: yes"),
        ({"kind": "command", "command": "cat a.txt", "pattern": "^two$"}, PASSED, "has 'two'"),
        (
            {"kind": "command", "command": "cat a.txt", "pattern": "^six$"},
            FAILED,
            "not match ^six$",
        ),
        (
            {"kind": "command", "command": "echo two; exit 3", "pattern": "two"},
            FAILED,
            "code 3: two",
        ),
        ({"kind": "command", "command": "no-such-program"}, FAILED, "code 127"),
        ({"kind": "command", "command": "kill -9 $$"}, FAILED, "killed by signal 9"),
        ({"kind": "command", "command": "echo $LEFT; pwd; test -z $LEFT"}, PASSED, "/workspace"),
        ({"kind": "command", "command": "true", "pattern": "("}, UNMEASURED, "not a regular expr"),
        (
            {"kind": "command", "command": "printf 'a%.0s' {1..60}; echo !", "pattern": "^(a+)+$"},
            UNMEASURED,
            "took too long",
        ),
        ({"kind": "command", "command": "yes '\x1b[31mred' | head -c 99999"}, PASSED, "red"),
        ({"kind": "command"}, UNMEASURED, "the command probe names no command"),
        ({"kind": "file", "path": "a.txt"}, PASSED, "exists (8 bytes)"),
        ({"kind": "file", "path": "sub"}, PASSED, "exists (folder)"),
        ({"kind": "file", "path": "none"}, FAILED, "No such file"),
        ({"kind": "file", "path": "/etc/passwd"}, FAILED, "outside the workspace"),
        ({"kind": "file", "path": "link"}, FAILED, "outside the workspace"),
        ({"kind": "file"}, UNMEASURED, "names no path"),
        ({"kind": "pattern", "path": "a.txt", "pattern": "tw."}, PASSED, "a.txt line 2: 'two'"),
        ({"kind": "pattern", "path": "a.txt", "pattern": "six"}, FAILED, "does not match six"),
        ({"kind": "pattern", "path": "none", "pattern": "x"}, FAILED, "No such file"),
        ({"kind": "pattern", "path": "link", "pattern": "root"}, FAILED, "outside the workspace"),
        ({"kind": "pattern", "path": "a.txt", "pattern": "["}, UNMEASURED, "not a regular expr"),
        ({"kind": "pattern", "path": "evil", "pattern": "^(a+)+$"}, UNMEASURED, "time limit"),
        ({"kind": "pattern", "path": "a.txt"}, UNMEASURED, "names no pattern"),
        ({"kind": "judge"}, UNMEASURED, "names no question"),
        ({"kind": "judge", "question": "?"}, UNMEASURED, "no judge"),
    ],
)
async def test_every_kind_and_verdict(
    hands: Hands, workspace: Path, call, probe: dict[str, Any], verdict: Verdict, evidence: str
) -> None:
    (workspace / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    (workspace / "evil").write_text("a" * 60 + "!", encoding="utf-8")
    (workspace / "sub").mkdir()
    (workspace / "link").symlink_to("/etc/passwd")
    await call("shell", command="export LEFT=over; cd sub; true() { false; }; export -f true")
    checked = await measure(hands, workspace, **probe)
    assert checked.verdict == verdict, checked.evidence
    assert evidence in checked.evidence
    assert (await call("shell", command="echo $LEFT")).text.endswith("over")


@pytest.mark.parametrize("kind", ["command", "file", "pattern"])
async def test_without_a_living_sandbox_nothing_is_passed(
    hands: Hands, workspace: Path, kind: str
) -> None:
    (workspace / "a").write_text("x", encoding="utf-8")
    probe = {
        "kind": kind,
        "command": "true",
        "path": "a",
        "pattern": "x" if kind != "command" else None,
    }
    none = await measure(None, workspace, **probe)
    assert none.verdict == UNMEASURED
    assert "no sandbox" in none.evidence
    assert (await measure(hands, workspace, **probe)).verdict == PASSED
    late = await measure(hands, workspace, within_s=-1, **probe)
    assert (late.verdict, late.evidence) == (UNMEASURED, "not run: the deadline had passed")
    elsewhere = await measure(hands, workspace.parent, **probe)
    assert elsewhere.verdict == UNMEASURED
    await hands.close()
    dead = await measure(hands, workspace, **probe)
    assert dead.verdict == UNMEASURED
    assert "the sandbox is gone" in dead.evidence


async def test_a_command_that_does_not_end_is_unmeasured(hands: Hands, workspace: Path) -> None:
    checked = await measure(hands, workspace, within_s=0.5, kind="command", command="sleep 60")
    assert checked.verdict == UNMEASURED
    assert "killed after" in checked.evidence


async def test_a_sandbox_that_dies_in_the_probe_is_unmeasured(
    hands: Hands, workspace: Path
) -> None:
    async def kill() -> None:
        while not (workspace / "begun").exists():
            await asyncio.sleep(0.02)
        os.kill(hands._process.pid, 9)

    import asyncio

    killer = asyncio.create_task(kill())
    checked = await measure(hands, workspace, kind="command", command="touch begun; sleep 60")
    await killer
    assert checked.verdict == UNMEASURED
    assert "the sandbox is gone" in checked.evidence


async def test_the_judge_is_asked_and_its_failure_is_no_verdict(workspace: Path) -> None:
    async def yes(criterion: Criterion) -> tuple[bool | None, str]:
        return True, f"asked {criterion.probe.question}\nand\x1b[31m more " + "x" * 500

    async def broken(criterion: Criterion) -> tuple[bool | None, str]:
        raise ModelError("the provider is down")

    async def stale(criterion: Criterion) -> tuple[bool | None, str]:
        raise StaleLeaseError("stop")

    passed = await measure(None, workspace, judge=yes, kind="judge", question="good?")
    assert passed.verdict == PASSED
    assert passed.evidence.startswith("asked good? and")
    down = await measure(None, workspace, judge=broken, kind="judge", question="good?")
    assert (down.verdict, down.evidence) == (UNMEASURED, "the provider is down")
    with pytest.raises(StaleLeaseError):
        await measure(None, workspace, judge=stale, kind="judge", question="good?")


@pytest.fixture
def site() -> Iterator[tuple[int, list[str]]]:
    """A web server on this machine's loopback, and the paths it was asked for."""
    asked: list[str] = []

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302 if self.path == "/away" else 200)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/followed")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, asked
    server.shutdown()
    server.server_close()


async def test_http_of_this_machine(
    hands: Hands, workspace: Path, site: tuple[int, list[str]]
) -> None:
    """A service outside the sandbox is asked where the level names it."""
    port, asked = site
    hosts = (f"127.0.0.1:{port}", f"localhost:{port}", "127.0.0.1:1")
    for use in (hands, None):
        url = f"http://127.0.0.1:{port}/x?y=1"
        ok = await measure(use, workspace, network=hosts, kind="http", url=url)
        assert ok.verdict == PASSED
        assert "status 200, 200 wanted" in ok.evidence
    assert asked == ["/x?y=1", "/x?y=1"]
    away = {"kind": "http", "url": f"http://localhost:{port}/away", "network": hosts}
    assert (await measure(hands, workspace, **away)).verdict == FAILED
    moved = await measure(hands, workspace, **away, expect_status=302)
    assert moved.verdict == PASSED
    assert "/followed" not in asked
    url = "http://127.0.0.1:1/"
    closed = await measure(hands, workspace, network=hosts, kind="http", url=url)
    assert closed.verdict == FAILED
    assert "ConnectError" in closed.evidence


@pytest.mark.parametrize("rank", [0, 1, 2])
async def test_a_service_that_no_level_names_is_never_asked(
    hands: Hands, workspace: Path, site: tuple[int, list[str]], rank: int
) -> None:
    """A probe is what the model wishes: it must not reach what its hands cannot."""
    port, asked = site
    for use in (hands, None):
        url = f"http://127.0.0.1:{port}/delete?all=1"
        told = await measure(use, workspace, rank=rank, kind="http", url=url)
        assert (told.verdict, "not on the list" in told.evidence) == (UNMEASURED, True)
    assert asked == []


async def test_at_the_lowest_level_nothing_is_run(hands: Hands, workspace: Path) -> None:
    command = await measure(hands, workspace, rank=0, kind="command", command="true")
    assert (command.verdict, "level restricted" in command.evidence) == (UNMEASURED, True)


async def test_http_of_a_server_that_the_task_started(hands: Hands, workspace: Path, call) -> None:
    (workspace / "page").write_text("x", encoding="utf-8")
    await call(
        "shell", command="python3 -m http.server -b 127.0.0.1 8765 >/dev/null 2>&1 & sleep 1"
    )
    ok = await measure(hands, workspace, kind="http", url="http://127.0.0.1:8765/page")
    assert (ok.verdict, ok.evidence) == (PASSED, "in the sandbox: status 200, 200 wanted")
    none = await measure(hands, workspace, kind="http", url="http://127.0.0.1:8765/none")
    assert (none.verdict, none.evidence) == (FAILED, "in the sandbox: status 404, 200 wanted")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "http://169.254.169.254/latest",
        "https://127.0.0.1/",
        "file:///etc/passwd",
        "http://127.0.0.1.example.com/",
        "http://127.0.0.1@example.com/",
        "http://user:pw@127.0.0.1/",
        "http://0.0.0.0/",
        "http://[::ffff:10.0.0.1]/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://127.0.0.1/\r\nX: y",
        "http://127.0.0.1\\@example.com/",
        "//127.0.0.1/",
        "http://",
        "127.0.0.1:80",
    ],
)
async def test_http_goes_nowhere_else(hands: Hands, workspace: Path, url: str) -> None:
    checked = await measure(hands, workspace, kind="http", url=url)
    assert checked.verdict == UNMEASURED


def test_loopback_is_told_from_the_rest() -> None:
    for url in ("http://127.0.0.1", "http://localhost:80/a?b=c#d", "http://[::1]:8000/"):
        assert off_loopback(url) is None
