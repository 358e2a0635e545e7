"""Programs of ours started from a process that has imported them already.

A start of an agent is a second of imports. Here it is a fork: the program's own `__main__` runs in
a process of its own as ever, with its own arguments, environment, streams and signals.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FDS = 3


class Started:
    """A running program: what the tests need of `subprocess.Popen`."""

    def __init__(self, line: socket.socket, stdin: int) -> None:
        self._line = line
        self.stdin = os.fdopen(stdin, "wb")
        self.pid = int(line.recv(32))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(TimeoutError, subprocess.TimeoutExpired):
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

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


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


def start(module: str, *arguments: str, env: Mapping[str, str], output: int) -> Started:
    """`python -m module arguments`, its standard output and error in the descriptor `output`."""
    theirs_in, ours_in = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asked = json.dumps({"argv": arguments, "env": dict(env)}).encode()
    try:
        socket.send_fds(_starter(module), [asked], [theirs.fileno(), theirs_in, output])
    finally:
        theirs.close()
        os.close(theirs_in)
    return Started(ours, ours_in)


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
                _become(module, given, fds[1], fds[2], [*(one.fileno() for one in kept), woken])
            os.close(fds[1])
            os.close(fds[2])
            running[pid] = told
            told.send(str(pid).encode())


def _become(module: str, given: dict[str, Any], stdin: int, output: int, kept: list[int]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for fd, place in ((stdin, 0), (output, 1), (output, 2)):
        os.dup2(fd, place)
    for fd in {stdin, output, *kept}:
        os.close(fd)
    os.environ.clear()
    os.environ.update(given["env"])
    sys.argv = [module, *given["argv"]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    __import__(f"{sys.argv[2]}.__main__")
    del sys.modules[f"{sys.argv[2]}.__main__"]
    from base import llm

    llm._sdk()
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
