"""Budgets: a subtask's share of its root's, and the day's hard limit.

A reservation is the budget of a subtask that an agent holds: it begins with the dispatch and
ends with the task, when what was not spent is free again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from base.budgets import Daily
from base.messages import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Dollars of today (UTC): `spent_usd` on ended calls, `reserved_usd` by held subtasks."""

    spent_usd: float
    reserved_usd: float
    by_agent: Mapping[str, float]


def share(whole: Budget, part: float) -> Budget:
    """`part` (0..1] of `whole`, rounded down to whole tokens."""
    return Budget(tokens=int(whole.tokens * part), usd=round(whole.usd * part, 6))


def refusal(day: Spent, daily: Daily) -> str | None:
    """Why no new root may start today; None when one may."""
    if day.spent_usd < daily.hard_limit_usd:
        return None
    return (
        f"the daily limit of ${daily.hard_limit_usd:.2f} is reached (${day.spent_usd:.2f} spent "
        "today, UTC); wait for tomorrow or raise daily.hard_limit_usd in config/budgets.toml"
    )


def grant(wanted: Budget, day: Spent, daily: Daily) -> Budget | None:
    """What a subtask may reserve now: all it wants, less near the limit, or None: not now.

    Never more than what is neither spent nor reserved today.
    """
    left_usd = daily.hard_limit_usd - day.spent_usd - day.reserved_usd
    if wanted.usd <= left_usd:
        return wanted
    if left_usd <= 0 or day.reserved_usd > 0:
        return None
    return share(wanted, left_usd / wanted.usd)
