"""What one sandbox takes of the machine, measured from outside; past its limits it is ended.

Each process is limited from inside (`toolbox/server.py`); this is the sum over all of them, and the
disk, which no limit of a process bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from base.levels import Limits

LOOK_S = 0.25
#: The hands end when less than this is left on the workspace's disk, or of the machine's memory.
DISK_FLOOR_BYTES = 512 << 20
MEMORY_FLOOR_BYTES = 128 << 20
_FILES_FLOOR = 10_000
_TICKS = os.sysconf("SC_CLK_TCK")


async def exceeded(pid: int, limits: Limits, workspace: Path) -> str:
    """Wait until the sandbox with process 1 `pid` takes too much; the reason, in a line."""
    while True:
        await asyncio.sleep(LOOK_S)
        machine = _numbers("/proc/meminfo")
        memory_bytes, cpu_s = taken(pid)
        if memory_bytes > limits.memory_bytes:
            memory_bytes, cpu_s = await asyncio.to_thread(taken, pid, exact=True)
        if machine.get("Shmem", 0) > limits.memory_bytes:
            memory_bytes = max(memory_bytes, in_files(pid))
        if memory_bytes > limits.memory_bytes:
            return (
                f"it used {memory_bytes / 1e6:,.0f} MB of memory, "
                f"{limits.memory_bytes / 1e6:,.0f} MB are its limit"
            )
        if cpu_s > limits.cpu_s:
            return f"it used {cpu_s:,.0f} s of processor time, {limits.cpu_s:,} s are its limit"
        left_bytes = machine.get("MemAvailable", MEMORY_FLOOR_BYTES)
        if left_bytes < MEMORY_FLOOR_BYTES:
            return f"the machine is short of memory: {left_bytes / 1e6:,.0f} MB are left"
        with contextlib.suppress(OSError):
            free_bytes = shutil.disk_usage(workspace).free
            if free_bytes < DISK_FLOOR_BYTES:
                return f"the disk of the workspace is full: {free_bytes / 1e6:,.0f} MB are left"
            disk = os.statvfs(workspace)
            if disk.f_files > 0 and disk.f_favail < _FILES_FLOOR:
                return f"the disk of the workspace is full: {disk.f_favail:,} more files fit on it"


def taken(pid: int, *, exact: bool = False) -> tuple[int, float]:
    """(bytes of memory, seconds of processor) of a process and all that descends from it.

    Memory that processes share counts once for each, or, when `exact`, once in all; that is dear.
    Files' pages do not count, as the kernel can take them back, but those of files in memory do.
    """
    memory_bytes, cpu_s = 0, 0.0
    for one in _family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_bytes().rpartition(b")")[2].split()
            memory_bytes += _resident(one, exact=exact)
        except (OSError, ValueError):
            continue
        cpu_s += sum(map(int, fields[11:15])) / _TICKS
    return memory_bytes, cpu_s


def in_files(pid: int) -> int:
    """Bytes of the nameless files in memory that these processes hold, mapped or not."""
    held: dict[int, int] = {}
    for one in _family(pid):
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{one}/fd"):
                path = f"/proc/{one}/fd/{fd}"
                with contextlib.suppress(OSError):
                    if os.readlink(path).startswith("/memfd:"):
                        status = os.stat(path)
                        held[status.st_ino] = status.st_blocks * 512
    return sum(held.values())


def _resident(pid: int, *, exact: bool) -> int:
    if exact:
        with contextlib.suppress(OSError):
            parts = _numbers(f"/proc/{pid}/smaps_rollup")
            if "Pss_Anon" in parts:
                return parts["Pss_Anon"] + parts["Pss_Shmem"]
    parts = _numbers(f"/proc/{pid}/status")
    return parts.get("RssAnon", 0) + parts.get("RssShmem", 0)


def _numbers(path: str) -> dict[str, int]:
    """The lines `name: 12 kB` of a file of the kernel, in bytes."""
    rows = (line.split() for line in Path(path).read_bytes().splitlines())
    found = (row for row in rows if len(row) == 3 and row[2] == b"kB")
    return {name.decode().rstrip(":"): int(kilobytes) << 10 for name, kilobytes, _ in found}


def _family(pid: int) -> Iterator[int]:
    left = [pid]
    while left:
        one = left.pop()
        with contextlib.suppress(OSError):
            left += [int(child) for child in _children(one)]
        yield one


def _children(pid: int) -> list[bytes]:
    found: list[bytes] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            found += Path(f"/proc/{pid}/task/{task}/children").read_bytes().split()
    return found
