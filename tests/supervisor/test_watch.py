"""The watchdog over a whole home with stand-ins: kills, hangs, lost servers, its own restart."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from installation import free_ports
from stand_ins import Home, home, need_tmux, within

from base import streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import ConflictError, InputError, UnknownAgentError

pytestmark = pytest.mark.xdist_group("watch")  # one home


@pytest.fixture(scope="module")
def running() -> Iterator[Home]:
    need_tmux()
    with home(free_ports()) as made:
        made.run("up")
        yield made


@pytest.fixture(autouse=True)
def well(running: Home) -> Iterator[None]:
    """Every test leaves the home as it found it: all up."""
    yield
    for path in (running.folder / "act").iterdir():
        path.unlink()
    if running.status()["state"] != "up":
        running.run("up")


def state(running: Home, name: str) -> str:
    return str(running.window(name)["state"])


def ask(running: Home, **payload: Any) -> dict[str, Any]:
    async def asked() -> dict[str, Any]:
        bus = await Bus.open(f"unix://{running.folder}/run/redis.sock", "test")
        try:
            return await bus.ask(streams.SERVICE_WATCH, payload, deadline=Deadline.after(5))
        finally:
            await bus.close()

    return asyncio.run(asked())


def watchdog_pid(running: Home) -> int:
    (child,) = psutil.Process(running.pids()["watch"]).children()
    return int(child.pid)


def index(running: Home, name: str) -> str:
    rows = running.tmux("tmux.sock", "list-windows", "-a", "-F", "#{window_name} #{window_index}")
    return dict(line.split() for line in rows.splitlines())[name]


def test_a_killed_program_is_back_in_its_place_and_others_live(running: Home) -> None:
    before = running.pids()
    os.kill(before["data"], signal.SIGKILL)
    within("data runs again", 60, lambda: running.pids()["data"] not in {None, before["data"]})
    after = running.pids()
    assert index(running, "data") == "2"
    assert {n: p for n, p in after.items() if n != "data"} == {
        n: p for n, p in before.items() if n != "data"
    }


def test_crash_after_crash_is_fatal_and_shown_and_restart_revives(running: Home) -> None:
    before = running.pids()
    running.act("qa", "exit 3")
    os.kill(before["qa"], signal.SIGKILL)
    within("qa is given up", 40, lambda: state(running, "qa") == "fatal")
    row = running.window("qa")
    assert (row["exit_code"], row["restarts"]) == (3, 3)
    assert "last words of qa" in running.log()
    shown = running.tmux("tmux.sock", "list-windows", "-a", "-F", "#{window_name} #{@state}")
    assert "qa FATAL" in shown
    assert {n: p for n, p in running.pids().items() if n != "qa"} == {
        n: p for n, p in before.items() if n != "qa"
    }
    events = asyncio.run(_events(running))
    assert {"status": "error", "state": "fatal"}.items() <= events[-1].items()
    (running.folder / "act" / "qa").unlink()
    assert ask(running, verb="start", agent="qa") == {"ok": True}
    within("qa runs again", 60, lambda: state(running, "qa") == "running")


async def _events(running: Home) -> list[dict[str, Any]]:
    bus = await Bus.open(f"unix://{running.folder}/run/redis.sock", "test")
    try:
        return [e.data for _, e in await bus.events_after("0") if e.agent == "qa"]
    finally:
        await bus.close()


def test_exit_0_stays_ended_until_it_is_wanted(running: Home) -> None:
    os.kill(running.pids()["infra"], signal.SIGTERM)
    within("infra has ended", 60, lambda: state(running, "infra") == "exited")
    running.run("up")
    assert state(running, "infra") == "running"


def test_silence_is_confirmed_and_ended(running: Home) -> None:
    before = running.pids()["research"]
    running.act("research", "silent")
    within(
        "research was ended for its silence",
        40,
        lambda: "agent=research state=stopping" in running.log(),
    )
    (running.folder / "act" / "research").unlink()
    within("a new one runs", 60, lambda: running.pids()["research"] not in {None, before})


def test_living_windows_are_adopted_after_the_watchdogs_death(running: Home) -> None:
    before, watchdog = running.pids(), watchdog_pid(running)
    os.kill(watchdog, signal.SIGKILL)
    within("a new watchdog", 60, lambda: _new_child(running, watchdog))
    within("it knows all", 60, lambda: running.status()["state"] == "up")
    assert running.pids() == before


def _new_child(running: Home, old: int) -> bool:
    children = psutil.Process(running.pids()["watch"]).children()
    return any(child.pid != old and "supervisor" in child.cmdline() for child in children)


def test_the_agents_tmux_server_killed_comes_back_whole(running: Home) -> None:
    before = running.pids()
    os.kill(running.server_pid("tmux.sock"), signal.SIGKILL)
    within("the session is back", 30, lambda: running.status()["state"] == "up")
    after = running.pids()
    agents = running.status()["windows"]
    assert not {before[name] for name in agents} & {after[name] for name in agents}
    assert all(before[name] == after[name] for name in running.status()["services"])
    assert [index(running, n) for n in ("supervisor", "code", "monitor", "logs")] == list("0167")


def test_a_socket_that_cannot_be_reached_changes_nothing(running: Home) -> None:
    before = running.pids()
    server = running.server_pid("tmux.sock")
    os.kill(server, signal.SIGSTOP)
    try:
        within("it says so", 30, lambda: "could not look" in running.log())
    finally:
        os.kill(server, signal.SIGCONT)
    (running.folder / "run" / "tmux.sock").unlink()
    within("tmux made its socket anew", 60, (running.folder / "run" / "tmux.sock").exists)
    within("all is seen again", 60, lambda: running.status()["state"] == "up")
    assert running.pids() == before


@pytest.mark.parametrize("name", ["redis", "postgres", "portal", "rehearsal"])
def test_a_killed_service_comes_back(running: Home, name: str) -> None:
    before = running.pids()
    os.kill(before[name], signal.SIGKILL)
    within(f"{name} runs again", 30, lambda: running.pids()[name] not in {None, before[name]})
    within("all is up", 30, lambda: running.status()["state"] == "up")
    running.run("up")
    assert all(
        before[n] == pid for n, pid in running.pids().items() if n in {"watch", "code"} - {name}
    )


def test_asks_answer_and_refuse(running: Home) -> None:
    windows = ask(running, verb="windows")
    assert windows["code"].keys() >= {"state", "restarts", "pid", "exit_code", "since"}
    assert windows["code"]["pid"] == running.pids()["code"]
    assert windows["code"]["rss_bytes"] > 1_000_000
    assert windows["code"]["cpu_percent"] >= 0
    before = running.pids()["code"]
    ask(running, verb="restart", agent="code")
    within("code is a new one", 60, lambda: running.pids()["code"] not in {None, before})
    with pytest.raises(ConflictError, match="infra is running already"):
        ask(running, verb="start", agent="infra")
    with pytest.raises(UnknownAgentError, match="nobody"):
        ask(running, verb="restart", agent="nobody")
    with pytest.raises(InputError):
        ask(running, verb="dance")


def test_the_owners_agent_gets_a_window_while_all_runs(running: Home) -> None:
    path = running.folder / "config" / "agents" / "writer.toml"
    path.write_text('title = "W"\ncapabilities = ["words"]\nprompt = "p"\n')
    within("writer runs", 60, lambda: running.status()["windows"].get("writer", {}).get("pid"))
    assert index(running, "writer") == "8"
    path.unlink()
    within("it is let go", 60, lambda: "writer" not in ask(running, verb="windows"))
    running.tmux("tmux.sock", "kill-window", "-t", "ai-infrastructure:writer")


def test_the_monitor_shows_the_agents(running: Home) -> None:
    def screen() -> str:
        return running.tmux("tmux.sock", "capture-pane", "-p", "-t", "ai-infrastructure:monitor")

    within(
        "the table is drawn", 60, lambda: "research" in screen() and "model rehearsal" in screen()
    )
    process = psutil.Process(running.pids()["monitor"])
    assert process.memory_info().rss < 30 * 2**20
    running.tmux("tmux.sock", "send-keys", "-t", "ai-infrastructure:monitor", "q")
    within("q ended it and it is back", 60, lambda: _replaced(running, process.pid))


def _replaced(running: Home, pid: int) -> bool:
    return running.pids()["monitor"] not in {None, pid}
