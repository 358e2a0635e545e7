"""The windows of the agents' tmux session, as a browser looks into them.

Each look is a tmux client of its own in a pseudo-terminal, in a session that shares the windows and
nothing else: it picks its window without moving anybody's, has no key table (Ctrl+b and the rest go
to the program, or nowhere), and goes away with its client. The terminal is always as large as the
window, so no browser resizes what people work in.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
import time
import uuid
from dataclasses import dataclass

from base import log
from base.errors import NotFoundError, WindowsError
from base.settings import Settings

SESSION = "ai-infrastructure"
CALL_LIMIT_S = 5.0
#: All terminals of a portal share one look of so long.
KEEP_S = 1.5
END_S = 2.0
READ_BYTES = 32 * 1024
HISTORY_LINES = 2_000
_FORMAT = "|".join(
    f"#{{{name}}}"
    for name in ("window_id", "window_index", "window_width", "window_height", "pane_dead")
)
NO_SESSION = f"tmux session {SESSION} is not running; start it with: ai-infra up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window as seen once. `dead`: its program has ended; what it wrote still stands there."""

    id: str
    index: int
    name: str
    columns: int
    rows: int
    dead: bool


class Terminals:
    """The tmux server of one installation, asked by its own command."""

    def __init__(self, settings: Settings) -> None:
        self._line = ("tmux", "-N", "-u", "-S", str(settings.tmux_socket))
        self._lock = asyncio.Lock()
        self._looked_s = float("-inf")
        self._found: tuple[Window, ...] = ()

    async def windows(self) -> tuple[Window, ...]:
        """Every window, in order; at most `KEEP_S` old. Raises WindowsError without a session."""
        async with self._lock:
            if time.monotonic() - self._looked_s >= KEEP_S:
                said = await self._call(
                    "list-windows", "-t", f"={SESSION}", "-F", f"{_FORMAT}|#{{window_name}}"
                )
                self._found = tuple(_window(line) for line in said.splitlines())
                self._looked_s = time.monotonic()
            return self._found

    async def window(self, name: str) -> Window:
        """The window of that name. Raises NotFoundError, WindowsError."""
        found = await self.windows()
        for one in found:
            if one.name == name:
                return one
        known = ", ".join(one.name for one in found)
        raise NotFoundError(f"no window {name!r}; there are: {known}")

    async def history(self, window: Window) -> bytes:
        """What scrolled off the window's screen, with its colours; at most `HISTORY_LINES`."""
        start = ("-S", str(-HISTORY_LINES), "-E", "-1")
        said = await self._call("capture-pane", "-p", "-e", "-t", window.id, *start)
        # Without history tmux answers with the first line of the screen.
        lines = await self._call("display-message", "-p", "-t", window.id, "#{history_size}")
        return said.rstrip("\n").encode() if int(lines.strip() or 0) else b""

    async def open(self, window: Window, *, typing: bool) -> Screen:
        """Attach to a window; `typing`: what is written reaches its program. Close the screen."""
        name = f"portal-{uuid.uuid4().hex[:12]}"
        flags = "ignore-size" if typing else "read-only,ignore-size"
        option = ("set-option", "-t", name)
        line = [
            *(*self._line, "has-session", "-t", f"={SESSION}", ";"),
            *("new-session", "-E", "-t", SESSION, "-s", name, "-f", flags, ";"),
            *(*option, "status", "off", ";", *option, "mouse", "off", ";"),
            *(*option, "prefix", "None", ";", *option, "prefix2", "None", ";"),
            *(*option, "key-table", "none", ";"),
            *("select-window", "-t", f"{name}:{window.index}", ";"),
            *(*option, "destroy-unattached", "on"),
        ]
        return await Screen.start(line, window)

    async def _call(self, *command: str) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *(*self._line, *command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError as error:
            raise WindowsError("tmux is not installed: apt-get install tmux") from error
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                said, fault = await process.communicate()
        except TimeoutError as error:
            raise WindowsError(f"tmux did not answer within {CALL_LIMIT_S:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            reason = fault.decode(errors="replace").strip()
            log.get("portal").debug("tmux refused", command=command[0], reason=reason)
            raise WindowsError(NO_SESSION)
        return said.decode(errors="replace")


class Screen:
    """One attached client. `close` it when nobody reads or writes any more."""

    def __init__(self, master: int, process: asyncio.subprocess.Process) -> None:
        self._master = master
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._closed = False

    @classmethod
    async def start(cls, line: list[str], window: Window) -> Screen:
        """Run `line` in a pseudo-terminal as large as the window. Raises WindowsError."""
        master, slave = pty.openpty()
        try:
            _resize(master, window.columns, window.rows)
            os.set_blocking(master, False)
            process = await asyncio.create_subprocess_exec(
                *line,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
                env={"TERM": "xterm-256color", "LANG": "C.UTF-8", "PATH": os.environ["PATH"]},
            )
        except OSError as error:
            os.close(master)
            raise WindowsError(f"tmux cannot be started: {error.strerror}") from error
        finally:
            os.close(slave)
        return cls(master, process)

    async def read(self) -> bytes:
        """What tmux drew since; b"" once the client has ended."""
        while True:
            try:
                return os.read(self._master, READ_BYTES)
            except BlockingIOError:
                ready = self._loop.create_future()
                self._loop.add_reader(self._master, _wake, ready)
                try:
                    await ready
                finally:
                    self._loop.remove_reader(self._master)
            except OSError:  # EIO: nobody holds the other end any more
                return b""

    async def write(self, text: bytes) -> None:
        """Type. Raises WindowsError once the client has ended."""
        while text:
            try:
                text = text[os.write(self._master, text) :]
            except BlockingIOError:
                ready = self._loop.create_future()
                self._loop.add_writer(self._master, _wake, ready)
                try:
                    await ready
                finally:
                    self._loop.remove_writer(self._master)
            except OSError as error:
                raise WindowsError("the window is closed") from error

    def fit(self, window: Window) -> None:
        """Follow the window's size. The client has no terminal that would signal it."""
        _resize(self._master, window.columns, window.rows)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGWINCH)

    async def close(self) -> None:
        """End the client and reap it; its session goes with it. Safe twice."""
        if self._closed:
            return
        self._closed = True
        os.close(self._master)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await self._process.wait()
                    return


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _resize(master: int, columns: int, rows: int) -> None:
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _window(line: str) -> Window:
    window_id, index, columns, rows, dead, name = line.split("|", 5)
    return Window(
        id=window_id,
        index=int(index),
        name=name,
        columns=int(columns),
        rows=int(rows),
        dead=dead == "1",
    )
