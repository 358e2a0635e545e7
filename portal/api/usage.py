"""What model calls spent."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from portal import spending
from portal.door import Asking, At, need

router = APIRouter(prefix="/usage", tags=["usage"])


def _plain(value: object) -> object:
    """pydantic would take a number for seconds since 1970."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
        raise ValueError("a day is written 2026-11-28")
    return value


Day = Annotated[date | None, BeforeValidator(_plain)]
Name = Annotated[str | None, Query(min_length=1, max_length=100)]


@router.get("/daily", summary="Usage by day, agent and model", dependencies=[need("tasks:read")])
async def daily(
    desk: At,
    caller: Asking,
    day: Annotated[Day, Query(alias="date", description="One UTC day.")] = None,
    since: Annotated[Day, Query(description="The first UTC day.")] = None,
    until: Annotated[Day, Query(description="The last UTC day.")] = None,
    agent: Name = None,
    model: Name = None,
) -> spending.UsageReport:
    """What model calls spent: of one day (left out: today, UTC), or of each day from `since` to
    `until`, at most 366. An admin sees everybody's, others their own tasks'.
    """
    first, last = spending.days(day, since, until)
    return await spending.usage(desk, caller, first, last, agent=agent, model=model)


@router.get("/budget", summary="Budget and alerts", dependencies=[need("tasks:read")])
async def budget(desk: At, caller: Asking) -> spending.BudgetState:
    """What today's model calls of the whole installation cost, against the daily limits."""
    return await spending.budget(desk, caller)
