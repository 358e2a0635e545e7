"""What does an idle installation cost? Model calls, CPU and memory of all its processes.

Memory is the sum of resident sets (shared pages counted once for each process, so it errs high);
the proportional sum is shown beside it. Each agent answers one task first, so that nothing that
loads at the first use is left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import psutil

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests")]

from installation import Installation, installation, post, wait_task

AGENTS = ("code", "data", "infra", "research", "qa")


def processes(made: Installation) -> list[psutil.Process]:
    """Every process whose environment or arguments belong to this home."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("AI_INFRA_HOME") == str(made.home)
            ours = ours or str(made.home) in " ".join(process.cmdline())
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if ours and process.pid != psutil.Process().pid:
            found.append(process)
    known = {process.pid for process in found}
    for process in list(found):
        for child in process.children(recursive=True):
            if child.pid not in known:
                known.add(child.pid)
                found.append(child)
    return found


def label(process: psutil.Process) -> str:
    line = process.cmdline() or [process.name()]
    if "-m" in line:
        return " ".join(line[line.index("-m") + 1 :])
    return Path(line[0].split(":")[0]).name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    with installation(local_workers="true") as made, made.client() as client:
        for agent in AGENTS:
            sent = post(client, "Hello.", effort="minimal", agent=agent)
            assert wait_task(client, sent["task_id"])["task"]["status"] == "completed"
        rehearsal = f"http://127.0.0.1:{made.port + 1}/rehearsal/calls"
        time.sleep(15)
        before = client.get(rehearsal).json()["calls"]
        watched = processes(made)
        cpu = {process: sum(process.cpu_times()[:2]) for process in watched}
        time.sleep(options.seconds)
        rows = []
        for process in watched:
            spent = sum(process.cpu_times()[:2]) - cpu[process]
            memory = process.memory_full_info()
            percent = 100 * spent / options.seconds
            rows.append((label(process), percent, memory.rss / 2**20, memory.pss / 2**20))
        after = client.get(rehearsal).json()["calls"]
    rows.sort(key=lambda row: -row[2])
    print(f"{'process':<44}{'CPU %':>8}{'RSS MB':>9}{'PSS MB':>9}")
    for name, percent, rss, pss in rows:
        print(f"{name[:43]:<44}{percent:>8.2f}{rss:>9.1f}{pss:>9.1f}")
    total = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
    print(f"{'all':<44}{total[0]:>8.2f}{total[1]:>9.1f}{total[2]:>9.1f}\n")
    memory_mb = sum(row[2] for row in rows if row[0] in {"pai", "workers embed score"})
    agent_mb = max(row[2] for row in rows if row[0].startswith("agents "))
    print(f"figure idle.model_calls {after - before} calls")
    print(f"figure idle.cpu_percent {total[0]:.2f} %")
    print(f"figure idle.rss_mb {total[1]:.0f} MB")
    print(f"figure idle.memory_rss_mb {memory_mb:.0f} MB")
    print(f"figure idle.agent_rss_mb {agent_mb:.1f} MB")


if __name__ == "__main__":
    main()
