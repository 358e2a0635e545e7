"""A whole local installation: start it and wait until it is ready, stop it in order.

Both are safe to repeat: what lives is adopted, what is missing is started, and only processes
of this home are ever ended. One at a time, by a lock in `settings.run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psutil

from base import log, secrets
from base.deadline import Deadline
from base.errors import ConflictError, NotRunningError, SettingsError, WindowsError
from base.plural import counted
from base.settings import Settings
from base.store import Store
from supervisor import environment, layout, status, stores, units
from supervisor.layout import LISTEN, MEMORY, PORTAL, POSTGRES, REDIS, REHEARSAL, WATCH, WORKERS
from supervisor.windows import NO_TMUX, Pane, Presence, Program, Sight, Windows, ended

READY_S = 60.0
ALL_RUN_S = 90.0
PORTAL_STOP_S = 10.0
#: The keeper ends what it moves before it leaves.
MEMORY_STOP_S = 20.0
Say = Callable[[str], None]


def up(settings: Settings, *, as_json: bool) -> int:
    """Start what does not run and wait for all of it. Raises AIError with what to do."""
    say = _sayer(as_json)
    if settings.appliance:
        return _up_units(settings, say, as_json=as_json)
    log.start("up", settings.logs, settings.log_level)
    if shutil.which("tmux") is None:
        raise WindowsError(NO_TMUX)
    with _alone(settings):
        for path in environment.keep_keys(os.environ, settings):
            say(f"key       kept in {path}")
        passed_on = environment.clean(os.environ, settings)
        os.environ.clear()
        os.environ.update(passed_on)
        secrets.prime(settings)
        report = asyncio.run(_up(settings, say))
    print(json.dumps(report, indent=2) if as_json else f"ready     {report['portal']}")
    return 0


def down(settings: Settings, *, as_json: bool) -> int:
    """Stop everything of this home. Raises AIError when something cannot be reached."""
    if settings.appliance:
        units.stop()
    else:
        log.start("down", settings.logs, settings.log_level)
        with _alone(settings):
            asyncio.run(_down(settings, _sayer(as_json)))
    print(json.dumps({"home": str(settings.home), "state": "down"}) if as_json else "stopped")
    return 0


def show(settings: Settings, *, as_json: bool) -> bool:
    """Print what runs; whether all of it does."""
    if not settings.appliance:
        log.start("status", settings.logs, settings.log_level)
    report = asyncio.run(status.report(settings))
    print(json.dumps(report, indent=2) if as_json else status.table(report))
    return bool(report["state"] == "up")


def _up_units(settings: Settings, say: Say, *, as_json: bool) -> int:
    """The appliance: systemd starts, and what is waited for is the same."""
    units.start()
    report = asyncio.run(_ready(settings, say))
    print(json.dumps(report, indent=2) if as_json else f"ready     {report['portal']}")
    return 0


async def _ready(settings: Settings, say: Say) -> dict[str, Any]:
    say(f"agents    {await _all_run(settings)} windows run in tmux session {layout.AGENTS_SESSION}")
    deadline = Deadline.after(READY_S)
    while not await asyncio.to_thread(status.memory_answers, settings):
        if deadline.passed:
            raise NotRunningError("memory does not answer; see: journalctl -u ai-memory")
    say("memory    answers")
    return await status.report(settings)


# Up ----------------------------------------------------------------------------------------


async def _up(settings: Settings, say: Say) -> dict[str, Any]:
    session = layout.services_session(settings)
    programs = {program.name: program for program in layout.services(settings)}
    sight = await _sight(session)
    _check_ports(settings, programs, sight)
    if REHEARSAL in sight.panes and not settings.rehearsal:
        say("note      a key was set since the start; to use it: ai-infra down, then ai-infra up")
    data = [programs[name] for name in (REDIS, POSTGRES) if name in programs]
    await _start(session, *data)
    if REDIS in programs:
        await _wait(session, REDIS, partial(stores.redis_answers, settings), settings)
        say(f"redis     answers on {settings.redis_socket}")
    await _start(session, *(p for p in programs.values() if p.name == WORKERS))
    if POSTGRES in programs:
        await _wait(session, POSTGRES, partial(stores.postgres_answers, settings), settings)
        await asyncio.to_thread(stores.make_database, settings)
        say(f"postgres  answers in {settings.run}")
    store = await Store.open(settings.postgres, "up")
    try:
        if applied := await store.migrate():
            say(f"schema    {counted(len(applied), 'migration')} applied")
    finally:
        await store.close()
    for program in (*layout.services(settings), *layout.agents(settings)):
        (settings.logs / f"{program.name}.log").touch()  # window `logs` reads them from the start
    await _start(session, *(p for p in programs.values() if p not in data))
    for name, port in _ports(settings, programs).items():
        await _wait(session, name, partial(_listens, settings.host, port), settings)
        say(f"{name:<9} listens on {settings.host}:{port}")
    count = await _all_run(settings)
    say(f"agents    {count} windows run in tmux session {layout.AGENTS_SESSION}")
    await _wait(session, MEMORY, partial(status.memory_answers, settings), settings)
    if WORKERS in programs:
        await _wait(session, WORKERS, partial(status.embeds, settings), settings)
    say(f"memory    answers{', and what is said is embedded' if WORKERS in programs else ''}")
    return await status.report(settings)


async def _start(session: Windows, *programs: Program) -> None:
    """Open windows that are missing and respawn those whose program ended; the rest lives on."""
    sight = await _sight(session)
    for program in programs:
        pane = sight.panes.get(program.name)
        if pane is not None and pane.dead:
            await session.respawn(program, pane)
    await session.open(*programs)


async def _wait(
    session: Windows, name: str, ready: Callable[[int], bool], settings: Settings
) -> None:
    """Until `ready(pid)` holds for the program in that very window.

    Raises NotRunningError with its last words when the program ended instead.
    """
    deadline = Deadline.after(READY_S)
    pane: Pane | None = None
    while True:
        if pane is None or ended(pane.pid):  # else tmux need not be asked what is in the window
            pane = (await _sight(session)).panes.get(name)
        if pane is None or pane.dead:
            raise NotRunningError(await _epitaph(session, name, pane, settings))
        if await asyncio.to_thread(ready, pane.pid):
            return
        if deadline.passed:
            raise NotRunningError(
                f"{name} did not get ready within {READY_S:g} s; see {settings.logs}/{name}.log"
            )
        await asyncio.sleep(0.05)


async def _epitaph(session: Windows, name: str, pane: Pane | None, settings: Settings) -> str:
    words = (await session.last_words(pane, lines=3)).replace("\n", " / ") if pane else ""
    path = settings.logs / f"{name}.log"
    if not words and path.is_file():
        words = " / ".join(path.read_text(errors="replace").splitlines()[-3:])
    return f"{name} ended (exit code {pane.exit_code if pane else None}): {words}; see {path}"


async def _all_run(settings: Settings) -> int:
    """How many windows the agents' session has, once the watchdog sees everything run.

    Brings back what had ended or was given up. Raises NotRunningError naming what does not run.
    """
    deadline = Deadline.after(ALL_RUN_S)
    agents = [program.name for program in layout.agents(settings)]
    names = [program.name for program in layout.services(settings) if program.name != WATCH]
    names += agents
    asked: set[str] = set()
    waiting = names
    while not deadline.passed:
        found = await status.ask_windows(settings) or {}
        for name in names:
            if found.get(name, {}).get("state") in {"exited", "fatal"}:
                if name in asked:
                    raise NotRunningError(f"{name} does not start: {await _words(settings, name)}")
                asked.add(name)
                await status.ask_restart(settings, name)
        waiting = [name for name in names if found.get(name, {}).get("state") != "running"]
        if not waiting:
            return len(agents)
        await asyncio.sleep(0.1)
    words = await _words(settings, waiting[0])
    raise NotRunningError(f"not ready within {ALL_RUN_S:g} s: {', '.join(waiting)}; {words}")


async def _words(settings: Settings, name: str) -> str:
    for session in (layout.agents_session(settings), layout.services_session(settings)):
        if (pane := (await session.look()).panes.get(name)) is not None:
            words = (await session.last_words(pane, lines=3)).replace("\n", " / ")
            return f"{words} (see {settings.logs}/{name}.log)"
    return f"it has no window (see {settings.logs}/{WATCH}.log)"


def _ports(settings: Settings, programs: dict[str, Program]) -> dict[str, int]:
    ports = {PORTAL: settings.port}
    if REHEARSAL in programs:
        ports = {REHEARSAL: settings.rehearsal_port or settings.port + 1, **ports}
    return ports


def _check_ports(settings: Settings, programs: dict[str, Program], sight: Sight) -> None:
    """Raises SettingsError when a program that is not ours has a port that we need."""
    names = {PORTAL: "AI_INFRA_PORT", REHEARSAL: "AI_INFRA_REHEARSAL_PORT (or AI_INFRA_PORT)"}
    faults = []
    for name, port in _ports(settings, programs).items():
        pane = sight.panes.get(name)
        if (pane is None or pane.dead) and (fault := _taken(settings.host, port)):
            faults.append(f"port {port} on {settings.host} {fault}; set {names[name]}")
    if faults:
        raise SettingsError(faults)


def _taken(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            return "is used by another program" if taken else f"cannot be used: {error.strerror}"
    return ""


def _listens(host: str, port: int, _pid: int) -> bool:
    where = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        socket.create_connection((where, port), timeout=1.0).close()
    except OSError:
        return False
    return True


# Down --------------------------------------------------------------------------------------


async def _down(settings: Settings, say: Say) -> None:
    """The watchdog goes first, or it would bring back what the rest of this stops."""
    agents, session = layout.agents_session(settings), layout.services_session(settings)
    sight = await _sight(session)
    await _stop(sight, (WATCH,), signal.SIGTERM, PORTAL_STOP_S)
    crew = await _sight(agents)
    await _stop(crew, tuple(crew.panes), signal.SIGTERM, settings.drain_s + 5.0)
    await agents.close()
    say("agents    stopped")
    await _stop(sight, (PORTAL, REHEARSAL), signal.SIGTERM, PORTAL_STOP_S)
    say("portal    stopped")
    for name in (MEMORY, WORKERS, LISTEN):
        await _stop(sight, (name,), signal.SIGTERM, MEMORY_STOP_S)
    say("memory    stopped")
    for name, pid, number in (
        (POSTGRES, stores.postgres_pid(settings), signal.SIGINT),
        (REDIS, stores.redis_pid(settings), signal.SIGTERM),
    ):
        if pid is not None:
            await asyncio.to_thread(stores.stop_pid, pid, number)
            say(f"{name:<9} stopped")
    await session.close()
    for windows in (agents, session):
        await _gone(windows)
    _end_orphans(settings)


async def _stop(
    sight: Sight, names: tuple[str, ...], number: signal.Signals, limit_s: float
) -> None:
    """Ask the programs of these windows to end, all at once; kill those left at the limit."""
    processes = []
    for name in names:
        pane = sight.panes.get(name)
        if pane is not None and not pane.dead:
            with contextlib.suppress(psutil.NoSuchProcess):
                processes.append(psutil.Process(pane.pid))
                processes[-1].send_signal(number)
    await asyncio.to_thread(stores.wait_ended, processes, limit_s)


async def _gone(windows: Windows) -> None:
    """Wait until the tmux server ended, which it does after its last session; then its socket."""
    deadline = Deadline.after(5.0)
    while windows.server_pid() is not None:
        sight = await windows.look()
        if sight.presence is Presence.ALIVE or (sight.server_pid and not deadline.left_s):
            return  # somebody opened a session of his own on it
        if deadline.passed:
            return
        await asyncio.sleep(0.05)
    windows.socket.unlink(missing_ok=True)


def _end_orphans(settings: Settings) -> None:
    """End what outlived its window: its environment names one of our two tmux servers."""
    marks = tuple(f"{path}," for path in (settings.tmux_socket, settings.services_socket))
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get("TMUX", "").startswith(marks):
                process.terminate()
                left.append(process)
    stores.wait_ended(left, 5.0)


# Both --------------------------------------------------------------------------------------


async def _sight(windows: Windows) -> Sight:
    sight = await windows.look()
    if sight.presence is Presence.UNKNOWN:
        raise WindowsError(f"tmux session {windows.session} cannot be reached: {sight.reason}")
    return sight


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """One `up` or `down` of a home at a time; raises ConflictError after a minute of waiting."""
    with (settings.run / "up.lock").open("w") as lock:
        end_s = time.monotonic() + READY_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() >= end_s:
                    raise ConflictError("another ai-infra up or down is at work here") from error
                time.sleep(0.1)
            else:
                break
        yield


def _sayer(as_json: bool) -> Say:
    out = sys.stderr if as_json else sys.stdout

    def say(text: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody reads on; the work goes on
            print(text, file=out, flush=True)

    return say
