"""What wakes the watchdog before its next look: the death of a process (pidfd), or a request."""

from __future__ import annotations

import asyncio
import contextlib
import os

#: tmux needs a moment after a death to reap the child and say its exit code.
REAP_S = 0.05


class Wake:
    """One waiter; any number of processes to wait for, which need not be our children."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._files: dict[str, dict[int, int]] = {}

    def soon(self) -> None:
        """Make the present or the next wait end at once."""
        self._event.set()

    def on_exit(self, group: str, pids: set[int]) -> None:
        """Let the end of any of `pids` wake; replaces what `group` waited for before."""
        files = self._files.setdefault(group, {})
        for pid in files.keys() - pids:
            self._drop(files, pid)
        for pid in pids - files.keys():
            with contextlib.suppress(OSError):  # gone already: the next look tells
                files[pid] = os.pidfd_open(pid)
                asyncio.get_running_loop().add_reader(files[pid], self._died, files, pid)

    async def wait(self, limit_s: float) -> None:
        """Until something wakes, or `limit_s`."""
        try:
            async with asyncio.timeout(limit_s):
                await self._event.wait()
            await asyncio.sleep(REAP_S)
        except TimeoutError:
            pass
        self._event.clear()

    def close(self) -> None:
        for files in self._files.values():
            for pid in list(files):
                self._drop(files, pid)

    def _died(self, files: dict[int, int], pid: int) -> None:
        self._drop(files, pid)
        self._event.set()

    def _drop(self, files: dict[int, int], pid: int) -> None:
        number = files.pop(pid)
        asyncio.get_running_loop().remove_reader(number)
        os.close(number)
