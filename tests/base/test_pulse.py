"""What systemd hears: a real datagram socket stands where its own does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from base import program, pulse
from base.errors import BusError


@pytest.fixture
def systemd(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = short_tmp / "notify"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(path))
        line.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        monkeypatch.setattr(pulse, "_last_s", float("-inf"))
        yield line


def heard(line: socket.socket) -> list[str]:
    found = []
    line.setblocking(False)
    while True:
        try:
            found.append(line.recv(4096).decode())
        except BlockingIOError:
            line.setblocking(True)
            return found


def test_ready_says_what_it_does_and_beats_at_once(systemd: socket.socket) -> None:
    pulse.ready("keeps memory")
    assert heard(systemd) == ["READY=1\nSTATUS=keeps memory", "WATCHDOG=1"]


def test_a_loop_that_turns_often_is_heard_four_times_in_its_limit(systemd: socket.socket) -> None:
    for _ in range(1_000):
        pulse.beat()
    assert heard(systemd) == ["WATCHDOG=1"]


def test_another_process_s_watchdog_is_not_fed(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_PID", "1")
    pulse.beat()
    assert heard(systemd) == []


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    pulse.ready()
    pulse.stopping()
    assert pulse.watchdog_s() == 0.0


async def test_a_check_that_fails_beats_and_one_that_hangs_does_not(
    systemd: socket.socket,
) -> None:
    async def fails() -> None:
        raise BusError("redis is away")

    keeping = asyncio.create_task(pulse.keep(fails))
    await asyncio.sleep(0.3)
    keeping.cancel()
    assert heard(systemd).count("WATCHDOG=1") >= 2

    keeping = asyncio.create_task(pulse.keep(asyncio.Event().wait))
    await asyncio.sleep(0.3)
    keeping.cancel()
    assert heard(systemd) == []


async def test_a_program_without_a_pulse_of_its_own_beats_by_its_event_loop(
    systemd: socket.socket,
) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(program.watch(stop, work=asyncio.sleep(60)))
    await asyncio.sleep(0.05)
    said = heard(systemd)
    assert said[0].startswith("READY=1")
    assert "WATCHDOG=1" in said
    stop.set()
    await running


async def test_a_pulse_of_its_own_is_the_only_one(systemd: socket.socket) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(program.watch(stop, pulse=asyncio.Event().wait()))
    await asyncio.sleep(0.3)
    assert heard(systemd).count("WATCHDOG=1") == 1  # that of `ready`
    stop.set()
    await running
