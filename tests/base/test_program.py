"""How a process starts, watches its tasks and stops: as real processes, and `watch` itself."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from base.program import watch

PROGRAM = """
import asyncio, sys
from base import program
from base.errors import BusError

async def main(settings, stop):
    print("up", flush=True)
    {body}

program.run("probe", main)
"""
Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start a program whose main is `body`, and wait until it is up."""
    monkeypatch.setenv("AI_INFRA_HOME", str(tmp_path / "home"))

    def _start(body: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(body=body)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        return process

    return _start


def _end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stderr."""
    _, stderr = process.communicate(timeout=30)
    return process.returncode, stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it(start: Start, number: signal.Signals) -> None:
    process = start("await stop.wait()")
    process.send_signal(number)
    assert _end(process) == (0, "")


def test_a_second_signal_ends_one_that_does_not_stop(start: Start) -> None:
    process = start("await stop.wait(); print('stopping', flush=True); await asyncio.sleep(60)")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(signal.SIGTERM)
    assert _end(process)[0] == -signal.SIGTERM


def test_main_says_its_exit_code(start: Start) -> None:
    assert _end(start("return program.EXIT_POST_TAKEN")) == (75, "")
    assert _end(start("return None")) == (0, "")


def test_an_error_of_ours_is_one_line_and_code_1(start: Start, tmp_path: Path) -> None:
    assert _end(start("raise BusError('Redis is away')")) == (1, "probe: Redis is away\n")
    text = (tmp_path / "home" / "logs" / "probe.log").read_text()
    assert 'error="Redis is away"' in text


def test_a_bug_is_logged_with_its_traceback_and_code_1(start: Start, tmp_path: Path) -> None:
    code, stderr = _end(start("{}['x']"))
    assert code == 1
    assert "KeyError" in stderr
    assert "KeyError" in (tmp_path / "home" / "logs" / "probe.log").read_text()


def test_wrong_settings_are_one_line_and_code_2(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AI_INFRA_PORT", "none")
    monkeypatch.setenv("AI_INFRA_LEASE_S", "0")
    code, stderr = _end(start("return None"))
    assert code == 2
    assert stderr.startswith("probe: settings: ")
    assert "port" in stderr
    assert "lease_s" in stderr
    assert stderr.count("\n") == 1


def test_at_its_end_nothing_is_taken_apart_and_what_was_asked_for_is_done(start: Start) -> None:
    """That nothing is taken apart saves up to a second of a processor for each that ends."""
    body = """
    import atexit, tempfile
    class Heavy:
        def __del__(self): print("taken apart")
    global heavy
    heavy = Heavy()
    await asyncio.sleep(0.2)
    atexit.register(print, "done at exit")
    print("not yet flushed")"""
    process = start(body.lstrip())
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (0, "not yet flushed\ndone at exit\n", "")


@pytest.mark.parametrize("daemon", [True, False])
def test_its_end_waits_for_the_threads_that_want_it(start: Start, daemon: bool) -> None:
    body = f"""
    import threading, time
    def late(): time.sleep(0.5); print("late", flush=True)
    threading.Thread(target=late, daemon={daemon}).start()"""
    process = start(body.lstrip())
    stdout, _ = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (0, "" if daemon else "late\n")


def test_the_garbage_collector_passes_over_what_was_loaded(start: Start) -> None:
    about = "gc.get_freeze_count() > 10_000, gc.get_threshold()"
    assert _end(start(f"import gc; print({about}, file=sys.stderr)"))[1] == "True (700, 10, 10)\n"


# watch ---------------------------------------------------------------------------------------


class _Ends:
    """Coroutines that note how they ended."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []

    async def forever(self, name: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise

    async def dies(self, error: Exception) -> None:
        await asyncio.sleep(0.01)
        raise error

    async def ends(self) -> None:
        await asyncio.sleep(0.01)


async def test_stop_cancels_all_and_is_no_error() -> None:
    ends, stop = _Ends(), asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, stop.set)
    await watch(stop, one=ends.forever("one"), two=ends.forever("two"))
    assert sorted(ends.cancelled) == ["one", "two"]


async def test_the_first_to_die_stops_the_rest_and_raises() -> None:
    ends, stop = _Ends(), asyncio.Event()
    with pytest.raises(KeyError, match="gone"):
        await watch(stop, one=ends.forever("one"), two=ends.dies(KeyError("gone")))
    assert stop.is_set()
    assert ends.cancelled == ["one"]


async def test_one_that_ends_stops_the_rest() -> None:
    ends, stop = _Ends(), asyncio.Event()
    await watch(stop, one=ends.forever("one"), two=ends.ends())
    assert stop.is_set()
    assert ends.cancelled == ["one"]


async def test_a_cancelled_watch_leaves_no_task_behind() -> None:
    ends, stop = _Ends(), asyncio.Event()
    before = asyncio.all_tasks()
    watching = asyncio.create_task(watch(stop, one=ends.forever("one")))
    await asyncio.sleep(0.02)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert ends.cancelled == ["one"]


async def test_tasks_carry_their_names() -> None:
    stop, seen = asyncio.Event(), []

    async def look() -> None:
        task = asyncio.current_task()
        seen.append(task.get_name() if task else "")

    await watch(stop, sweeper=look())
    assert seen == ["sweeper"]
