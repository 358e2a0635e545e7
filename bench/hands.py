"""What a task's sandbox costs: its start, each command in it, and the memory of its driver.

Beside it, in the same run and in turns: a bare bubblewrap around each command, and no sandbox.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import psutil

from agents import sandbox
from agents.hands import Hands
from base.deadline import Deadline
from base.levels import Levels
from base.settings import load

COMMAND = "true"


async def main(rounds: int, commands: int) -> None:
    ground = Path(tempfile.mkdtemp(prefix="ai-bench-", dir="/tmp"))
    ground.chmod(0o755)
    (ground / "home").mkdir(mode=0o755)
    os.environ["AI_INFRA_HOME"] = str(ground / "home")
    settings = load()
    who = sandbox.account(settings.hands_user)
    workspace = ground / "work"
    workspace.mkdir()
    if who.switch:
        os.chown(workspace, who.uid, who.gid)
    level = Levels.load().get("standard")
    starts: list[float] = []
    inside: list[float] = []
    boxed: list[float] = []
    bare: list[float] = []
    driver_mb = family_mb = 0.0
    try:
        first = await _open(workspace, settings.hands_user, level)
        first_s = first[1]
        await first[0].close()
        for _ in range(rounds):
            hands, took_s = await _open(workspace, settings.hands_user, level)
            starts.append(took_s)
            for _ in range(commands):
                inside.append(await _call(hands))
                boxed.append(_run(_bubblewrap(), who))
                bare.append(_run(["/bin/bash", "-c", COMMAND], who))
            driver = psutil.Process(hands._process.pid)
            driver_mb = driver.memory_info().rss / 1e6
            family_mb = sum(one.memory_info().rss for one in driver.children(recursive=True)) / 1e6
            await hands.close()
    finally:
        shutil.rmtree(ground, ignore_errors=True)
    print(f"{'':34}{'median':>10}{'slowest':>10}")
    for name, values, unit in (
        ("start of a task's hands", starts, 1.0),
        ("a command in them", inside, 1e3),
        ("a bare bubblewrap a command", boxed, 1e3),
        ("no sandbox", bare, 1e3),
    ):
        shown = "s" if unit == 1.0 else "ms"
        median, slowest = statistics.median(values) * unit, max(values) * unit
        print(f"{name:34}{median:>8.2f} {shown:<2}{slowest:>7.2f} {shown}")
    print(f"first start, indexes unknown        {first_s:.2f} s")
    print(f"resident: driver {driver_mb:.0f} MB, all else of the sandbox {family_mb:.0f} MB\n")
    added_ms = (statistics.median(inside) - statistics.median(bare)) * 1e3
    print(f"figure hands.start_s {statistics.median(starts):.3f} s")
    print(f"figure hands.command_ms {statistics.median(inside) * 1e3:.2f} ms")
    print(f"figure hands.command_added_ms {added_ms:.2f} ms")
    print(f"figure hands.bwrap_command_ms {statistics.median(boxed) * 1e3:.2f} ms")
    print(f"figure hands.driver_rss_mb {driver_mb:.0f} MB")


async def _open(workspace: Path, user: str | None, level) -> tuple[Hands, float]:  # type: ignore[no-untyped-def]
    begun_s = time.perf_counter()
    hands = await Hands.open(workspace=workspace, user=user, level=level)
    return hands, time.perf_counter() - begun_s


async def _call(hands: Hands) -> float:
    begun_s = time.perf_counter()
    result = await hands.call("shell", {"command": COMMAND}, deadline=Deadline.after(30))
    took_s = time.perf_counter() - begun_s
    assert result.ok, result.text
    return took_s


def _run(argv: list[str], who: sandbox.Account) -> float:
    become = {"user": who.uid, "group": who.gid, "extra_groups": []} if who.switch else {}
    begun_s = time.perf_counter()
    subprocess.run(argv, check=True, cwd="/", capture_output=True, **become)  # type: ignore[call-overload]
    return time.perf_counter() - begun_s


def _bubblewrap() -> list[str]:
    argv = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/"]
    return [
        *argv,
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "/bin/bash",
        "-c",
        COMMAND,
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--commands", type=int, default=20)
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.commands))
