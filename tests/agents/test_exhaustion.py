"""A task that takes all it can get: the machine stays well, the task ends or is cut, nothing is
left behind. Judged from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from agents.hands import Hands, ToolResult
from base.deadline import Deadline
from base.errors import SandboxError
from base.levels import Level, Levels

pytest_plugins = ["boxed"]
pytestmark = pytest.mark.xdist_group("exhaustion")  # one greedy task at a time

MIB = 1 << 20
#: Tight, so that a test that would break them is over soon.
TIGHT = {
    "memory_bytes": 400 * MIB,
    "processes": 80,
    "file_bytes": 300 * MIB,
    "open_files": 200,
    "scratch_bytes": 64 * MIB,
    "cpu_s": 120,
}

Run = Callable[..., Awaitable[str]]


@pytest.fixture(params=(0, 1, 2), ids=lambda rank: f"level{rank}")
def level(request: pytest.FixtureRequest) -> Level:
    shipped = Levels.load().get(request.param)
    return shipped.model_copy(update={"limits": shipped.limits.model_copy(update=TIGHT)})


@pytest.fixture
async def tight(workspace: Path, hands_user: str | None, level: Level) -> AsyncIterator[Hands]:
    opened = await Hands.open(workspace=workspace, user=hands_user, level=level)
    yield opened
    await opened.close()


@pytest.fixture
def run(tight: Hands) -> Run:
    """Run a script; a sandbox that is killed for it is an answer too."""

    async def _run(script: str, limit_s: int = 20) -> str:
        given = {"command": script, "limit_s": limit_s}
        try:
            result: ToolResult = await tight.call(
                "shell", given, deadline=Deadline.after(limit_s + 5)
            )
        except SandboxError as error:
            return f"SANDBOX: {error}"
        return result.text

    return _run


async def _peak(work: Awaitable[str], driver: int = 0) -> tuple[str, int, int]:
    """What the work answered, the least memory free meanwhile, and the most that descended from
    the sandbox's driver.
    """
    task = asyncio.ensure_future(work)
    free, most = psutil.virtual_memory().available, 0
    while not task.done():
        await asyncio.sleep(0.05)
        free = min(free, psutil.virtual_memory().available)
        if driver:
            with contextlib.suppress(psutil.Error):
                most = max(most, len(psutil.Process(driver).children(recursive=True)))
    return task.result(), free, most


async def test_a_fork_bomb_stays_small(run: Run, tight: Hands) -> None:
    bomb = run("bomb() { bomb | bomb & }; bomb; sleep 3; echo over", 8)
    text, _, most = await _peak(bomb, tight._box.process.pid)
    assert 10 < most < TIGHT["processes"] + 20, text


async def test_one_process_takes_no_more_memory_than_allowed(run: Run) -> None:
    before = psutil.virtual_memory().available
    text, free, _ = await _peak(run("python3 -c 'x = bytearray(3 << 30); print(len(x))'"))
    assert str(3 << 30) not in text
    assert before - free < TIGHT["memory_bytes"] + 700 * MIB


async def test_many_processes_take_no_more_memory_together(run: Run) -> None:
    before = psutil.virtual_memory().available
    grow = "import time; x = bytearray(150 << 20); time.sleep(6)"
    script = f"for i in $(seq 20); do python3 -c '{grow}' & done; wait; echo survived"
    text, free, _ = await _peak(run(script))
    assert "survived" not in text.splitlines()
    assert before - free < TIGHT["memory_bytes"] + 1500 * MIB, text


async def test_scratch_space_is_bounded(run: Run) -> None:
    before = psutil.virtual_memory().available
    text, free, _ = await _peak(
        run("for d in /tmp /dev/shm /run /var/tmp $HOME; do head -c 2G /dev/zero > $d/fill; done")
    )
    assert before - free < 1200 * MIB, text


async def test_a_file_has_a_largest_size(run: Run, workspace: Path) -> None:
    await run("head -c 3G /dev/zero > big")
    size = (workspace / "big").stat().st_size if (workspace / "big").exists() else 0
    assert size <= TIGHT["file_bytes"]


async def test_two_gigabytes_of_output_are_counted_and_left_out(run: Run, workspace: Path) -> None:
    before = shutil.disk_usage(workspace).free
    text = await run("head -c 2G /dev/zero | tr '\\0' x", 60)
    assert len(text.encode()) <= 64_000
    assert "2,147,483,648" in text
    assert before - shutil.disk_usage(workspace).free < 100 * MIB


async def test_open_files_are_limited(run: Run) -> None:
    text = await run(
        "python3 -c '\nfiles = []\nwhile True: files.append(open(\"/dev/null\"))' 2>&1 "
        "| tail -n 1; ulimit -n"
    )
    assert "Too many open files" in text
    assert text.split()[-1] == str(TIGHT["open_files"])


async def test_endless_work_is_cut_by_its_cpu_time(
    workspace: Path, hands_user: str | None, level: Level
) -> None:
    few = level.limits.model_copy(update={"cpu_s": 3})
    level = level.model_copy(update={"limits": few})
    hands = await Hands.open(workspace=workspace, user=hands_user, level=level)
    try:
        given = {"command": "python3 -c 'while True: pass'; echo status $?", "limit_s": 60}
        began_s = time.monotonic()
        try:
            text = (await hands.call("shell", given, deadline=Deadline.after(65))).text
        except SandboxError as error:
            text = str(error)
        assert "status 137" in text or "processor time" in text, text
        assert time.monotonic() - began_s < 45
    finally:
        await hands.close()


async def test_a_command_is_cut_by_the_wall_clock(run: Run) -> None:
    text = await run("sleep 60; echo over", 1)
    assert "over" not in text.splitlines()


async def test_nothing_is_left_after_the_end(run: Run, tight: Hands) -> None:
    mark = f"60{time.time_ns() % 10_000_000}"
    await run(
        f"sleep {mark} & setsid sleep {mark} & "
        f"(trap '' TERM HUP INT; nohup sleep {mark} & disown); "
        f"python3 -c 'import os; os.fork() or (os.setsid(), os.fork() or "
        f'os.execvp("sleep", ["sleep", "{mark}"]))\' & sleep 0.5'
    )
    assert _sleeping(mark)
    await tight.close()
    ends_s = time.monotonic() + 5
    while _sleeping(mark) and time.monotonic() < ends_s:
        await asyncio.sleep(0.05)
    assert _sleeping(mark) == []


def _sleeping(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if process.info["cmdline"] and mark in process.info["cmdline"]:
            found.append(process.pid)
    return found


async def test_connections_cost_few_processes(hands: Hands) -> None:
    """Each is relayed by a process on both sides of the sandbox, outside of its limits."""
    code = (
        "import socket, time; "
        "k = [socket.create_connection(('127.0.0.1', 3128)) for _ in range(300)]; "
        "time.sleep(2); print(len(k), 'open')"
    )
    calling = asyncio.create_task(
        hands.call("shell", {"command": f'python3 -c "{code}"'}, deadline=Deadline.after(30))
    )
    most = 0
    while not calling.done():
        await asyncio.sleep(0.2)
        found = psutil.process_iter(["name"])
        most = max(most, sum(one.info["name"] == "socat" for one in found))
    assert "300 open" in calling.result().text
    assert 100 < most < 300
    again = (
        "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'GET x HTTP/1.1\\r\\n\\r\\n' >&3; head -c 4 <&3"
    )
    told = await hands.call("shell", {"command": again}, deadline=Deadline.after(10))
    assert told.text.endswith("HTTP")
