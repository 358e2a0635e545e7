"""What each window's program costs the machine: it and everything it started."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """cpu_percent: of one processor, since the look before; 0 at the first."""

    cpu_percent: float
    rss_bytes: int


def measure(pids: Mapping[str, int]) -> dict[str, Load]:
    """By name, for those pids that live. One pass over all processes, some milliseconds."""
    seen: dict[int, Mapping[str, Any]] = {
        process.pid: process.info
        for process in psutil.process_iter(["ppid", "cpu_percent", "memory_info"])
    }
    children = defaultdict(list)
    for pid, info in seen.items():
        children[info["ppid"]].append(pid)
    found = {}
    for name, root in pids.items():
        if root not in seen:
            continue
        family, cpu_percent, rss_bytes = [root], 0.0, 0
        while family:
            pid = family.pop()
            family += children[pid]
            cpu_percent += seen[pid]["cpu_percent"] or 0.0
            rss_bytes += memory.rss if (memory := seen[pid]["memory_info"]) else 0
        found[name] = Load(cpu_percent=round(cpu_percent, 1), rss_bytes=rss_bytes)
    return found
