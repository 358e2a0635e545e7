"""The sandbox of hooks, and what no sandbox may touch: the owner's hooks and goals."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from homes import proven
from present import wait_for

from agents.hands import ToolResult
from agents.hook_run import HookHands
from base.levels import Levels
from base.settings import Settings
from pai import hook_run, telos
from pai.hook_answer import Ran
from pai.hook_run import Job
from pai.hooks import Event, Hook

pytest_plugins = ["boxed"]

ROOT = Path(__file__).resolve().parents[2]
Call = Callable[..., ToolResult]


@pytest.fixture
def settings(ground: Path, hands_user: str | None) -> Settings:
    """A home with scripts, goals and a settings file."""
    found = proven()
    found.prepare()
    telos.prepare(found)
    (found.config / "settings.json").write_text('{"hooks": {}, "mark": "s3cret"}')
    (hook_run.folder(found) / "say.sh").write_text("echo from the script\n")
    return found


@pytest.fixture
async def box(settings: Settings, workspace: Path) -> AsyncIterator[HookHands]:
    one = HookHands(settings, workspace, Levels.load().get("standard"))
    yield one
    await one.close()


def job(command: str, stdin: str = "", limit_s: float = 20.0, **environment: str) -> Job:
    return Job(command=command, stdin=stdin, limit_s=limit_s, environment=environment)


def with_word(word: str) -> list[int]:
    return [
        one.pid
        for one in psutil.process_iter(["cmdline"])
        if any(word in part for part in one.info["cmdline"] or ())
    ]


async def test_hands_neither_read_nor_write_what_is_the_owners(
    settings: Settings, call: Callable[..., Call]
) -> None:
    paths = [
        telos.folder(settings) / "mission.md",
        settings.config / "settings.json",
        hook_run.folder(settings) / "say.sh",
    ]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        read = await call("shell", command=f"cat {path}; ls {path.parent}")
        assert not read.ok
        assert "No such file" in read.text
        assert not (await call("read", path=str(path))).ok
        assert not (await call("write", path=str(path), content="mine")).ok
        await call("shell", command=f"mkdir -p {path.parent}; echo mine > {path}; rm -f {path}")
    assert [path.read_bytes() for path in paths] == before
    assert sorted(one.name for one in telos.folder(settings).iterdir()) == sorted(
        f"{name}.md" for name in telos.NAMES
    )


async def test_a_box_runs_hooks_at_once_each_with_its_own_input_and_end(
    box: HookHands, settings: Settings, workspace: Path
) -> None:
    ran = await box.run([
        job("while [ ! -e flag ]; do sleep 0.02; done; cat", stdin="ä" * 100_000),
        job("echo out; echo err >&2; touch flag; exit 2"),
        job("sleep 300", limit_s=0.5),
        job('. "$AI_INFRA_HOOKS/say.sh"; echo "$CLAUDE_PROJECT_DIR"; pwd', **hook_run.environment(
            settings, workspace
        )),
        job(f"cat {settings.config}/settings.json"),
        job(f"touch {hook_run.folder(settings)}/x || exit 7"),
        job("echo $$; kill -9 $$"),
        job("(setsid sleep 7654321 &); echo left"),
    ])  # fmt: skip
    read, blocked, late, script, spied, planted, killed, left = ran
    assert (read.code, set(read.stdout) >= {"ä"}) == (0, True)
    assert len(read.stdout.encode()) <= 32_000
    assert blocked == Ran(code=2, stdout="out\n", stderr="err\n")
    assert (late.code, late.fault) == (None, "was killed at its deadline of 0.5 s")
    assert script.stdout == f"from the script\n{workspace}\n{workspace}\n"
    assert (spied.code, spied.stdout) == (1, "")
    assert planted.code == 7
    assert killed.code == -9
    assert left.stdout == "left\n"
    assert with_word("7654321") == []
    assert (workspace / "flag").exists()
    again = await box.run([job("echo again; ls /tmp")])
    assert again[0].stdout.startswith("again\n")


async def test_at_level_0_a_hook_only_looks(settings: Settings, workspace: Path) -> None:
    (workspace / "a.txt").write_text("hello")
    (workspace / "a.txt").chmod(0o644)
    box = HookHands(settings, workspace, Levels.load().get("restricted"))
    try:
        ran = await box.run([
            job("cat a.txt"),
            job("echo x > a.txt"),
            job("(exec 3<>/dev/tcp/127.0.0.1/22) || exit 9"),
            job("python3 -c 'import json; print(json.dumps(1))'"),
        ])  # fmt: skip
    finally:
        await box.close()
    assert [one.code for one in ran] == [0, 1, 9, 0]
    assert (workspace / "a.txt").read_text() == "hello"
    assert box.reached == ""


async def test_cancelled_a_box_leaves_nothing_and_can_be_used_again(box: HookHands) -> None:
    await box.run([job("true")])
    task = asyncio.create_task(box.run([job("exec sleep 7654322", limit_s=300)]))
    while not with_word("7654322"):
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    wait_for("the hook's end", lambda: not with_word("7654322"))
    assert (await box.run([job("echo ok")]))[0].stdout == "ok\n"


async def test_elsewhere_is_a_process_that_opens_a_sandbox(
    settings: Settings, workspace: Path
) -> None:
    (workspace / "a.txt").write_text("hello")
    (workspace / "a.txt").chmod(0o644)
    boxed = Hook(event=Event.USER_PROMPT_SUBMIT, command="cat; cat a.txt; touch b", place="p")
    guard = Hook(
        event=Event.USER_PROMPT_SUBMIT, command="grep -q bread && { echo no >&2; exit 2; }",
        place="p",
    )  # fmt: skip
    box = hook_run.elsewhere(settings, workspace)
    said = await hook_run.fire(settings, [boxed, guard], {"prompt": "bread"}, workspace, box)
    assert said.reason == "no"
    assert "Read-only file system" in said.notices[0]
    assert not (workspace / "b").exists()


async def test_where_no_sandbox_opens_hooks_are_only_shown(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Path("/usr/share")  # part of the system: no workspace
    box = hook_run.elsewhere(settings, nowhere)
    due = [Hook(event=Event.USER_PROMPT_SUBMIT, command="exit 2", place="p")]
    said = await hook_run.fire(settings, due, {}, nowhere, box)
    assert said.block == ()
    assert "did not run: no workspace: /usr/share is part of the system" in said.notices[0]


@pytest.mark.parametrize("text", ["", '{"workspace": "/tmp", "jobs": [{"a": 1}]}'])
def test_what_is_no_request_is_refused(ground: Path, text: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "agents", "--hook"],
        input=text.encode(), capture_output=True, check=False, cwd=ROOT,
        env=os.environ | {"AI_INFRA_HOME": str(ground / "home")},
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr.decode().startswith("no request: ")
    assert ran.stdout == b""
