"""The agents' tmux server as a unit has it: a real one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from present import need, wait_for

from supervisor.windows import Presence, Program, Windows


class Unit:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "tmux.sock"
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told.bind(str(folder / "notify"))
        self.told.settimeout(15)
        env = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "40000000"}
        line = [sys.executable, "-m", "supervisor.screen", str(self.socket), "nobody", str(folder)]
        self.process = subprocess.Popen(line, env=env)

    def windows(self) -> Windows:
        return Windows(self.socket, "ai-infrastructure", self.folder)


@pytest.fixture
def unit(short_tmp: Path) -> Iterator[Unit]:
    need("tmux")
    folder = short_tmp / f"screen-{time.monotonic_ns()}"
    folder.mkdir()
    made = Unit(folder)
    yield made
    if made.process.poll() is None:
        made.process.kill()
    made.process.wait(10)
    made.told.close()
    subprocess.run(["tmux", f"-S{made.socket}", "kill-server"], check=False, capture_output=True)


async def test_the_server_waits_for_the_watchdog_and_outlives_its_windows(unit: Unit) -> None:
    assert unit.told.recv(200).startswith(b"READY=1")
    assert unit.told.recv(200) == b"WATCHDOG=1"
    windows = unit.windows()
    assert (await windows.look()).presence is Presence.ABSENT
    await windows.open(Program(name="one", command=("sh", "-c", "env > env; exec sleep 60")))
    sight = await windows.look()
    assert sight.presence is Presence.ALIVE
    # A bare `tmux attach` of the account finds it, and windows inherit nothing of systemd's.
    bare = ["tmux", "list-windows", "-t", "ai-infrastructure", "-F", "#W"]
    env = {**os.environ, "TMUX_TMPDIR": str(unit.folder)}
    assert subprocess.check_output(bare, env=env, text=True) == "one\n"
    wait_for("the window's environment", (unit.folder / "env").exists)
    assert "NOTIFY_SOCKET" not in (unit.folder / "env").read_text()
    await windows.close()
    assert (await windows.look()).presence is Presence.ABSENT
    assert unit.process.poll() is None


async def test_asked_to_end_it_lets_what_runs_end_first(unit: Unit) -> None:
    assert unit.told.recv(200).startswith(b"READY=1")
    script = (
        "trap 'sleep 0.5; echo drained > drained; exit 0' TERM;"
        " touch up; while :; do sleep 0.1; done"
    )
    await unit.windows().open(Program(name="agent", command=("sh", "-c", script)))
    wait_for("the agent", (unit.folder / "up").exists)
    unit.process.send_signal(signal.SIGTERM)
    assert unit.process.wait(20) == 0
    assert (unit.folder / "drained").read_text() == "drained\n"


async def test_a_server_that_is_killed_ends_the_unit(unit: Unit) -> None:
    assert unit.told.recv(200).startswith(b"READY=1")
    subprocess.run(["tmux", f"-S{unit.socket}", "kill-server"], check=True)
    assert unit.process.wait(15) == 1
