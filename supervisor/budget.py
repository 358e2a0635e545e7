"""Budgets: a root's by its effort, a subtask's share of it, and the day's hard limit.

A reservation is the budget of a subtask that an agent holds: it begins with the dispatch and
ends with the task, when what was not spent is free again.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from base.errors import SettingsError
from base.messages import Budget, Effort
from base.settings import Settings

SHIPPED = Path(__file__).resolve().parent.parent / "config" / "budgets.toml"


class Daily(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    warning_usd: float = Field(ge=0)
    hard_limit_usd: float = Field(ge=0)


class Budgets(BaseModel):
    """`config/budgets.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: dict[Effort, Budget]
    daily: Daily

    def root(self, effort: Effort) -> Budget:
        return self.task[effort]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Dollars of today (UTC): `spent_usd` on ended calls, `reserved_usd` by held subtasks."""

    spent_usd: float
    reserved_usd: float
    by_agent: Mapping[str, float]


def load(settings: Settings) -> Budgets:
    """The shipped budgets with the owner's own laid over, key by key. Raises SettingsError."""
    merged: dict[str, Any] = {}
    for path in (SHIPPED, settings.config / "budgets.toml"):
        if not path.is_file():
            continue
        try:
            merged = _merge(merged, tomllib.loads(path.read_text(encoding="utf-8")))
        except tomllib.TOMLDecodeError as error:
            raise SettingsError([f"{path}: {error}"]) from error
    try:
        budgets = Budgets.model_validate(merged)
    except ValidationError as error:
        raise SettingsError(
            [
                f"budgets.toml: {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_url=False)
            ]
        ) from None
    if missing := [effort.value for effort in Effort if effort not in budgets.task]:
        raise SettingsError([f"budgets.toml: no [task.{name}]" for name in missing])
    return budgets


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


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = (
            _merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
        )
    return merged
