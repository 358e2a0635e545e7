"""What model calls spent."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query

from portal import spending
from portal.door import Asking, At

router = APIRouter(prefix="/usage", tags=["usage"])
Name = Annotated[str | None, Query(min_length=1, max_length=100)]


@router.get("/daily", summary="Usage by day, agent and model")
async def daily(
    desk: At,
    caller: Asking,
    day: Annotated[date | None, Query(alias="date", description="One UTC day.")] = None,
    since: Annotated[date | None, Query(description="The first UTC day.")] = None,
    until: Annotated[date | None, Query(description="The last UTC day.")] = None,
    agent: Name = None,
    model: Name = None,
) -> spending.UsageReport:
    """What model calls spent: of one day (left out: today, UTC), or of each day from `since` to
    `until`, at most 366. An admin sees everybody's, others their own tasks'.
    """
    first, last = spending.days(day, since, until)
    return await spending.usage(desk, caller, first, last, agent=agent, model=model)


@router.get("/budget", summary="Budget and alerts")
async def budget(desk: At, caller: Asking) -> spending.BudgetState:
    """What today's model calls of the whole installation cost, against the daily limits."""
    return await spending.budget(desk, caller)
