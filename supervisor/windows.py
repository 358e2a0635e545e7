"""The tmux windows that programs run in. The only file that knows libtmux.

Four things are asked of tmux: open, respawn, who is dead with which code, last words. Windows
come from `Program` values, not from a tmuxp workspace: tmuxp starts commands by a shell and sets
options after they run, so an early death would take its window along.

libtmux blocks, so every call runs in a thread with a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import libtmux
import psutil
from libtmux import exc

from base import log
from base.errors import WindowsError

logger = log.get("windows")

CONFIG = Path(__file__).resolve().parent.parent / "config" / "tmux.conf"
NO_TMUX = "tmux is not installed; install it with: sudo apt-get install tmux"
CALL_LIMIT_S = 5.0
REAP_S = 0.05
#: So often a program that is dead and has no exit code yet is looked at again.
REAP_LOOKS = 4
_FIELDS = (
    "pid", "session_name", "window_index", "pane_index", "pane_id", "pane_pid", "pane_dead",
    "pane_dead_status", "pane_dead_signal", "window_name",
)  # fmt: skip
_FORMAT = "|".join(f"#{{{name}}}" for name in _FIELDS)
#: What tmux says when there is surely no server behind the socket.
_GONE = ("no server running on", "(No such file or directory)", "(Connection refused)")

#: What a call hears whose server ends meanwhile: the next look tells.
_ENDING = "server exited unexpectedly"

#: What a server says that has no session left and is about to end.
_EMPTY = "no current target"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What runs in a window. `index` None: the next free number; `command` runs without a shell.

    beats: it sends heartbeats, so silence means that it hangs; revive: start it again even
    after it ended with code 0.
    """

    name: str
    command: tuple[str, ...]
    index: int | None = None
    beats: bool = False
    revive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pane:
    """A window as seen once. `exit_code` is negative for a signal, None while it is unknown."""

    name: str
    index: int
    target: str
    pid: int
    dead: bool
    exit_code: int | None


class Presence(StrEnum):
    """Whether the session is there. Only ABSENT may be acted upon."""

    ALIVE = "alive"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One look at a session. `server_pid` None: no server was reached."""

    presence: Presence
    panes: Mapping[str, Pane] = field(default_factory=dict)
    server_pid: int | None = None
    reason: str = ""


class Windows:
    """One session on one socket of our own. `cwd` is where programs start."""

    def __init__(self, socket: Path, session: str, cwd: Path) -> None:
        self.socket = socket
        self.session = session
        self._cwd = str(cwd).replace("#", "##")
        self._server = libtmux.Server(socket_path=socket, config_file=str(CONFIG))

    async def look(self) -> Sight:
        """All windows, by one tmux call. Never raises: what it cannot tell is UNKNOWN."""
        sight = await self._look()
        for _ in range(REAP_LOOKS):
            if _ENDING in sight.reason:
                await asyncio.sleep(REAP_S)
                sight = await self._look()
                continue
            unsaid = [p for p in sight.panes.values() if p.dead and p.exit_code is None]
            if not unsaid or not sight.server_pid:
                break
            # It ended between tmux's answer and our look, or has left its terminal and still ends;
            # and tmux 3.3a can miss a SIGCHLD: another one makes it reap.
            if any(_state(pane.pid) == "Z" for pane in unsaid):
                with contextlib.suppress(OSError):
                    os.kill(sight.server_pid, signal.SIGCHLD)
            await asyncio.sleep(REAP_S)
            sight = await self._look()
        return sight

    async def _look(self) -> Sight:
        try:
            lines = await self._tmux("list-panes", "-a", "-F", _FORMAT)
        except WindowsError as error:
            reason = str(error)
            if _EMPTY in reason:
                return Sight(presence=Presence.ABSENT, reason=reason)
            if not any(word in reason for word in _GONE):
                return Sight(presence=Presence.UNKNOWN, reason=reason)
            if (pid := await asyncio.to_thread(self.server_pid)) is not None:
                # The server lives and only its socket was removed: USR1 makes tmux remake it.
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGUSR1)
                return Sight(presence=Presence.UNKNOWN, reason=f"{reason}; server {pid} lives")
            return Sight(presence=Presence.ABSENT, reason=reason)
        rows = [line.split("|", len(_FIELDS) - 1) for line in lines]
        if any(len(row) != len(_FIELDS) for row in rows):
            return Sight(presence=Presence.UNKNOWN, reason="tmux answered out of form")
        server_pid = int(rows[0][0]) if rows else None
        panes: dict[str, Pane] = {}
        for row in rows:
            if row[1] == self.session:
                panes.setdefault(row[-1], _pane(row))
        presence = Presence.ALIVE if panes else Presence.ABSENT
        return Sight(presence=presence, panes=panes, server_pid=server_pid)

    async def open(self, *programs: Program) -> None:
        """Open the windows that are not there yet; the session too. Safe to repeat.

        Raises WindowsError.
        """
        sight = await self.look()
        if sight.presence is Presence.UNKNOWN:
            raise WindowsError(f"tmux session {self.session}: {sight.reason}")
        missing = [program for program in programs if program.name not in sight.panes]
        if not missing:
            return
        call: list[str] = []
        if sight.presence is Presence.ABSENT:
            first = missing.pop(0)
            move = () if first.index in {None, 0} else (";", "move-window", "-t", str(first.index))
            call += ["new-session", "-d", "-s", self.session, *self._what(first), *move]
        taken = {pane.index for pane in sight.panes.values()}
        for program in missing:
            free = program.index is not None and program.index not in taken
            where = f"={self.session}:{program.index if free else ''}"
            call += [*([";"] if call else []), "new-window", "-d", "-t", where]
            call += self._what(program)
        await self._tmux(*call)

    async def respawn(self, program: Program, pane: Pane | None) -> None:
        """Start the program again in its window, killing what is left in it.

        A window that is not there is opened. Raises WindowsError.
        """
        if pane is None:
            await self.open(program)
            return
        command = ("respawn-pane", "-k", "-t", pane.target, "-c", self._cwd, *program.command)
        await self._tmux(*command)

    async def last_words(self, pane: Pane, lines: int = 20) -> str:
        """The last lines that the window shows, without empty ones; "" when it is gone."""
        try:
            shown = await self._tmux("capture-pane", "-p", "-S", "-", "-t", pane.target)
        except WindowsError:
            return ""
        words = [line.rstrip() for line in shown if line.strip()]
        words = [line for line in words if not line.startswith("Pane is dead")]
        return "\n".join(words[-lines:])

    async def mark(self, states: Mapping[str, str]) -> None:
        """Show each window's state in the status line; "" shows the name alone."""
        call: list[str] = []
        for target, state in states.items():
            call += [*([";"] if call else []), "set-option", "-w", "-t", target, "@state", state]
        if call:
            await self._tmux(*call)

    async def close(self) -> None:
        """End the session and all that is left in it, for those too who look on in sessions that
        share its windows. Safe when it is not there.
        """
        sight = await self.look()
        if sight.presence is Presence.ALIVE:
            for onlooker in await self._onlookers():
                with contextlib.suppress(WindowsError):  # it went away by itself
                    await self._tmux("kill-session", "-t", f"={onlooker}")
            await self._tmux("kill-session", "-t", f"={self.session}")
        elif sight.presence is Presence.UNKNOWN:
            raise WindowsError(f"tmux session {self.session}: {sight.reason}")

    async def _onlookers(self) -> list[str]:
        """Sessions that share our windows and would keep them alive."""
        try:
            lines = await self._tmux("list-sessions", "-F", "#{session_name}|#{session_group}")
        except WindowsError:
            return []
        pairs = [line.rsplit("|", 1) for line in lines]
        return [name for name, group in pairs if group == self.session and name != group]

    def server_pid(self) -> int | None:
        """The tmux server of this socket, found among the processes; None: there is none."""
        wanted = f"-S{self.socket}"
        for process in psutil.process_iter(["name", "cmdline", "status"]):
            seen = process.info
            ours = (seen["name"] or "").startswith("tmux: server")
            if (
                ours
                and seen["status"] != psutil.STATUS_ZOMBIE
                and wanted in (seen["cmdline"] or ())
            ):
                return int(process.pid)
        return None

    def _what(self, program: Program) -> list[str]:
        return ["-n", program.name, "-c", self._cwd, *program.command]

    async def _tmux(self, *command: str) -> list[str]:
        work = asyncio.to_thread(self._server.cmd, *command)
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                done = await work
        except exc.TmuxCommandNotFound as error:
            raise WindowsError(NO_TMUX) from error
        except TimeoutError as error:
            self._end_stuck()
            raise WindowsError(f"tmux did not answer within {CALL_LIMIT_S:g} s") from error
        except (OSError, exc.LibTmuxException) as error:
            raise WindowsError(f"tmux {command[0]}: {error}") from error
        if done.returncode != 0:
            said = "; ".join(done.stderr) or f"exit code {done.returncode}"
            raise WindowsError(f"tmux {command[0]}: {said}")
        return list(done.stdout)

    def _end_stuck(self) -> None:
        """End our own tmux clients that hang, so that their threads come free."""
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if f"-S{self.socket}" in child.cmdline():
                    child.kill()


def _pane(row: Sequence[str]) -> Pane:
    pid, code, number = int(row[5]), row[7], row[8]
    exit_code = int(code) if code else -int(number) if number.isdigit() else None
    # A child that holds the terminal keeps a dead program's pane open: ask the kernel as well.
    dead = row[6] == "1" or ended(pid)
    return Pane(
        name=row[9], index=int(row[2]), target=row[4], pid=pid, dead=dead, exit_code=exit_code
    )


def ended(pid: int) -> bool:
    """Whether that process runs no more, by the kernel's word."""
    return _state(pid) in {"", "Z", "X"}


def _state(pid: int) -> str:
    """The kernel's letter for a process's state; "" when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
