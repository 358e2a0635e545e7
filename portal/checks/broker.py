"""The root broker: it answers a question that changes nothing."""

from __future__ import annotations

from base import broker
from base.deadline import Deadline
from base.verbs import By, Nothing
from portal.checks.check import DEADLINE_S, Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    said = await broker.call(
        sight.settings.broker,
        "domain.list",
        Nothing(),
        by=By(role="system"),
        deadline=Deadline.after(DEADLINE_S),
    )
    return said.ok, "answers"


CHECK = Check(
    name="broker",
    mend="systemctl restart ai-provision; journalctl -u ai-provision -n 50",
    look=look,
    appliance=True,
)
