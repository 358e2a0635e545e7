"""What model calls spent: by day, and against the daily limits."""

from __future__ import annotations

from datetime import UTC, date, datetime

from base import budgets
from base.messages import UNPAID_PROVIDER, Wire
from portal.auth import Caller
from portal.desk import Desk


class Usage(Wire):
    agent: str
    provider: str
    model: str
    requests: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: float
    latency_ms: float | None


class DailyUsage(Wire):
    """A UTC day. An admin sees everybody's, others their own tasks'."""

    date: date
    cost_usd: float
    requests: int
    usage: list[Usage]


class BudgetState(Wire):
    """What today's model calls cost against the daily limits; `state` ok, warning or exceeded."""

    date: date
    spent_usd: float
    warning_usd: float
    hard_limit_usd: float
    state: str


async def usage(desk: Desk, caller: Caller, day: date | None) -> DailyUsage:
    """What model calls spent on `day` (None: today, UTC), by agent and model."""
    on = day or datetime.now(UTC).date()
    rows = await desk.store.fetch(
        "SELECT u.agent, u.provider, u.model, count(*) AS requests,"
        " sum(u.input_tokens) AS input_tokens, sum(u.output_tokens) AS output_tokens,"
        " sum(u.cache_read_tokens) AS cache_read_tokens,"
        " sum(u.cache_write_tokens) AS cache_write_tokens,"
        " sum(u.cost_usd) AS cost_usd, avg(u.latency_ms)::float AS latency_ms"
        " FROM api_usage u WHERE (u.timestamp AT TIME ZONE 'UTC')::date = $1"
        " AND ($2 OR EXISTS (SELECT FROM tasks t WHERE t.id = u.task_id AND t.user_id = $3))"
        " GROUP BY 1, 2, 3 ORDER BY cost_usd DESC, 1",
        *(on, caller.admin, caller.user_id),
    )
    used = [Usage(**row) for row in rows]
    cost_usd = sum(one.cost_usd for one in used)
    return DailyUsage(
        date=on, cost_usd=cost_usd, requests=sum(one.requests for one in used), usage=used
    )


async def budget(desk: Desk, caller: Caller) -> BudgetState:
    """Today's spending of the whole installation against `config/budgets.toml`."""
    on = datetime.now(UTC).date()
    spent_usd = await desk.store.fetchval(
        "SELECT COALESCE(sum(cost_usd), 0) FROM api_usage"
        " WHERE (timestamp AT TIME ZONE 'UTC')::date = $1 AND provider <> $2",
        *(on, UNPAID_PROVIDER),
    )
    daily = budgets.load(desk.settings).daily
    warning_usd, hard_usd = daily.warning_usd, daily.hard_limit_usd
    state = "exceeded" if spent_usd >= hard_usd else "warning" if spent_usd >= warning_usd else "ok"
    return BudgetState(
        date=on,
        spent_usd=spent_usd,
        warning_usd=warning_usd,
        hard_limit_usd=hard_usd,
        state=state,
    )
