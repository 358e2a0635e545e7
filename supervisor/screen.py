"""`python -m supervisor.screen SOCKET [READER [FOLDER]]`: the agents' tmux server as a unit.

The watchdog opens the windows, in this unit's cgroup: a restart of it ends no agent. What runs in
the windows is asked to end first, and waited for, when the unit stops. READER is an account that
may use the socket, too: the portal's. FOLDER (TMUX_TMPDIR of our account) gets a link to the
socket, so that a bare `tmux attach` finds it. Kept small: it knows neither settings nor bus.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from base import pulse

CONFIG = Path(__file__).resolve().parent.parent / "config"
LOOK_S = 10.0
START_S = 10.0
#: What agents take to leave a task at a safe point (`drain_s`), and some.
DRAIN_S = 35.0


async def main(socket: Path, reader: str | None = None, folder: str | None = None) -> int:
    """Exit code 0 when asked to end, 1 when tmux ended by itself."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    socket.unlink(missing_ok=True)  # of before a crash: this unit is the only one that binds it
    files = [word for name in ("tmux.conf", "tmux-unit.conf") for word in ("-f", CONFIG / name)]
    server = await asyncio.create_subprocess_exec(
        *("tmux", "-D", "-u", *map(str, files), f"-S{socket}"), env=_environment()
    )
    ended = asyncio.create_task(server.wait(), name="server")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await _ready(socket, reader, ended)
        if folder is not None:
            _link(Path(folder), socket)
        pulse.ready("keeps the agents' windows")
        while not (ended.done() or stopping.done()):
            if await _tmux(socket, "list-sessions") is not None:
                pulse.beat()
            await asyncio.wait(
                {ended, stopping}, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED
            )
        if stopping.done():
            pulse.stopping()
            await _drain(socket)
            return 0
        print("the tmux server ended", file=sys.stderr)
        return 1
    finally:
        stopping.cancel()
        with contextlib.suppress(ProcessLookupError):
            server.terminate()
        await ended


async def _ready(socket: Path, reader: str | None, ended: asyncio.Task[int]) -> None:
    async with asyncio.timeout(START_S):
        while await _tmux(socket, "list-sessions") is None:
            if ended.done():
                raise SystemExit("tmux did not start")
            await asyncio.sleep(0.05)
    if reader is not None:
        await _tmux(socket, "server-access", "-a", "-w", reader)
        socket.chmod(0o660)  # its folder hands the group down


def _link(folder: Path, socket: Path) -> None:
    place = folder / f"tmux-{os.getuid()}"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = place / ".new"
    beside.unlink(missing_ok=True)
    beside.symlink_to(socket)
    beside.replace(place / "default")


async def _drain(socket: Path) -> None:
    """Ask what runs in the windows to end; return when it did, or after `DRAIN_S`."""
    said = await _tmux(socket, "list-panes", "-a", "-F", "#{?pane_dead,,#{pane_pid}}") or ""
    handles = []
    for word in said.split():
        with contextlib.suppress(OSError):
            handles.append(os.pidfd_open(int(word)))
            signal.pidfd_send_signal(handles[-1], signal.SIGTERM)
    loop = asyncio.get_running_loop()
    gone = [asyncio.Event() for _ in handles]
    for handle, event in zip(handles, gone, strict=True):
        loop.add_reader(handle, event.set)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            await asyncio.gather(*(event.wait() for event in gone))
    for handle in handles:
        loop.remove_reader(handle)
        os.close(handle)


async def _tmux(socket: Path, *command: str) -> str | None:
    """What a command said; None: nobody is there, or does not answer in time."""
    process = await asyncio.create_subprocess_exec(
        *("tmux", "-N", f"-S{socket}", *command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(LOOK_S):
            said, _ = await process.communicate()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said.decode(errors="replace") if process.returncode == 0 else None


def _environment() -> dict[str, str]:
    """Ours without what only this process may say to systemd: windows inherit the rest."""
    own = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "INVOCATION_ID")
    kept = {name: value for name, value in os.environ.items() if name not in own}
    return {"TERM": "screen-256color", **kept}


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:4])))
