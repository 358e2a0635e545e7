"""The rules: where a memory begins, when it is due, what it is worth, which are one."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from keeper_world import memory, rules

from base.errors import SettingsError
from base.settings import Settings
from pai import tiers
from pai.shapes import Collection, Tier

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def test_the_shipped_rules_are_the_seed_plans() -> None:
    shipped = tiers.Rules.load()
    assert (shipped.hot.items_per_agent, shipped.hot.age_s) == (1_000, 24 * 3600)
    assert (shipped.warm.items, shipped.warm.unused_s) == (50_000, 30 * 86_400)
    assert (shipped.cold.age_s, shipped.cold.size_bytes) == (365 * 86_400, 100 * 10**9)
    assert shipped.duplicates.similarity == 0.95


def test_the_owners_rules_lie_over_the_shipped_ones(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.prepare()
    (settings.config / "memory.toml").write_text("[warm]\nitems = 7\n")
    found = tiers.Rules.load(settings)
    assert (found.warm.items, found.warm.unused_s) == (7, 30 * 86_400)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[warm]\nitems = 0\n", "warm.items"),
        ("[warm]\nitmes = 5\n", "warm.itmes"),
        ("[lukewarm]\nitems = 5\n", "lukewarm"),
        ("warm = 3\n", "warm"),
        ("[warm\n", "memory.toml"),
    ],
)
def test_a_wrong_rule_is_named(tmp_path: Path, text: str, told: str) -> None:
    settings = Settings(home=tmp_path)
    settings.prepare()
    (settings.config / "memory.toml").write_text(text)
    with pytest.raises(SettingsError, match=told):
        tiers.Rules.load(settings)


def test_what_a_task_writes_begins_hot_all_else_warm() -> None:
    assert tiers.home(memory("x", task_id="t")) is Tier.HOT
    assert tiers.home(memory("x")) is Tier.WARM
    for collection in ("learnings", "conversations", "knowledge"):
        assert tiers.home(memory("x", task_id="t", collection=collection)) is Tier.WARM


def test_due() -> None:
    some = rules()
    hot = tiers.due(Tier.HOT, used_at=NOW, now=NOW, rules=some)
    assert hot == NOW + timedelta(hours=24)
    soon = tiers.due(Tier.WARM, used_at=NOW - timedelta(days=29), now=NOW, rules=some)
    assert soon == NOW + timedelta(days=1)
    later = tiers.due(Tier.WARM, used_at=NOW, now=NOW, rules=some)
    assert later == NOW + timedelta(seconds=tiers.RESCORE_S)
    assert tiers.due(Tier.COLD, used_at=NOW, now=NOW, rules=some) is None


def test_utility_is_the_seed_plans_formula() -> None:
    def worth(access: int, ranks: list[int], days: float, feedback: float) -> float:
        return tiers.utility(
            access_count=access,
            rank_sum=sum(tiers.place_points(rank) for rank in ranks),
            unused_s=days * 86_400,
            feedback=feedback,
        )

    assert worth(10, [1] * 10, 0, 1.0) == pytest.approx(1.0)
    assert worth(0, [], 0, 0.5) == pytest.approx(0.3)
    assert worth(5, [1, 1, 1, 1, 1], 0, 0) == pytest.approx(0.15 + 0.3 + 0.2)
    assert worth(100, [6] * 100, 0, 0) == pytest.approx(0.3 + 0.2)
    assert worth(0, [], 30, 0) == pytest.approx(0.2 / math.e)
    assert worth(0, [], 0, 7.0) == pytest.approx(0.4)


def test_rank_points_fall_with_the_place() -> None:
    assert [round(tiers.place_points(rank), 1) for rank in range(1, 8)] == [
        1.0, 0.8, 0.6, 0.4, 0.2, 0.0, 0.0,
    ]  # fmt: skip


def test_only_equals_become_one() -> None:
    plain = {
        "user_id": "ann", "collection": "memories", "tainted": False, "phase": "",
        "outcome": "", "seq": None,
    }  # fmt: skip
    assert tiers.same_kind(plain, dict(plain))
    for other in (
        {"user_id": "bob"}, {"collection": "knowledge"}, {"tainted": True}, {"seq": 3},
        {"outcome": "failure"},
    ):  # fmt: skip
        assert not tiers.same_kind(plain, {**plain, **other})
    talk = {**plain, "collection": Collection.CONVERSATIONS}
    assert not tiers.same_kind(talk, talk)


def test_the_one_in_use_keeps_then_the_older() -> None:
    young = {"access_count": 0, "support": 1, "first_seen": NOW}
    old = {**young, "first_seen": NOW - timedelta(days=1)}
    assert not tiers.keeps(young, old)
    assert tiers.keeps({**young, "access_count": 2}, old)
