"""Lines typed into window 0. `/status` shows what goes on; the rest is told how to ask."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

from base.errors import StoreError
from base.plural import counted
from supervisor import record
from supervisor.parts import Parts


async def listen(parts: Parts) -> None:
    """Until cancelled. Without a terminal, or after its end, it only waits."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        line = sys.stdin.readline()
        if not line:
            loop.remove_reader(sys.stdin)
        else:
            lines.put_nowait(line.strip())

    terminal = sys.stdin is not None and sys.stdin.isatty()
    if terminal:
        loop.add_reader(sys.stdin, read)
    try:
        while True:
            line = await lines.get()
            if line == "/status":
                for told in await status(parts):
                    parts.tell(told)
            elif line:
                parts.tell("only /status is known here; ask with `ai-infra ask` or in the portal")
    finally:
        if terminal:
            loop.remove_reader(sys.stdin)


async def status(parts: Parts) -> list[str]:
    """What waits and runs, what today cost, and how each agent is."""
    try:
        roots = await record.pending_roots(parts.store, [], 1000)
        held = await record.held(parts.store)
    except StoreError as error:
        return [f"the record cannot be read: {error}"]
    hard_usd = parts.budgets.daily.hard_limit_usd
    spent_usd = sum(parts.spent.values())
    lines = [
        f"status · {counted(len(roots), 'request waits', 'requests wait')} · "
        f"{counted(len(held), 'subtask')} at work · "
        f"{len(parts.slots.names)} plans and joins · ${spent_usd:.2f} of ${hard_usd:.2f} today"
    ]
    now = datetime.now(UTC)
    for name in parts.agents:
        seen = parts.seen.get(name)
        heard = f"heard {(now - seen.at).total_seconds():.0f} s ago" if seen else "never heard"
        work = ", ".join(f"{task.root_id[:8]} {task.key}" for task in held if task.agent == name)
        lines.append(f"  {name}: {work or parts.barred(name) or 'free'} ({heard})")
    return lines
