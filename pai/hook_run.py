"""Running hooks: those of one event at once, each until its deadline, then what they say together.

A trusted one runs as we are, in a group of processes of its own that is killed when it has ended
or its time is up. Any other goes to a `Box`: the sandbox of whoever fires it, or `elsewhere`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from base import log
from base.deadline import Deadline
from base.settings import Settings
from pai.hook_answer import Ran, verdict
from pai.hooks import Event, Hook, Verdict

#: The end of a session is not held up for long by default.
END_LIMIT_S = 5.0
OUTPUT_MAX_BYTES = 64_000
#: How long an ended hook's output is waited for when a child of it still holds the pipe.
LINGER_S = 0.2
REAP_S = 2.0
#: What starting a sandbox may take beside the hooks' own time.
START_S = 60.0
REPLY_MAX_BYTES = 8_000_000
#: What a trusted hook inherits. No key, and no address that may hold a password, is among it.
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR")

logger = log.get("hooks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A hook to be run in a sandbox: its line, what it reads, how long it may take."""

    command: str
    stdin: str
    limit_s: float
    environment: Mapping[str, str]


Box = Callable[[Sequence[Job]], Awaitable[Sequence[Ran]]]


async def fire(
    settings: Settings, due: Sequence[Hook], given: Mapping[str, Any], workspace: Path, box: Box
) -> Verdict:
    """Run them all and say what they say. Never raises for what a hook or its sandbox does."""
    stdin = json.dumps({**given, "hook_event_name": due[0].event.value}, default=str)
    limits_s = [_limit_s(settings, one) for one in due]
    boxed = [number for number, one in enumerate(due) if not one.trusted]
    inside = environment(settings, workspace)
    jobs = [
        Job(command=due[n].command, stdin=stdin, limit_s=limits_s[n], environment=inside)
        for n in boxed
    ]
    own = [
        trusted(one.command, stdin, limit_s, workspace, inside)
        for one, limit_s in zip(due, limits_s, strict=True)
        if one.trusted
    ]
    ran, them = await asyncio.gather(asyncio.gather(*own), _boxed(box, jobs))
    each, rest = iter(ran), iter(them)
    ended = [(one, next(each if one.trusted else rest)) for one in due]
    return verdict(ended)


def environment(settings: Settings, workspace: Path) -> dict[str, str]:
    """What a hook finds besides: Claude Code's name for the folder of the work, and our folder
    for the scripts of hooks, which its sandbox shows.
    """
    return {"CLAUDE_PROJECT_DIR": str(workspace), "AI_INFRA_HOOKS": str(folder(settings))}


def folder(settings: Settings) -> Path:
    """Where the owner keeps the scripts of hooks."""
    return settings.home / "hooks"


async def trusted(
    command: str, stdin: str, limit_s: float, workspace: Path, more: Mapping[str, str]
) -> Ran:
    """Run one as we are, in the workspace if it is there."""
    names = [name for name in os.environ if name in INHERITED or name.startswith("LC_")]
    env = {name: os.environ[name] for name in names} | dict(more)
    cwd = workspace if workspace.is_dir() else Path("/")
    try:
        process = await _started(["/bin/bash", "-c", command], env, cwd)
    except OSError as error:
        return Ran(code=None, fault=f"could not be started: {error}")
    return await _attended(process, stdin, limit_s)


def elsewhere(settings: Settings, workspace: Path) -> Box:
    """The sandbox for whoever has none: a process of the agents' that opens one, at level 0."""

    async def run(jobs: Sequence[Job]) -> Sequence[Ran]:
        asked = {"workspace": str(workspace), "jobs": [asdict(one) for one in jobs]}
        limit_s = START_S + max(one.limit_s for one in jobs)
        argv = [sys.executable, "-m", "agents", "--hook"]
        env = os.environ | {"AI_INFRA_HOME": str(settings.home)}
        try:
            process = await _started(argv, env, Path(__file__).parent.parent)
        except OSError as error:
            return _none(jobs, f"its sandbox could not be started: {error}")
        ended = await _attended(process, json.dumps(asked), limit_s, REPLY_MAX_BYTES)
        try:
            return [Ran(**one) for one in json.loads(ended.stdout)["ran"]]
        except (ValueError, TypeError, KeyError):
            words = ended.stderr.strip().splitlines()
            return _none(jobs, ended.fault or (words[-1] if words else "its sandbox did not open"))

    return run


def _limit_s(settings: Settings, hook: Hook) -> float:
    if hook.limit_s is not None:
        return hook.limit_s
    ends = hook.event is Event.SESSION_END
    return min(END_LIMIT_S, settings.hook_s) if ends else settings.hook_s


async def _boxed(box: Box, jobs: Sequence[Job]) -> Sequence[Ran]:
    """What the sandbox makes of them; one that fails is no more than a failed hook."""
    if not jobs:
        return ()
    try:
        ran = await box(jobs)
    except Exception as error:
        logger.warning("hooks' sandbox failed", error=str(error))
        return _none(jobs, str(error) or type(error).__name__)
    return ran if len(ran) == len(jobs) else _none(jobs, "its sandbox answered for others")


def _none(jobs: Sequence[Job], fault: str) -> Sequence[Ran]:
    return [Ran(code=None, fault=f"did not run: {fault}")] * len(jobs)


async def _started(
    argv: Sequence[str], env: Mapping[str, str], cwd: Path
) -> asyncio.subprocess.Process:
    """A process in a session of its own. Cancelled, it is seen through and then ended: asyncio
    would wait for all that holds its pipes. Raises OSError.
    """
    pipe = asyncio.subprocess.PIPE
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *argv, stdin=pipe, stdout=pipe, stderr=pipe, cwd=cwd, env=env, start_new_session=True
        ),
        name="hook-start",
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            await _end(await starting)
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill its group, and let go of its pipes, whoever else holds them."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    deadline = Deadline.after(REAP_S)  # one that became another user may be out of our reach
    while process.returncode is None and not deadline.passed:
        await asyncio.sleep(0.002)
    with contextlib.suppress(PermissionError):
        process._transport.close()  # type: ignore[attr-defined]


async def _attended(
    process: asyncio.subprocess.Process,
    stdin: str,
    limit_s: float,
    most_bytes: int = OUTPUT_MAX_BYTES,
) -> Ran:
    """See it to its end, and kill all that it started and that is still in its group."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = Deadline.after(limit_s)
    out, complaints = bytearray(), bytearray()
    pumps = [
        asyncio.create_task(_feed(process.stdin, stdin.encode()), name="hook-stdin"),
        asyncio.create_task(_gather(process.stdout, out, most_bytes), name="hook-stdout"),
        asyncio.create_task(_gather(process.stderr, complaints, most_bytes), name="hook-stderr"),
    ]
    late = False
    try:
        late = not await _exited(process, deadline)
        if not late:
            await asyncio.wait(pumps[1:], timeout=LINGER_S)
    finally:
        for pump in pumps:
            pump.cancel()
        await _end(process)
        await asyncio.gather(*pumps, return_exceptions=True)
    said = [
        bytes(part).decode("utf-8", "replace").replace("\0", "\ufffd") for part in (out, complaints)
    ]
    if late:
        fault = f"was killed at its deadline of {limit_s:g} s"
        return Ran(code=None, stdout=said[0], stderr=said[1], fault=fault)
    return Ran(code=process.returncode, stdout=said[0], stderr=said[1])


async def _exited(process: asyncio.subprocess.Process, deadline: Deadline) -> bool:
    """Wait until it ended; False: not before the deadline. `process.wait` would wait for all that
    holds its pipes.
    """
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    loop.add_reader(handle, ended.set)
    try:
        async with asyncio.timeout(deadline.left_s):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    return True


async def _feed(pipe: asyncio.StreamWriter, data: bytes) -> None:
    """A hook need not read what it is given."""
    with contextlib.suppress(ConnectionError):
        pipe.write(data)
        await pipe.drain()
        pipe.close()


async def _gather(pipe: asyncio.StreamReader, into: bytearray, most_bytes: int) -> None:
    """Read to the end, so that nothing is held up; keep the first `most_bytes`."""
    while piece := await pipe.read(65_536):
        into += piece[: most_bytes - len(into)]
