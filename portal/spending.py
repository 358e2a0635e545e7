"""What model calls spent: by day, agent and model, and against the daily limits."""

from __future__ import annotations

import datetime as dt
from datetime import UTC, datetime, timedelta
from typing import Literal

from base import budgets
from base.errors import InputError
from base.messages import UNPAID_PROVIDER, Wire
from base.outbox import storable
from portal.auth import Caller
from portal.desk import Desk

DAYS_MAX = 366


class Usage(Wire):
    """The calls of one agent to one model on one UTC day."""

    date: dt.date
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


class DaySum(Wire):
    date: dt.date
    requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: float


class UsageReport(Wire):
    """UTC days from `since` to `until`, which `date` repeats. `days` has every one of them in
    order, `usage` the rows behind them: newest day first, then what cost most.
    """

    date: dt.date
    since: dt.date
    until: dt.date
    cost_usd: float
    requests: int
    days: list[DaySum]
    usage: list[Usage]


class BudgetState(Wire):
    """What today's model calls cost against the daily limits; `state` ok, warning or exceeded.

    `alerts` says in words what needs a look; empty while all is well.
    """

    date: dt.date
    spent_usd: float
    warning_usd: float
    hard_limit_usd: float
    left_usd: float
    state: Literal["ok", "warning", "exceeded"]
    alerts: list[str]


def days(
    day: dt.date | None, since: dt.date | None, until: dt.date | None
) -> tuple[dt.date, dt.date]:
    """The first and the last day that are meant. Raises InputError."""
    if day is not None and (since or until):
        raise InputError("give either `date` or `since` and `until`")
    last = day or until or max(datetime.now(UTC).date(), since or dt.date.min)
    first = day or since or last
    if first > last:
        raise InputError("`since` is later than `until`: no day is between them")
    if (last - first).days >= DAYS_MAX:
        raise InputError(f"at most {DAYS_MAX} days at once")
    return first, last


async def usage(
    desk: Desk,
    caller: Caller,
    first: dt.date,
    last: dt.date,
    *,
    agent: str | None = None,
    model: str | None = None,
) -> UsageReport:
    """What model calls spent on the days from `first` to `last`; of one agent or model."""
    rows = await desk.store.fetch(
        "SELECT (u.timestamp AT TIME ZONE 'UTC')::date AS date, u.agent, u.provider, u.model,"
        " count(*) AS requests,"
        " sum(u.input_tokens) AS input_tokens, sum(u.output_tokens) AS output_tokens,"
        " sum(u.cache_read_tokens) AS cache_read_tokens,"
        " sum(u.cache_write_tokens) AS cache_write_tokens,"
        " sum(u.cost_usd) AS cost_usd, avg(u.latency_ms)::float AS latency_ms"
        " FROM api_usage u WHERE u.timestamp >= $1::date::timestamp AT TIME ZONE 'UTC'"
        " AND u.timestamp < ($2::date::timestamp + interval '1 day') AT TIME ZONE 'UTC'"
        " AND ($3::boolean OR EXISTS"
        " (SELECT FROM tasks t WHERE t.id = u.task_id AND t.user_id = $4))"
        " AND ($5::text IS NULL OR u.agent = $5) AND ($6::text IS NULL OR u.model = $6)"
        " GROUP BY 1, 2, 3, 4 ORDER BY 1 DESC, cost_usd DESC, 2",
        *(first, last, caller.admin, caller.user_id),
        *(agent and storable(agent, "agent"), model and storable(model, "model")),
    )
    used = [Usage(**row) for row in rows]
    span = [first + timedelta(days=after) for after in range((last - first).days + 1)]
    return UsageReport(
        date=last,
        since=first,
        until=last,
        cost_usd=sum(one.cost_usd for one in used),
        requests=sum(one.requests for one in used),
        days=[_sum(day, [one for one in used if one.date == day]) for day in span],
        usage=used,
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
    state: Literal["ok", "warning", "exceeded"] = "ok"
    alerts = []
    if spent_usd >= hard_usd:
        state = "exceeded"
        alerts.append(
            f"today's limit of ${hard_usd:,.2f} is used up: no model is called until it is raised"
            " in config/budgets.toml, or until tomorrow (UTC)"
        )
    elif spent_usd >= warning_usd:
        state = "warning"
        alerts.append(f"${spent_usd:,.2f} of ${hard_usd:,.2f} were spent today")
    return BudgetState(
        date=on,
        spent_usd=spent_usd,
        warning_usd=warning_usd,
        hard_limit_usd=hard_usd,
        left_usd=max(0.0, hard_usd - spent_usd),
        state=state,
        alerts=alerts,
    )


def _sum(day: dt.date, used: list[Usage]) -> DaySum:
    return DaySum(
        date=day,
        requests=sum(one.requests for one in used),
        input_tokens=sum(one.input_tokens for one in used),
        output_tokens=sum(one.output_tokens for one in used),
        cost_usd=sum(one.cost_usd for one in used),
    )
