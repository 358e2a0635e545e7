"""Work that waits on the wire."""

from __future__ import annotations

from base import roster, streams
from base.plural import counted
from portal.checks.check import Check, Finding
from portal.checks.sight import Sight

#: Above this something does not keep up: the supervisor takes hundreds a second.
DEPTH = 1_000


async def look(sight: Sight) -> Finding:
    bus = await sight.bus()
    names = [streams.TASKS_NEW, streams.RESULTS, streams.USAGE, streams.MEMORY, streams.AUDIT]
    names += [streams.agent(name) for name in roster.load(sight.settings).agents]
    found = {name: await bus.depth(name) for name in names}
    long = [f"{name} {depth}" for name, depth in found.items() if depth > DEPTH]
    return not long, ", ".join(long) or counted(
        sum(found.values()), "message waits", "messages wait"
    )


CHECK = Check(
    name="queues",
    mend="ai-infra status; see {logs}/supervisor.log for what does not keep up",
    look=look,
)
