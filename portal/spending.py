"""What model calls spent: by day, agent and model, which tasks cost most, and against the limits.

Days are UTC days, as the limits are. An admin sees everybody's calls, others those of their own
tasks. What the rehearsal model did carries what a provider would have charged, and nobody pays
it: `provider` says so, and `Sums` counts it apart.
"""

from __future__ import annotations

import datetime as dt
from calendar import monthrange
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from base import budgets
from base.errors import InputError
from base.messages import UNPAID_PROVIDER, Wire
from base.outbox import storable
from portal.auth import Caller
from portal.desk import Desk

DAYS_MAX = 366
RANGES: tuple[int, ...] = (7, 30, 90)
TASKS_MAX = 10
By = Literal["agent", "model"]

_WITHIN = (
    "u.timestamp >= $1::date::timestamp AT TIME ZONE 'UTC'"
    " AND u.timestamp < ($2::date::timestamp + interval '1 day') AT TIME ZONE 'UTC'"
)


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


class Sums(Wire):
    """cost_usd: what was charged; rehearsed_usd: what a provider would have charged besides."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float = 0.0
    rehearsed_usd: float = 0.0

    @property
    def tokens(self) -> int:
        return (
            self.input_tokens
            + self.output_tokens
            + self.cache_read_tokens
            + self.cache_write_tokens
        )

    @property
    def cached(self) -> float:
        """Which part of what models read came from the cache, 0 to 1."""
        read = self.input_tokens + self.cache_read_tokens + self.cache_write_tokens
        return self.cache_read_tokens / read if read else 0.0


class Slice(Wire):
    """A day's calls of one agent or model."""

    day: dt.date
    name: str
    sums: Sums


class Part(Wire):
    """All calls of one agent or model."""

    name: str
    sums: Sums


class Costly(Wire):
    """A request and what its parts cost together within the days."""

    task_id: str
    title: str
    status: str
    created_at: datetime
    sums: Sums


class Report(Wire):
    """days: every day of the range, oldest first, those without calls too."""

    first: dt.date
    last: dt.date
    days: tuple[dt.date, ...]
    whole: Sums
    slices: Mapping[By, tuple[Slice, ...]]
    agents: tuple[Part, ...]
    models: tuple[Part, ...]
    tasks: tuple[Costly, ...]


class Month(Wire):
    """This UTC month so far, of the whole installation. `most_usd`: what the day's hard limit
    allows in all its days; no limit of the month's own exists.
    """

    first: dt.date
    spent_usd: float
    most_usd: float


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
        f" FROM api_usage u WHERE {_WITHIN}"
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


async def report(desk: Desk, caller: Caller, count: int, *, today: dt.date | None = None) -> Report:
    """The last `count` days, today with them."""
    last = today or datetime.now(UTC).date()
    first = last - timedelta(days=count - 1)
    found = await usage(desk, caller, first, last)
    return Report(
        first=first,
        last=last,
        days=tuple(one.date for one in found.days),
        whole=sums(found.usage),
        slices={"agent": _slices(found.usage, "agent"), "model": _slices(found.usage, "model")},
        agents=_parts(found.usage, "agent"),
        models=_parts(found.usage, "model"),
        tasks=await _costly(desk, caller, first, last),
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


async def month(desk: Desk) -> Month:
    """What this month's calls cost so far."""
    first = datetime.now(UTC).date().replace(day=1)
    spent_usd = await desk.store.fetchval(
        "SELECT COALESCE(sum(cost_usd), 0)::float8 FROM api_usage"
        " WHERE (timestamp AT TIME ZONE 'UTC')::date >= $1 AND provider <> $2",
        *(first, UNPAID_PROVIDER),
    )
    last = monthrange(first.year, first.month)[1]
    return Month(
        first=first,
        spent_usd=spent_usd,
        most_usd=budgets.load(desk.settings).daily.hard_limit_usd * last,
    )


def _sum(day: dt.date, used: list[Usage]) -> DaySum:
    return DaySum(
        date=day,
        requests=sum(one.requests for one in used),
        input_tokens=sum(one.input_tokens for one in used),
        output_tokens=sum(one.output_tokens for one in used),
        cost_usd=sum(one.cost_usd for one in used),
    )


async def _costly(desk: Desk, caller: Caller, first: dt.date, last: dt.date) -> tuple[Costly, ...]:
    """The dearest requests, each with all its parts."""
    rows = await desk.store.fetch(
        "SELECT r.id AS task_id, COALESCE(r.title, r.input->>'content', '') AS title, r.status,"
        " r.created_at, count(*) AS requests, sum(u.input_tokens) AS input_tokens,"
        " sum(u.output_tokens) AS output_tokens, sum(u.cache_read_tokens) AS cache_read_tokens,"
        " sum(u.cache_write_tokens) AS cache_write_tokens,"
        " COALESCE(sum(u.cost_usd) FILTER (WHERE u.provider <> $5), 0)::float8 AS cost_usd,"
        " COALESCE(sum(u.cost_usd) FILTER (WHERE u.provider = $5), 0)::float8 AS rehearsed_usd"
        " FROM api_usage u JOIN tasks t ON t.id = u.task_id"
        " JOIN tasks r ON r.id = COALESCE(t.root_id, t.id)"
        f" WHERE {_WITHIN} AND ($3::boolean OR t.user_id = $4) GROUP BY r.id"
        " ORDER BY cost_usd DESC, rehearsed_usd DESC, r.created_at DESC LIMIT $6",
        *(first, last, caller.admin, caller.user_id, UNPAID_PROVIDER, TASKS_MAX),
    )
    return tuple(
        Costly(
            task_id=row["task_id"],
            title=row["title"] or "",
            status=row["status"],
            created_at=row["created_at"],
            sums=Sums(**{name: row[name] for name in Sums.model_fields}),
        )
        for row in rows
    )


def sums(rows: Sequence[Usage]) -> Sums:
    """All of `rows` together."""
    return Sums(
        requests=sum(one.requests for one in rows),
        input_tokens=sum(one.input_tokens for one in rows),
        output_tokens=sum(one.output_tokens for one in rows),
        cache_read_tokens=sum(one.cache_read_tokens for one in rows),
        cache_write_tokens=sum(one.cache_write_tokens for one in rows),
        cost_usd=sum(one.cost_usd for one in rows if one.provider != UNPAID_PROVIDER),
        rehearsed_usd=sum(one.cost_usd for one in rows if one.provider == UNPAID_PROVIDER),
    )


def _slices(rows: Sequence[Usage], by: By) -> tuple[Slice, ...]:
    found: dict[tuple[dt.date, str], list[Usage]] = {}
    for row in rows:
        found.setdefault((row.date, getattr(row, by)), []).append(row)
    return tuple(
        Slice(day=day, name=name, sums=sums(many)) for (day, name), many in sorted(found.items())
    )


def _parts(rows: Sequence[Usage], by: By) -> tuple[Part, ...]:
    """The dearest first."""
    found: dict[str, list[Usage]] = {}
    for row in rows:
        found.setdefault(getattr(row, by), []).append(row)

    def weight(part: Part) -> tuple[float, float, int, str]:
        return -part.sums.cost_usd, -part.sums.rehearsed_usd, -part.sums.tokens, part.name

    return tuple(sorted((Part(name=n, sums=sums(many)) for n, many in found.items()), key=weight))
