"""What one sandbox takes of the machine, measured from outside; past its limits it is ended.

Each process is limited from inside (`toolbox/server.py`); this is the sum over all of them, and the
disk, which no limit of a process bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

from base.levels import Limits

LOOK_S = 0.25
#: The hands end when less than this is left on the workspace's disk.
DISK_FLOOR_BYTES = 512 << 20
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


async def exceeded(pid: int, limits: Limits, workspace: Path) -> str:
    """Wait until the sandbox with process 1 `pid` takes too much; the reason, in a line."""
    while True:
        await asyncio.sleep(LOOK_S)
        memory_bytes, cpu_s = taken(pid)
        if memory_bytes > limits.memory_bytes:
            return (
                f"it used {memory_bytes / 1e6:,.0f} MB of memory, "
                f"{limits.memory_bytes / 1e6:,.0f} MB are its limit"
            )
        if cpu_s > limits.cpu_s:
            return f"it used {cpu_s:,.0f} s of processor time, {limits.cpu_s:,} s are its limit"
        with contextlib.suppress(OSError):
            free_bytes = shutil.disk_usage(workspace).free
            if free_bytes < DISK_FLOOR_BYTES:
                return f"the disk of the workspace is full: {free_bytes / 1e6:,.0f} MB are left"


def taken(pid: int) -> tuple[int, float]:
    """(bytes of memory, seconds of processor) of a process and all that descends from it.

    Memory that processes share counts once for each, but for files' pages, which do not count:
    what the kernel can take back is no cost.
    """
    memory_bytes, cpu_s = 0, 0.0
    left = [pid]
    while left:
        one = left.pop()
        try:
            left += [int(child) for child in _children(one)]
            resident, shared = Path(f"/proc/{one}/statm").read_bytes().split()[1:3]
            fields = Path(f"/proc/{one}/stat").read_bytes().rpartition(b")")[2].split()
        except (OSError, ValueError):
            continue
        memory_bytes += (int(resident) - int(shared)) * _PAGE_BYTES
        cpu_s += sum(map(int, fields[11:15])) / _TICKS
    return memory_bytes, cpu_s


def _children(pid: int) -> list[bytes]:
    found: list[bytes] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            found += Path(f"/proc/{pid}/task/{task}/children").read_bytes().split()
    return found
