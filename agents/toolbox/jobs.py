"""Commands in the background: started by `shell`, looked after by `jobs`."""

from __future__ import annotations

import time

from .processes import Processes, Running
from .shell import Shell
from .wire import Refused, clean

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from typing import Any

RUNNING_MAX = 16
KEPT_MAX = 64
_POLL_S = 0.5
#: What a job prints in its first moment is told at once: most that fail do so then.
_FIRST_S = 0.3


class Job:
    """One command. `killed` says by whom, when it did not end by itself."""

    def __init__(self, number: int, command: str, running: Running) -> None:
        self.number = number
        self.command = command
        self.running = running
        self.begun_s = time.monotonic()
        self.killed = ""

    def state(self) -> str:
        code = self.running.code
        if code is None:
            return f"running for {time.monotonic() - self.begun_s:.0f} s"
        if self.killed:
            return self.killed
        late = self.running.at_s is not None and time.monotonic() >= self.running.at_s
        if code < 0:
            return f"killed by signal {-code}" + (", its time limit passed" if late else "")
        return f"ended with exit code {code}"


class Jobs:
    """Jobs have numbers from 1 on, never used twice in a task."""

    def __init__(self, shell: Shell, processes: Processes) -> None:
        self._shell = shell
        self._processes = processes
        self._jobs: dict[int, Job] = {}
        self._count = 0

    def start(self, command: str, limit_s: float | None) -> dict[str, Any]:
        running = [job for job in self._jobs.values() if job.running.code is None]
        if len(running) >= RUNNING_MAX:
            raise Refused(f"{RUNNING_MAX} jobs are running: kill one first (jobs, verb kill)")
        self._forget()
        self._count += 1
        process = self._shell.job(command, f"job-{self._count}")
        process.at_s = None if limit_s is None else time.monotonic() + limit_s
        job = self._jobs[self._count] = Job(self._count, command, process)
        self._wait(job, time.monotonic() + _FIRST_S, None)
        return {"ok": process.code in {None, 0}, "text": self._told(job)}

    def answer(self, given: dict[str, Any], at_s: float, number: int) -> dict[str, Any]:
        """The tool `jobs`."""
        if given["verb"] == "list":
            rows = [
                f"job {job.number}: {job.state()}: {clean(' '.join(job.command.split()))[:100]}"
                for job in self._jobs.values()
            ]
            return {"ok": True, "text": "\n".join(rows) or "no job was started"}
        job = self._job(given.get("job"))
        if given["verb"] == "kill":
            if job.running.code is None:
                self._processes.kill_job(job.running)
                job.killed = "killed, with all it had started"
        else:
            wait_s = float(given.get("wait_s", 0))
            self._wait(job, min(at_s, time.monotonic() + wait_s), number)
        return {"ok": True, "text": self._told(job)}

    def _job(self, number: int | None) -> Job:
        if number is None:
            raise Refused("jobs: field 'job' is missing: which one?")
        if number not in self._jobs:
            known = ", ".join(map(str, self._jobs)) or "none"
            raise Refused(f"there is no job {number}; there are: {known}")
        return self._jobs[number]

    def _wait(self, job: Job, at_s: float, number: int | None) -> None:
        """Until it ended, `at_s` passed, or the call `number` was stopped."""
        self._processes.pump(0)
        while job.running.code is None and (left_s := at_s - time.monotonic()) > 0:
            if number is not None and self._processes.lines.stopped(number):
                return
            self._processes.pump(min(left_s, _POLL_S))

    def _told(self, job: Job) -> str:
        job.running.output.drain()
        printed = job.running.output.take().rstrip("\n")
        head = f"job {job.number}: {job.state()}"
        return f"{head}\n{printed}" if printed.strip() else f"{head}\n(no new output)"

    def _forget(self) -> None:
        """Drop the oldest ended jobs, so that a long task keeps no more than it needs."""
        ended = [number for number, job in self._jobs.items() if job.running.code is not None]
        for number in ended[: max(0, len(self._jobs) - KEPT_MAX + 1)]:
            job = self._jobs.pop(number)
            job.running.output.close()
            self._processes.jobs.remove(job.running)
