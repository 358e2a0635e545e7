"""The shell through the real sandbox: state, ends, floods, limits."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from agents.hands import TEXT_MAX_BYTES, Hands
from base.deadline import Deadline

pytest_plugins = ["boxed"]


async def test_folder_and_exported_variables_live_on(call, workspace: Path) -> None:
    await call("shell", command="mkdir -p 'a b'; cd 'a b'; export V='x \"y\" $z\nline'; W=1")
    second = await call("shell", command='pwd; printf %s "$V$W"')
    assert second.text == f'exit code 0\n{workspace}/a b\nx "y" $z\nline'


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("echo out; echo err >&2; exit 7", "exit code 7\nout\nerr"),
        ("false", "exit code 1\n(no output)"),
        ('echo "unclosed', "unexpected EOF"),
        ("if true; then", "syntax error"),
        ("no-such-program", "exit code 127"),
        ("kill -9 $$", "killed by signal 9"),
        ("exec echo replaced", "exit code 0\nreplaced"),
        ("set -euo pipefail; false | true; echo never", "exit code 1\n"),
        ('cat; read -r x; echo "got[$x]"', "got[]"),
        ("trap 'echo mine' EXIT", "exit code 0\nmine"),
        ("printf '\\x1b[31mred\\x1b[0m \\xff\\x00\\x9b\\r\\n'", "red \ufffd␀\ufffd"),
        ("python3 -c 'print(6*7)' <<< ''", "exit code 0\n42"),
        ("cat <<'END'\n$(not run) `nor this`\nEND", "$(not run) `nor this`"),
        ("git init -q r && cd r && git commit -q --allow-empty -m x && git log --format=%s", "x"),
    ],
)
async def test_whatever_a_command_does_the_next_one_works(call, command: str, told: str) -> None:
    assert told in (await call("shell", command=command)).text
    assert (await call("shell", command="echo fine")).text.endswith("\nfine")


async def test_a_folder_that_went_away_is_no_trap(call, workspace: Path) -> None:
    await call("shell", command="mkdir gone; cd gone; rmdir ../gone")
    after = await call("shell", command="pwd")
    assert after.text.endswith(str(workspace))


async def test_the_command_is_killed_at_its_limit_with_all_it_started(call, workspace) -> None:
    begun_s = time.monotonic()
    result = await call(
        "shell",
        command="setsid sh -c 'sleep 2.5; touch late' & (sleep 2.5; touch late2) & sleep 60",
        limit_s=1,
    )
    assert time.monotonic() - begun_s < 10
    assert not result.ok
    assert "killed after 1 s, its time limit" in result.text
    await asyncio.sleep(2.5)
    assert not (workspace / "late").exists()
    assert not (workspace / "late2").exists()


async def test_the_deadline_counts_as_well_as_the_limit(hands: Hands) -> None:
    result = await hands.call("shell", {"command": "sleep 60"}, deadline=Deadline.after(0.5))
    assert "killed after" in result.text
    late = await hands.call("shell", {"command": "touch x"}, deadline=Deadline.after(-1))
    assert not late.ok
    assert "not started" in late.text


async def test_background_processes_outlive_their_call_but_not_its_answer(call) -> None:
    started = await call(
        "shell", command="python3 -m http.server 8123 >/dev/null 2>&1 & sleep 60 & echo up"
    )
    assert started.ok
    assert "2 still running in the background" in started.text
    asked = await call(
        "shell",
        command="for i in $(seq 50); do exec 3<>/dev/tcp/127.0.0.1/8123 && break; sleep .1; done"
        " 2>/dev/null; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; head -1 <&3",
    )
    assert "200 OK" in asked.text


async def test_a_flood_is_cut_counted_and_kept_on_disk(call) -> None:
    flood = await call("shell", command="echo first; seq 1 3000000; echo last")
    assert flood.ok
    assert len(flood.text.encode()) <= TEXT_MAX_BYTES
    assert "\nfirst\n1\n2\n" in flood.text
    assert flood.text.rstrip().endswith("3000000\nlast")
    assert (
        "of 22,888,907 bytes left out here; the first 10,000,000 bytes are in /tmp/output/1.txt"
        in flood.text
    )
    size = await call("shell", command="stat -c %s /tmp/output/1.txt; head -2 /tmp/output/1.txt")
    assert size.text.endswith("10000000\nfirst\n1")
    read = await call("read", path="/tmp/output/1.txt", offset=2, limit=1)
    assert read.text.startswith("     2\t1\n")


async def test_two_gigabytes_of_binary_do_not_hurt(call) -> None:
    result = await call("shell", command="head -c 2000000000 /dev/zero", within_s=60)
    assert len(result.text.encode()) <= TEXT_MAX_BYTES
    assert "of 2,000,000,000 bytes left out" in result.text
    assert (await call("shell", command="echo fine")).text.endswith("fine")


async def test_a_flood_from_the_background_does_not_hold_the_answer(call) -> None:
    begun_s = time.monotonic()
    assert (await call("shell", command="yes & echo started")).ok
    assert (await call("shell", command="echo next")).text.endswith("next")
    assert time.monotonic() - begun_s < 15


async def test_a_fork_bomb_is_bounded_and_cleared(call) -> None:
    await call("shell", command=":(){ :|:& };: 2>/dev/null; sleep 1", within_s=30)
    after = await call("shell", command="ls /proc | grep -c '^[0-9]'", within_s=30)
    assert after.ok
    assert int(after.text.split()[-1]) < 20


async def test_memory_and_file_size_are_limited(call, workspace: Path) -> None:
    memory = await call("shell", command="python3 -c 'x = bytearray(6 << 30)'")
    assert "MemoryError" in memory.text
    await call("shell", command="head -c 3000000000 /dev/zero > /tmp/full; rm -f /tmp/full")
    disk = await call("shell", command="truncate -s 3G f")
    assert not disk.ok
    assert not (workspace / "f").exists() or (workspace / "f").stat().st_size <= 2 << 30


async def test_cancelling_a_call_kills_it_and_spares_the_hands(
    hands: Hands, workspace: Path
) -> None:
    command = {"command": "touch begun; sleep 1.5; touch late"}
    running = asyncio.create_task(hands.call("shell", command, deadline=Deadline.after(60)))
    while not (workspace / "begun").exists():
        await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    after = await hands.call("shell", {"command": "echo fine"}, deadline=Deadline.after(20))
    assert after.text.endswith("fine")
    await asyncio.sleep(1.6)
    assert not (workspace / "late").exists()


async def test_calls_at_once_run_one_after_the_other(hands: Hands) -> None:
    async def one(number: int) -> str:
        command = {"command": f"echo {number} >> log; sleep 0.05; echo {number} >> log"}
        return (await hands.call("shell", command, deadline=Deadline.after(60))).text

    await asyncio.gather(*(one(number) for number in range(6)))
    log = await hands.call("shell", {"command": "uniq -c log"}, deadline=Deadline.after(20))
    assert log.text.count(" 2 ") == 6


async def test_a_call_that_is_no_call_never_reaches_the_sandbox(hands: Hands) -> None:
    for name, given in (("fly", {}), ("shell", {}), ("check.command", {"command": "id"})):
        result = await hands.call(name, given, deadline=Deadline.after(5))  # type: ignore[arg-type]
        assert not result.ok
    bus = await hands.call("broadcast", {"text": "x"}, deadline=Deadline.after(5))
    assert bus.text == "broadcast is not a tool of the sandbox"
