"""Hooks of one moment: all at once, each with what it reads, each until its own deadline."""

from __future__ import annotations

import os
import time

from .output import Output
from .processes import Processes, Running
from .wire import Refused, clean_output, clip

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from typing import Any

_TEXT_MAX_BYTES = 32_000
_POLL_S = 0.5


class Hooks:
    """Nothing that a hook started outlives the moment."""

    def __init__(self, processes: Processes, env: dict[str, str]) -> None:
        self._processes = processes
        self._env = env

    def run(self, jobs: list[dict[str, Any]], number: int) -> dict[str, Any]:
        """How each ended, in order: its code (None: killed here, or never begun), what it said."""
        begun = [self._start(job, place) for place, job in enumerate(jobs)]
        running = [one[0] for one in begun if isinstance(one, tuple)]
        while any(one.code is None for one in running):
            if self._processes.lines.stopped(number):
                for one in running:
                    self._processes.kill_job(one)
                break
            self._processes.pump(_POLL_S)
        if running:
            self._processes.kill_since(running[0])
        self._processes.jobs = [one for one in self._processes.jobs if one not in running]
        ran = [_told(one, jobs[place]) for place, one in enumerate(begun)]
        return {"ok": True, "text": "", "ran": ran}

    def _start(self, job: dict[str, Any], place: int) -> tuple[Running, Output] | str:
        """The hook and what it says on 2; a reason when it cannot be started."""
        stdin = os.memfd_create("hook")
        read, write = os.pipe()
        os.set_blocking(read, False)
        complaints = Output(read, f"/tmp/output/hook-{place}.err", 0)
        try:
            _fill(stdin, job["stdin"].encode("utf-8", "replace"))
            argv = ["/bin/bash", "--noprofile", "--norc", "-c", job["command"]]
            running = self._processes.start_job(
                argv,
                {**self._env, **job["environment"]},
                f"/tmp/output/hook-{place}.txt",
                {0: stdin, 2: write},
            )
        except (OSError, Refused) as error:
            complaints.close()
            return str(error)
        finally:
            os.close(stdin)
            os.close(write)
        running.at_s = time.monotonic() + float(job["limit_s"])
        self._processes.also(complaints)
        return running, complaints


def _fill(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
    os.lseek(fd, 0, os.SEEK_SET)


def _told(begun: tuple[Running, Output] | str, job: dict[str, Any]) -> dict[str, Any]:
    if isinstance(begun, str):
        return {"code": None, "stdout": "", "stderr": "", "fault": f"did not run: {begun}"}
    running, complaints = begun
    for output in (running.output, complaints):
        output.drain()
        output.close()
    said = {"stdout": _text(running.output), "stderr": _text(complaints)}
    if running.at_s is not None and time.monotonic() >= running.at_s and (running.code or 0) < 0:
        fault = f"was killed at its deadline of {float(job['limit_s']):g} s"
        return {"code": None, "fault": fault, **said}
    return {"code": running.code, "fault": "", **said}


def _text(output: Output) -> str:
    return clip(clean_output(output.raw()), _TEXT_MAX_BYTES)
