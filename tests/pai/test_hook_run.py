"""Hooks really run: their input, their end, their deadline, and what is left of them."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from present import wait_for

from base.errors import SandboxError
from base.settings import Settings
from pai import hook_run
from pai.hook_answer import Ran
from pai.hook_run import Job, fire
from pai.hooks import Event, Hook, Verdict


def hook(command: str, limit_s: float | None = 20.0, trusted: bool = True, **more: Any) -> Hook:
    given = {"event": Event.SESSION_START, "place": "p", **more}
    return Hook(command=command, limit_s=limit_s, trusted=trusted, **given)


async def no_box(jobs: Sequence[Job]) -> Sequence[Ran]:
    raise AssertionError("nothing was to be boxed")


async def said(folder: Path, *hooks: Hook, box: Any = no_box, **settings: Any) -> Verdict:
    return await fire(Settings(home=folder / "home", **settings), hooks, {"a": "é"}, folder, box)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


async def test_it_reads_json_and_finds_the_folder_of_the_work(tmp_path: Path) -> None:
    keep = hook('cat > in.json; echo "$PWD|$CLAUDE_PROJECT_DIR|$AI_INFRA_HOOKS"')
    found = await said(tmp_path, keep)
    assert json.loads((tmp_path / "in.json").read_text()) == {
        "a": "é",
        "hook_event_name": "SessionStart",
    }
    assert found.context[0].text == f"{tmp_path}|{tmp_path}|{tmp_path}/home/hooks"
    assert found.context[0].trusted


async def test_no_secret_is_in_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "AI_INFRA_REDIS_URL", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "s3cret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    found = await said(tmp_path, hook("env"))
    assert "s3cret" not in found.context[0].text
    assert "LC_ALL=C.UTF-8" in found.context[0].text


async def test_without_a_workspace_it_runs_all_the_same(tmp_path: Path) -> None:
    assert (await said(tmp_path / "none", hook("pwd"))).context[0].text == "/"


async def test_at_the_deadline_all_that_it_started_is_killed(tmp_path: Path) -> None:
    began_s = time.monotonic()
    slow = hook("sleep 300 & echo $! > pid; echo $$ > own; wait", 0.5)
    found = await said(tmp_path, slow)
    assert time.monotonic() - began_s < 20
    assert found.notices[0].endswith("was killed at its deadline of 0.5 s")
    for name in ("pid", "own"):
        pid = int((tmp_path / name).read_text())
        wait_for(f"the end of {name}", lambda pid=pid: not alive(pid))


async def test_the_default_limit_is_a_setting_and_an_end_is_quick(tmp_path: Path) -> None:
    found = await said(tmp_path, hook("sleep 300", None), hook_s=0.3)
    assert found.notices[0].endswith("its deadline of 0.3 s")
    limits = []

    async def box(jobs: Sequence[Job]) -> Sequence[Ran]:
        limits.extend(one.limit_s for one in jobs)
        return [Ran(code=0) for _ in jobs]

    ends = {"event": Event.SESSION_END, "trusted": False}
    await said(tmp_path, hook("a", None, **ends), hook("b", 9.0, **ends), box=box)
    await said(tmp_path, hook("c", None, trusted=False), box=box)
    assert limits == [5.0, 9.0, 60.0]


async def test_what_a_hook_leaves_behind_holds_nothing_up(tmp_path: Path) -> None:
    began_s = time.monotonic()
    found = await said(tmp_path, hook("sleep 300 & echo $! > pid; echo done", 60))
    assert time.monotonic() - began_s < 20
    assert found.context[0].text == "done"
    pid = int((tmp_path / "pid").read_text())
    wait_for("the end of what it left", lambda: not alive(pid))


async def test_a_flood_is_read_to_its_end_and_cut(tmp_path: Path) -> None:
    found = await said(tmp_path, hook("head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2"))
    assert 10_000 <= len(found.context[0].text) < 10_100


async def test_a_hook_need_not_read_its_input(tmp_path: Path) -> None:
    due = [hook("echo hi")]
    big = {"prompt": "x" * 3_000_000}
    found = await fire(Settings(home=tmp_path), due, big, tmp_path, no_box)
    assert found.context[0].text == "hi"


async def test_all_run_at_once_and_answer_in_order(tmp_path: Path) -> None:
    """The first waits for the second: one after the other they would never end."""
    first = hook("while [ ! -e flag ]; do sleep 0.02; done; echo first")
    second = hook("echo second; touch flag")
    found = await said(tmp_path, first, second)
    assert [one.text for one in found.context] == ["first", "second"]


async def test_boxed_ones_go_together_and_keep_their_places(tmp_path: Path) -> None:
    seen: list[Job] = []

    async def box(jobs: Sequence[Job]) -> Sequence[Ran]:
        seen.extend(jobs)
        return [Ran(code=0, stdout=f"boxed {one.command}") for one in jobs]

    hooks = (hook("x", trusted=False), hook("echo own"), hook("y", trusted=False))
    found = await said(tmp_path, *hooks, box=box)
    assert [(one.text, one.trusted) for one in found.context] == [
        ("boxed x", False),
        ("own", True),
        ("boxed y", False),
    ]
    assert [one.command for one in seen] == ["x", "y"]
    assert json.loads(seen[0].stdin)["a"] == "é"
    assert seen[0].environment["CLAUDE_PROJECT_DIR"] == str(tmp_path)


@pytest.mark.parametrize("fault", ["raises", "too few", "breaks"])
def test_a_box_that_fails_is_a_failed_hook_and_no_more(tmp_path: Path, fault: str) -> None:
    async def box(jobs: Sequence[Job]) -> Sequence[Ran]:
        if fault == "raises":
            raise SandboxError("no bubblewrap here")
        if fault == "breaks":
            raise RuntimeError("odd")
        return []

    hooks = (hook("x", trusted=False), hook("echo own"))
    found = asyncio.run(said(tmp_path, *hooks, box=box))
    assert [one.text for one in found.context] == ["own"]
    assert found.notices[0].startswith("hook SessionStart `x`: did not run: ")


async def test_cancelled_it_leaves_nothing(tmp_path: Path) -> None:
    task = asyncio.create_task(said(tmp_path, hook("sleep 300 & echo $! > pid; wait", 300)))
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text().strip()):
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    wait_for("its end", lambda: not alive(int(pid.read_text())))


async def test_cancelled_at_any_moment_it_ends_at_once(tmp_path: Path) -> None:
    """While it starts, too: a child of it that holds the pipes is not waited for."""
    line = "exec -a hook-9182 sleep 300 & exec -a hook-9182 sleep 300"
    async with asyncio.timeout(60):
        for moment in range(40):
            task = asyncio.create_task(said(tmp_path, hook(line, 300)))
            await asyncio.sleep(moment / 2000)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    def left() -> list[int]:
        seen = (one.info["cmdline"] for one in psutil.process_iter(["cmdline"]))
        return [1 for words in seen if words and words[0] == "hook-9182"]

    wait_for("their end", lambda: not left())


async def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    await said(tmp_path, hook("true"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await said(tmp_path, hook("setsid sleep 2 & true"), hook("exit 2"))
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_what_cannot_be_started_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(hook_run.asyncio, "create_subprocess_exec", refuse)
    found = await said(tmp_path, hook("true"))
    assert "could not be started: [Errno 11]" in found.notices[0]
