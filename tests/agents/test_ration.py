"""What a whole sandbox takes: summed over its processes, and ended past the limit with a reason."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from present import wait_for

from agents import ration
from agents.hands import Hands
from base.deadline import Deadline
from base.errors import SandboxError
from base.levels import Levels

pytest_plugins = ["boxed"]

STANDARD = Levels.load().get("standard")
MIB = 1 << 20
#: Each stays below what one process may have; together they do not.
MANY = (
    "for i in 1 2 3 4; do "
    "python3 -c 'import time; b = bytearray(80 << 20); time.sleep(30)' & done; wait"
)


async def _hands(workspace: Path, user: str | None, **limits: int) -> Hands:
    level = STANDARD.model_copy(update={"limits": STANDARD.limits.model_copy(update=limits)})
    return await Hands.open(workspace=workspace, user=user, level=level)


async def test_memory_counts_over_all_processes(workspace: Path, hands_user: str | None) -> None:
    hands = await _hands(workspace, hands_user, memory_bytes=200 * MIB)
    try:
        with pytest.raises(SandboxError, match=r"it used \d+ MB of memory, 210 MB are its limit"):
            await hands.call("shell", {"command": MANY}, deadline=Deadline.after(30))
        wait_for("the end", lambda: not Path(f"/proc/{hands._box.pid}").exists())
    finally:
        await hands.close()


@pytest.mark.parametrize(
    "code",
    [
        "import mmap; m = mmap.mmap(-1, 600 << 20); [m.write(bytes(1 << 20)) for _ in range(600)]",
        "import os; [os.write(os.memfd_create('x'), bytes(100 << 20)) for _ in range(6)]",
    ],
    ids=["shared", "file without a name"],
)
async def test_memory_that_is_no_process_own_counts(
    workspace: Path, hands_user: str | None, code: str
) -> None:
    hands = await _hands(workspace, hands_user, memory_bytes=200 * MIB)
    try:
        command = f'python3 -c "{code}; import time; time.sleep(3)"'
        with pytest.raises(SandboxError, match=r"it used \d+ MB of memory, 210 MB are its limit"):
            await hands.call("shell", {"command": command}, deadline=Deadline.after(30))
    finally:
        await hands.close()


async def test_memory_that_many_share_counts_once(workspace: Path, hands_user: str | None) -> None:
    """Four processes that use the same 100 MB are below 200 MB."""
    hands = await _hands(workspace, hands_user, memory_bytes=200 * MIB)
    code = (
        "import mmap, os, time; m = mmap.mmap(-1, 100 << 20); "
        "[m.write(bytes(1 << 20)) for _ in range(100)]; "
        "os.fork(); os.fork(); m[::4096]; time.sleep(1.5); print('fine')"
    )
    try:
        told = await hands.call(
            "shell", {"command": f'python3 -c "{code}"'}, deadline=Deadline.after(30)
        )
    finally:
        await hands.close()
    assert told.text.endswith("fine")


@pytest.mark.parametrize(
    ("floor", "reason"),
    [
        ("MEMORY_FLOOR_BYTES", "the machine is short of memory"),
        ("_FILES_FLOOR", "more files fit on it"),
    ],
)
async def test_what_the_machine_has_left(
    workspace: Path,
    hands_user: str | None,
    monkeypatch: pytest.MonkeyPatch,
    floor: str,
    reason: str,
) -> None:
    hands = await _hands(workspace, hands_user)
    monkeypatch.setattr(ration, floor, 1 << 60)
    try:
        with pytest.raises(SandboxError, match=reason):
            await hands.call("shell", {"command": "sleep 30"}, deadline=Deadline.after(60))
    finally:
        await hands.close()


async def test_the_control_one_process_below_the_limit_is_let_be(
    workspace: Path, hands_user: str | None
) -> None:
    hands = await _hands(workspace, hands_user, memory_bytes=200 * MIB)
    try:
        command = (
            "python3 -c \"import time; b = bytearray(80 << 20); time.sleep(2); print('fine')\""
        )
        told = await hands.call("shell", {"command": command}, deadline=Deadline.after(30))
    finally:
        await hands.close()
    assert told.text.endswith("fine")


async def test_processor_time_counts_over_all_processes(
    workspace: Path, hands_user: str | None
) -> None:
    hands = await _hands(workspace, hands_user, cpu_s=3)
    try:
        one = "import time\nwhile time.process_time() < 1: pass"
        spin = f"for i in 1 2 3 4 5 6 7 8; do python3 -c '{one}'; done"
        with pytest.raises(SandboxError, match="processor time, 3 s are its limit"):
            await hands.call("shell", {"command": spin}, deadline=Deadline.after(60))
    finally:
        await hands.close()


async def test_a_full_disk_ends_the_hands(
    workspace: Path, hands_user: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = await _hands(workspace, hands_user)
    monkeypatch.setattr(ration, "DISK_FLOOR_BYTES", 1 << 60)
    try:
        with pytest.raises(SandboxError, match="the disk of the workspace is full"):
            await hands.call("shell", {"command": "sleep 30"}, deadline=Deadline.after(60))
    finally:
        await hands.close()


def test_what_this_process_takes() -> None:
    memory_bytes, cpu_s = ration.taken(os.getpid())
    held = bytearray(os.urandom(1 << 20) * 50)
    until_s = time.process_time() + 0.2
    while time.process_time() < until_s:
        pass
    more_bytes, more_s = ration.taken(os.getpid())
    assert more_bytes - memory_bytes > 40 * MIB
    assert more_s - cpu_s >= 0.1
    assert len(held) == 50 << 20
    assert ration.taken(2**22 + 1) == (0, 0.0)


async def test_the_look_costs_little(workspace: Path, hands_user: str | None) -> None:
    hands = await _hands(workspace, hands_user)
    try:
        await asyncio.sleep(0.1)
        begun_s = time.process_time()
        for _ in range(20):
            ration.taken(hands._box.pid)
        each_s = (time.process_time() - begun_s) / 20
    finally:
        await hands.close()
    assert each_s < 0.02
