"""Budgets: files laid over each other, shares, the day's limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from base.budgets import Daily, load
from base.errors import SettingsError
from base.messages import Budget, Effort
from base.settings import Settings
from supervisor.budget import Spent, grant, refusal, share

DAILY = Daily(warning_usd=5, hard_limit_usd=10)


def day(spent_usd: float = 0.0, reserved_usd: float = 0.0) -> Spent:
    return Spent(spent_usd=spent_usd, reserved_usd=reserved_usd, by_agent={})


def write(home: Path, text: str) -> Settings:
    settings = Settings(home=home)
    settings.config.mkdir(parents=True)
    (settings.config / "budgets.toml").write_text(text)
    return settings


def test_own_file_is_laid_over_key_by_key(tmp_path: Path) -> None:
    budgets = load(write(tmp_path, "[task.deep]\nusd = 1.5\n"))
    assert budgets.root(Effort.DEEP) == Budget(tokens=5_000_000, usd=1.5)
    assert budgets.root(Effort.MINIMAL).usd == 0.25


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[task.huge]\nusd = 1\ntokens = 1\n", "task.huge"),
        ("[daily]\nhard_limit_usd = -1\n", "daily.hard_limit_usd"),
        ("[daily]\nlimit = 1\n", "daily.limit"),
        ("[daily", "budgets.toml"),
    ],
)
def test_bad_file_is_one_clear_error(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        load(write(tmp_path, text))


def test_share() -> None:
    assert share(Budget(tokens=101, usd=3.0), 0.5) == Budget(tokens=50, usd=1.5)


@pytest.mark.parametrize(
    ("spent_usd", "refused"), [(0.0, False), (9.99, False), (10.0, True), (11.0, True)]
)
def test_refusal(spent_usd: float, refused: bool) -> None:
    reason = refusal(day(spent_usd), DAILY)
    assert (reason is not None) is refused
    if reason is not None:
        assert "daily.hard_limit_usd" in reason


@pytest.mark.parametrize(
    ("spent_usd", "reserved_usd", "usd"),
    [(0, 0, 4.0), (5, 1, 4.0), (5, 2, None), (7, 0, 3.0), (10, 0, None), (8, 1, None)],
)
def test_grant(spent_usd: float, reserved_usd: float, usd: float | None) -> None:
    granted = grant(Budget(tokens=100, usd=4.0), day(spent_usd, reserved_usd), DAILY)
    assert (None if granted is None else granted.usd) == usd
