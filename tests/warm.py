"""Programs of ours started from a process that has imported them already.

A start of an agent is a second of imports. Here it is a fork: the program's own `__main__` runs in
a process of its own as ever, with its own arguments, environment, streams and signals.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
FDS = 4


class Started:
    """A running program: what the tests need of `subprocess.Popen`."""

    def __init__(self, line: socket.socket, stdin: int) -> None:
        self._line = line
        self.stdin = os.fdopen(stdin, "wb")
        self.pid = int(line.recv(32))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._line.settimeout(timeout)
            try:
                told = self._line.recv(32)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("warm", timeout or 0.0) from None
            if not told:
                raise RuntimeError("the process that starts others is gone")
            self.returncode = int(told)
            self._line.close()
            self.stdin.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _starter(module: str) -> socket.socket:
    """The line to the process that has `module` imported; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), module],
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
        )
    return ours


def start(
    module: str, *arguments: str, env: Mapping[str, str], output: int, errors: int | None = None
) -> Started:
    """`python -m module arguments`, what it prints in the descriptors; errors None: in `output`."""
    theirs_in, ours_in = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asked = json.dumps({"argv": arguments, "env": dict(env)}).encode()
    try:
        fds = [theirs.fileno(), theirs_in, output, output if errors is None else errors]
        socket.send_fds(_starter(module), [asked], fds)
    finally:
        theirs.close()
        os.close(theirs_in)
    return Started(ours, ours_in)


def run(
    module: str, *arguments: str, env: Mapping[str, str], given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Start it with `given` as its whole input, and wait for its end."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        made = start(module, *arguments, env=env, output=output.fileno(), errors=errors.fileno())
        with contextlib.suppress(BrokenPipeError), made.stdin:
            made.stdin.write(given.encode())
        code = made.wait(300)
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(
            [module, *arguments], code, output.read().decode(), errors.read().decode()
        )


def _serve(line: socket.socket, module: str) -> None:
    """Fork for each request; tell the pid at once and the exit code in the end."""
    running: dict[int, socket.socket] = {}
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    poll.register(line, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == woken:
                os.read(woken, 4096)
                for pid in list(running):
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    if ended:
                        with contextlib.suppress(OSError), running.pop(pid) as told:
                            told.send(str(os.waitstatus_to_exitcode(status)).encode())
                continue
            asked, fds, _, _ = socket.recv_fds(line, 1_000_000, FDS)
            if not asked:
                return
            given, told = json.loads(asked), socket.socket(fileno=fds[0])
            pid = os.fork()
            if pid == 0:
                kept = [line, told, *running.values()]
                _become(module, given, fds[1:], [*(one.fileno() for one in kept), woken, wakes])
            for given_fd in fds[1:]:
                os.close(given_fd)
            running[pid] = told
            told.send(str(pid).encode())


def _become(module: str, given: dict[str, Any], streams: list[int], kept: list[int]) -> NoReturn:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for place, fd in enumerate(streams):
        os.dup2(fd, place)
    for fd in {*streams, *kept}:
        os.close(fd)
    os.environ.clear()
    os.environ.update(given["env"])
    sys.argv = [module, *given["argv"]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit(0)


def _prepare(module: str) -> None:
    """Import all of it but what runs as `__main__`."""
    if module == "agents":
        from base import llm

        importlib.import_module("agents.__main__")
        llm._sdk()
        del sys.modules["agents.__main__"]
    else:
        importlib.import_module(module)
        importlib.import_module("httpx")
        del sys.modules[module]


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    _prepare(sys.argv[2])
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
