"""The backup: how old the last good one is. Without a timer (local mode) only what was set up
counts as a promise.
"""

from __future__ import annotations

from datetime import UTC, datetime

from base.backup import record, rules
from portal.checks.check import Check, Finding
from portal.checks.sight import Sight

#: A day, and room for the timer's random delay and a slow run.
LATE_S = 26 * 3600.0


async def look(sight: Sight) -> Finding:
    settings = sight.settings
    promised = sight.appliance or rules.path(settings).is_file()
    last = record.last(settings)
    if last is None:
        return not promised, "none yet: ai-infra backup create"
    age_s = (datetime.now(UTC) - last.at).total_seconds()
    said = f"{last.snapshot} of {age_s / 3600:.1f} h ago in {last.place}"
    if last.problem:
        return False, f"the last try failed ({last.problem}); the last good one: {said}"
    return age_s < LATE_S or not promised, said


CHECK = Check(
    name="backup",
    mend="ai-infra backup create; on the appliance: systemctl status ai-backup.timer",
    look=look,
)
