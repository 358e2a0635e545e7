"""What model calls cost over some days: by day, agent and model, and which tasks cost most.

Days are UTC days, as the limits are. An admin sees everybody's calls, others those of their own
tasks. What the rehearsal model did is counted apart: it carries what a provider would have
charged, and nobody pays it.
"""

from __future__ import annotations

import tomllib
from calendar import monthrange
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from base.messages import UNPAID_PROVIDER, Wire
from portal.auth import Caller
from portal.desk import Desk
from portal.spending import SHIPPED_BUDGETS

RANGES: tuple[int, ...] = (7, 30, 90)
TASKS_MAX = 10
By = Literal["agent", "model"]

#: api_usage `u` with the root of its task `r`; $1 the first day, $2 everybody's, $3 the caller.
_CALLS = (
    " FROM api_usage u LEFT JOIN tasks t ON t.id = u.task_id"
    " WHERE (u.timestamp AT TIME ZONE 'UTC')::date >= $1 AND ($2 OR t.user_id = $3)"
)
_SUMS = (
    " count(*) AS requests, COALESCE(sum(u.input_tokens), 0) AS input_tokens,"
    " COALESCE(sum(u.output_tokens), 0) AS output_tokens,"
    " COALESCE(sum(u.cache_read_tokens), 0) AS cache_read_tokens,"
    " COALESCE(sum(u.cache_write_tokens), 0) AS cache_write_tokens,"
    f" COALESCE(sum(u.cost_usd) FILTER (WHERE u.provider <> '{UNPAID_PROVIDER}'), 0)::float8"
    " AS cost_usd,"
    f" COALESCE(sum(u.cost_usd) FILTER (WHERE u.provider = '{UNPAID_PROVIDER}'), 0)::float8"
    " AS rehearsed_usd"
)


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

    day: date
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

    first: date
    last: date
    days: tuple[date, ...]
    whole: Sums
    slices: Mapping[By, tuple[Slice, ...]]
    agents: tuple[Part, ...]
    models: tuple[Part, ...]
    tasks: tuple[Costly, ...]


class Month(Wire):
    """This UTC month so far, of the whole installation. `most_usd`: what the day's hard limit
    allows in all its days; no limit of the month's own exists.
    """

    first: date
    spent_usd: float
    most_usd: float


async def report(desk: Desk, caller: Caller, days: int, *, today: date | None = None) -> Report:
    """The last `days` days, today with them."""
    last = today or datetime.now(UTC).date()
    first = last - timedelta(days=days - 1)
    asked = (first, caller.admin, caller.user_id)
    rows = await desk.store.fetch(
        "SELECT (u.timestamp AT TIME ZONE 'UTC')::date AS day, u.agent, u.model,"
        f"{_SUMS}{_CALLS} GROUP BY 1, 2, 3",
        *asked,
    )
    costly = await desk.store.fetch(
        "SELECT r.id AS task_id, COALESCE(r.title, r.input->>'content', '') AS title, r.status,"
        f" r.created_at,{_SUMS}"
        + _CALLS.replace(" WHERE", " JOIN tasks r ON r.id = COALESCE(t.root_id, t.id) WHERE", 1)
        + " GROUP BY r.id ORDER BY cost_usd DESC, rehearsed_usd DESC, r.created_at DESC"
        " LIMIT $4",
        *(*asked, TASKS_MAX),
    )
    return Report(
        first=first,
        last=last,
        days=tuple(first + timedelta(days=at) for at in range(days)),
        whole=_sum(rows),
        slices={"agent": _slices(rows, "agent"), "model": _slices(rows, "model")},
        agents=_parts(rows, "agent"),
        models=_parts(rows, "model"),
        tasks=tuple(
            Costly(
                task_id=row["task_id"],
                title=row["title"] or "",
                status=row["status"],
                created_at=row["created_at"],
                sums=_sum([row]),
            )
            for row in costly
        ),
    )


async def month(desk: Desk) -> Month:
    """What this month's calls cost so far."""
    today = datetime.now(UTC).date()
    first = today.replace(day=1)
    spent_usd = await desk.store.fetchval(
        "SELECT COALESCE(sum(cost_usd), 0)::float8 FROM api_usage"
        " WHERE (timestamp AT TIME ZONE 'UTC')::date >= $1 AND provider <> $2",
        *(first, UNPAID_PROVIDER),
    )
    limits: dict[str, float] = {}
    for path in (SHIPPED_BUDGETS, desk.settings.config / "budgets.toml"):
        if path.is_file():
            limits |= tomllib.loads(path.read_text(encoding="utf-8")).get("daily", {})
    days = monthrange(today.year, today.month)[1]
    return Month(first=first, spent_usd=spent_usd, most_usd=limits["hard_limit_usd"] * days)


def _sum(rows: list[dict[str, Any]]) -> Sums:
    return Sums(**{name: sum(row[name] for row in rows) for name in Sums.model_fields})


def _slices(rows: list[dict[str, Any]], by: By) -> tuple[Slice, ...]:
    found: dict[tuple[date, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["day"], row[by]), []).append(row)
    return tuple(
        Slice(day=day, name=name, sums=_sum(many)) for (day, name), many in sorted(found.items())
    )


def _parts(rows: list[dict[str, Any]], by: By) -> tuple[Part, ...]:
    """The dearest first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row[by], []).append(row)

    def weight(part: Part) -> tuple[float, float, int, str]:
        return -part.sums.cost_usd, -part.sums.rehearsed_usd, -part.sums.tokens, part.name

    return tuple(sorted((Part(name=n, sums=_sum(many)) for n, many in found.items()), key=weight))
