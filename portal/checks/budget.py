"""Today's spending against the daily limit."""

from __future__ import annotations

from datetime import UTC, datetime

from base import budgets
from base.messages import UNPAID_PROVIDER
from portal.checks.check import Check, Finding
from portal.checks.sight import Sight

SPENT = (
    "SELECT COALESCE(sum(cost_usd), 0) FROM api_usage"
    " WHERE (timestamp AT TIME ZONE 'UTC')::date = $1 AND provider <> $2"
)


async def look(sight: Sight) -> Finding:
    daily = budgets.load(sight.settings).daily
    store = await sight.store()
    spent_usd = float(await store.fetchval(SPENT, datetime.now(UTC).date(), UNPAID_PROVIDER))
    said = f"${spent_usd:.2f} of ${daily.hard_limit_usd:.2f} today"
    if spent_usd >= daily.hard_limit_usd:
        return False, f"{said}: no more work is given out"
    return True, said + (", above the warning" if spent_usd >= daily.warning_usd else "")


CHECK = Check(
    name="budget",
    mend="raise daily.hard_limit_usd in {config}/budgets.toml, or wait for midnight (UTC)",
    look=look,
)
