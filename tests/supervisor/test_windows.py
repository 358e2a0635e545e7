"""Windows on a private tmux server: open, look, respawn, last words, and the three answers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from stand_ins import need_tmux

from base.errors import WindowsError
from base.settings import Settings
from supervisor import layout, windows
from supervisor.windows import _FORMAT, Pane, Presence, Program, Windows

SLEEP = ("sleep", "300")


@pytest.fixture
async def session() -> AsyncIterator[Windows]:
    need_tmux()
    folder = Path(tempfile.mkdtemp(prefix="ai-w-", dir="/tmp"))
    made = Windows(folder / "tmux.sock", "ai-infrastructure", folder)
    yield made
    await made.close()
    if (pid := made.server_pid()) is not None:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)


def program(name: str, index: int | None = None, command: tuple[str, ...] = SLEEP) -> Program:
    return Program(name=name, index=index, command=command)


async def seen_dead(session: Windows, name: str) -> Pane:
    for _ in range(200):
        pane = (await session.look()).panes[name]
        if pane.dead and pane.exit_code is not None:
            return pane
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} lives")


def tmux(session: Windows, *words: str) -> str:
    line = ["tmux", "-S", str(session.socket), *words]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


async def test_windows_have_their_places_and_are_opened_once(session: Windows) -> None:
    programs = [program("supervisor", 0), program("code", 1), program("logs", 7), program("mine")]
    await session.open(*programs)
    before = {name: pane.pid for name, pane in (await session.look()).panes.items()}
    await session.open(*programs)
    panes = (await session.look()).panes
    places = {name: pane.index for name, pane in panes.items()}
    assert {name: places[name] for name in ("supervisor", "code", "logs")} == {
        "supervisor": 0,
        "code": 1,
        "logs": 7,
    }
    assert {name: pane.pid for name, pane in panes.items()} == before
    assert tmux(session, "list-windows", "-t", "ai-infrastructure").count("\n") + 1 == 4


async def test_the_session_is_set_up_as_the_watchdog_needs_it(session: Windows) -> None:
    await session.open(program("code", 1, ("sh", "-c", "printf '\\033]2;x\\007'; sleep 300")))
    for option, value in {
        "remain-on-exit": "on",
        "history-limit": "20000",
        "mouse": "on",
        "automatic-rename": "off",
        "allow-rename": "off",
    }.items():
        assert tmux(session, "show-options", "-gwv" if "re" in option else "-gv", option) == value
    assert [pane.index for pane in (await session.look()).panes.values()] == [1]


async def test_a_dead_program_keeps_window_code_and_last_words(session: Windows) -> None:
    await session.open(program("code", 1), program("qa", 5, ("sh", "-c", "echo I broke; exit 7")))
    pane = await seen_dead(session, "qa")
    assert (pane.exit_code, pane.index) == (7, 5)
    for _ in range(400):  # tmux may see the end before it has read all that was said
        if await session.last_words(pane):
            break
        await asyncio.sleep(0.05)
    assert await session.last_words(pane) == "I broke"


async def test_a_signal_is_a_negative_code(session: Windows) -> None:
    await session.open(program("code", 1))
    os.kill((await session.look()).panes["code"].pid, signal.SIGKILL)
    assert (await seen_dead(session, "code")).exit_code == -9


async def test_death_is_seen_though_a_child_holds_the_terminal(session: Windows) -> None:
    await session.open(program("code", 1, ("sh", "-c", "sleep 300 & wait")))
    pane = (await session.look()).panes["code"]
    os.kill(pane.pid, signal.SIGKILL)
    for _ in range(100):
        if (await session.look()).panes["code"].dead:
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError("the death was not seen")
    await session.respawn(program("code", 1), pane)
    assert (await session.look()).panes["code"].pid != pane.pid


async def test_respawn_is_in_place_and_opens_a_closed_window(session: Windows) -> None:
    code, qa = program("code", 1), program("qa", 5)
    await session.open(code, qa)
    before = (await session.look()).panes["qa"]
    await session.respawn(qa, before)
    after = (await session.look()).panes["qa"]
    assert (after.index, after.target) == (5, before.target)
    assert after.pid != before.pid
    tmux(session, "kill-window", "-t", "ai-infrastructure:qa")
    await session.respawn(qa, None)
    assert (await session.look()).panes["qa"].index == 5


async def test_a_window_whose_place_is_taken_goes_elsewhere(session: Windows) -> None:
    await session.open(program("code", 1))
    tmux(session, "new-window", "-d", "-t", "ai-infrastructure:8", "-n", "own", *SLEEP)
    await session.open(program("writer", 8))
    panes = (await session.look()).panes
    assert panes["own"].index == 8
    assert panes["writer"].index != 8


async def test_absent_before_and_after(session: Windows) -> None:
    assert (await session.look()).presence is Presence.ABSENT
    await session.open(program("code", 1))
    assert (await session.look()).presence is Presence.ALIVE
    await session.close()
    assert (await session.look()).presence is Presence.ABSENT


async def test_a_server_that_ends_during_the_look_is_looked_at_again(
    session: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, ends = session._tmux, 2

    async def ending(*command: str) -> list[str]:
        nonlocal ends
        if ends:
            ends -= 1
            raise WindowsError("tmux list-panes: server exited unexpectedly")
        return await ask(*command)

    monkeypatch.setattr(session, "_tmux", ending)
    assert (await session.look()).presence is Presence.ABSENT
    ends = 99
    assert (await session.look()).presence is Presence.UNKNOWN


async def test_onlookers_keep_nothing_alive(session: Windows) -> None:
    await session.open(program("code", 1))
    tmux(session, "new-session", "-d", "-t", "ai-infrastructure", "-s", "onlooker")
    tmux(session, "new-session", "-d", "-s", "somebody", *SLEEP)
    assert len((await session.look()).panes) == 1
    await session.close()
    assert tmux(session, "list-sessions", "-F", "#{session_name}") == "somebody"
    tmux(session, "kill-server")


async def test_a_removed_socket_is_not_a_removed_session(session: Windows) -> None:
    await session.open(program("code", 1))
    session.socket.unlink()
    with pytest.raises(WindowsError, match=r"server \d+ lives"):
        await session.open(program("qa", 5))
    for _ in range(100):  # tmux remakes its socket when asked
        if (await session.look()).presence is Presence.ALIVE:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the socket did not come back")


async def test_a_server_that_does_not_answer_is_unknown(
    session: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "CALL_LIMIT_S", 0.3)
    await session.open(program("code", 1))
    pid = session.server_pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        sight = await session.look()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (sight.presence, sight.reason) == (Presence.UNKNOWN, "tmux did not answer within 0.3 s")


async def test_no_tmux_says_how_to_get_it(
    session: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "sudo apt-get install tmux" in (await session.look()).reason
    with pytest.raises(WindowsError, match="sudo apt-get install tmux"):
        await session.open(program("code", 1))


async def test_an_exit_code_that_tmux_missed_is_asked_for_again(session: Windows) -> None:
    await session.open(program("other", 0))
    for turn in range(12):
        await session.open(program(f"w{turn}"))
        os.kill((await session.look()).panes[f"w{turn}"].pid, signal.SIGKILL)
        assert (await seen_dead(session, f"w{turn}")).exit_code == -9


async def test_what_ends_while_it_is_looked_at_has_its_exit_code(
    session: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    await session.open(program("other", 0), program("ends", 1, ("cat",)))
    pane = (await session.look()).panes["ends"]
    before = await session._tmux("list-panes", "-a", "-F", _FORMAT)
    tmux(session, "send-keys", "-t", pane.target, "C-d")
    assert (await seen_dead(session, "ends")).exit_code == 0
    answer, answers = session._tmux, [before]

    async def late(*command: str) -> list[str]:
        return answers.pop() if answers else await answer(*command)

    monkeypatch.setattr(session, "_tmux", late)
    seen = (await session.look()).panes["ends"]
    assert (seen.dead, seen.exit_code) == (True, 0)


def test_the_layout_is_the_seed_plans(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    agents = tmp_path / "config" / "agents"
    agents.mkdir(parents=True)
    names = [(program.index, program.name) for program in layout.agents(settings)]
    assert names == [
        (0, "supervisor"), (1, "code"), (2, "data"), (3, "infra"), (4, "research"), (5, "qa"),
        (6, "monitor"), (7, "logs"),
    ]  # fmt: skip
    for name in ("zoe", "ann"):
        text = 'title = "t"\ncapabilities = ["x"]\nprompt = "p"\n'
        (agents / f"{name}.toml").write_text(text)
    names = [(program.index, program.name) for program in layout.agents(settings)]
    assert names[8:] == [(8, "ann"), (9, "zoe")]
