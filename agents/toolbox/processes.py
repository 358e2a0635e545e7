"""Every process of the sandbox but this program and process 1, which reaps the orphans."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import time

from .output import Output
from .wire import Lines, Refused

_POLL_S = 0.5
_KILL_S = 2.0
_F_SETPIPE_SZ = 1031
_DEFAULTS = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGALRM, signal.SIGCHLD, signal.SIGINT]
#: What a command may send to all it sees; this program goes on.
_UNHEARD = [
    signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
]  # fmt: skip


class Running:
    """A command. `code` is its exit code, negative for a signal, None while it runs.

    `before`: the sessions that were there when it began; `at_s`: when a job is killed.
    """

    def __init__(self, pid: int, output: Output, before: set[int]) -> None:
        self.pid = pid
        self.output = output
        self.code: int | None = None
        self.before = before
        self.at_s: float | None = None


class Processes:
    """Starts commands one at a time and watches jobs and what was left behind."""

    def __init__(self, lines: Lines, output_max_bytes: int) -> None:
        self.lines = lines
        self._output_max_bytes = output_max_bytes
        self.jobs: list[Running] = []
        self._leftover: list[Output] = []
        self._wake, wake_write = os.pipe()
        for fd in (self._wake, wake_write):
            os.set_blocking(fd, False)
        for number in (signal.SIGCHLD, *_UNHEARD):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._now: Running | None = None
        self._count = 0

    def start(
        self, argv: list[str], env: dict[str, str], given: dict[int, int] | None = None
    ) -> Running:
        """Start `argv` in a session of its own, output in one pipe. Refused when it cannot.

        `given`: further descriptors it gets, by the number they have there.
        """
        self._count += 1
        path = f"/tmp/output/{self._count}.txt"
        with contextlib.suppress(OSError):
            os.unlink(f"/tmp/output/{self._count - 10}.txt")
        self._now = self._spawn(argv, env, path, given or {})
        return self._now

    def start_job(
        self,
        argv: list[str],
        env: dict[str, str],
        path: str,
        given: dict[int, int] | None = None,
    ) -> Running:
        """The same for a command that nobody waits for; `path` takes the output."""
        running = self._spawn(argv, env, path, given or {})
        self.jobs.append(running)
        return running

    def _spawn(
        self, argv: list[str], env: dict[str, str], path: str, given: dict[int, int]
    ) -> Running:
        read, write = os.pipe()
        os.set_blocking(read, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(write, _F_SETPIPE_SZ, 1 << 20)
        before = {session for _, session in processes()}
        actions = [
            (os.POSIX_SPAWN_DUP2, self._null, 0),
            (os.POSIX_SPAWN_DUP2, write, 1),
            (os.POSIX_SPAWN_DUP2, write, 2),
            *((os.POSIX_SPAWN_DUP2, ours, there) for there, ours in given.items()),
        ]
        try:
            pid = os.posix_spawn(
                argv[0], argv, env, file_actions=actions, setsid=True, setsigdef=_DEFAULTS
            )
        except OSError as error:
            os.close(read)
            if error.errno == errno.EAGAIN and self.kill_all():
                return self._spawn(argv, env, path, given)
            raise Refused(f"cannot start {argv[0]}: {error.strerror}") from error
        finally:
            os.close(write)
        return Running(pid, Output(read, path, self._output_max_bytes), before)

    def wait(self, running: Running, at_s: float, number: int) -> str:
        """Until it ended. How: `exited`, or killed because of the `deadline` or a `stop`."""
        how = "exited"
        while running.code is None and how == "exited":
            left_s = at_s - time.monotonic()
            if left_s <= 0:
                how = "deadline"
            elif self.lines.stopped(number):
                how = "stop"
            else:
                self.pump(min(left_s, _POLL_S))
        if how != "exited":
            self._kill(running)
        running.output.drain()
        if running.output.open:
            self._leftover.append(running.output)
        self._now = None
        return how

    def pump(self, wait_s: float) -> None:
        """Wait for something to happen, at most `wait_s`, and take it in."""
        self._leftover = [output for output in self._leftover if output.open]
        outputs = [*self._leftover, *(job.output for job in self.jobs)]
        wait_s = self._overdue(wait_s)
        if self._now is not None:
            outputs = [*outputs, self._now.output]
        poll = select.poll()
        for output in outputs:
            if output.open:
                poll.register(output.fd, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        if not self.lines.ended:
            poll.register(self.lines.fd, select.POLLIN)
        found = {fd for fd, _ in poll.poll(wait_s * 1000)}
        if self.lines.fd in found:
            self.lines.fill()
        for output in outputs:
            if output.fd in found:
                output.pump()
        if self._wake in found:
            os.read(self._wake, 4096)
        self.reap()

    def reap(self) -> None:
        """Collect the dead, ours and the orphans that fell to process 1."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                for running in (*self.jobs, *([self._now] if self._now else ())):
                    if running.pid == pid:
                        running.code = os.waitstatus_to_exitcode(status)

    def left_behind(self, running: Running) -> int:
        """How many processes the ended command left in the background."""
        return sum(1 for _, session in processes() if session not in running.before)

    def kill_all(self) -> bool:
        """Kill all but this program; whether there was anything to kill."""
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            return False
        end_s = time.monotonic() + _KILL_S
        while processes() and time.monotonic() < end_s:
            self.reap()
            time.sleep(0.002)
        return True

    def kill_job(self, job: Running) -> None:
        """Kill a job and all that descends from it, in its session or another."""
        end_s = time.monotonic() + _KILL_S
        while time.monotonic() < end_s:
            mine = descendants(job.pid)
            if not mine and job.code is not None:
                break
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in mine:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            self.reap()
            time.sleep(0.002)
        job.output.drain()

    def kill_since(self, running: Running) -> None:
        """Kill all that was started since `running` began, itself included."""
        self._kill(running)

    def also(self, output: Output) -> None:
        """Read from `output`, too, until it is closed."""
        self._leftover.append(output)

    def _overdue(self, wait_s: float) -> float:
        """Kill the jobs whose time is up; how long to wait at most for the next."""
        for job in self.jobs:
            if job.at_s is None or job.code is not None:
                continue
            left_s = job.at_s - time.monotonic()
            if left_s <= 0:
                self.kill_job(job)
            else:
                wait_s = min(wait_s, left_s)
        return wait_s

    def _kill(self, running: Running) -> None:
        """Kill the command and all it started, even in sessions of their own; not earlier ones."""
        end_s = time.monotonic() + _KILL_S
        while time.monotonic() < end_s:
            mine = [pid for pid, session in processes() if session not in running.before]
            if not mine:
                return
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in mine:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            self.pump(0.002)
        self.kill_all()


def processes() -> list[tuple[int, int]]:
    """(pid, session) of every living process but this one."""
    return [(pid, session) for pid, _, session in _all()]


def descendants(top: int) -> list[int]:
    """The living processes that are `top`, in its session, or below one of these."""
    found = _all()
    mine = {pid for pid, _, session in found if top in {pid, session}}
    grew = True
    while grew:
        more = {pid for pid, parent, _ in found if parent in mine} - mine
        mine |= more
        grew = bool(more)
    return sorted(mine)


def _all() -> list[tuple[int, int, int]]:
    """(pid, parent, session) of every living process but this one."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in {1, os.getpid()}:
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] not in {b"Z", b"X"}:
            found.append((int(name), int(fields[1]), int(fields[3])))
    return found
