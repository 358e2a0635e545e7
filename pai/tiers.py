"""The rules of the tiers: where a memory begins, what moves, what leaves. Pure.

Constants are the seed plan's, shipped in `config/memory.toml`; the owner's
`$AI_INFRA_HOME/config/memory.toml` is laid over it key by key.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from base.errors import SettingsError
from base.messages import Effort
from base.settings import Settings
from pai.shapes import Collection, Memory, Tier

SHIPPED = Path(__file__).resolve().parent.parent / "config" / "memory.toml"
#: A warm memory's utility is worked out anew at least this often: recency fades by itself.
RESCORE_S = 7 * 86_400
#: Recency falls to 1/e in this time: the warm tier's own measure of "unused".
RECENCY_S = 30 * 86_400
#: Recall at this place or beyond earns nothing.
RANKS = 5
ACCESSES = 10
FEEDBACK_START = 0.5


class Hot(BaseModel, frozen=True, extra="forbid"):
    items_per_agent: int = Field(ge=1)
    age_s: float = Field(gt=0)


class Warm(BaseModel, frozen=True, extra="forbid"):
    items: int = Field(ge=1)
    unused_s: float = Field(gt=0)


class Cold(BaseModel, frozen=True, extra="forbid"):
    age_s: float = Field(gt=0)
    size_bytes: int = Field(ge=0)


class Duplicates(BaseModel, frozen=True, extra="forbid"):
    similarity: float = Field(gt=0, le=1)


class Tasks(BaseModel, frozen=True, extra="forbid"):
    archive_after_s: float = Field(gt=0)


class Maintenance(BaseModel, frozen=True, extra="forbid"):
    every_s: float = Field(gt=0)


class Recall(BaseModel, frozen=True, extra="forbid"):
    """Tokens of memory in a task's first message, by its effort; 0: nothing is looked up."""

    minimal_tokens: int = Field(ge=0)
    standard_tokens: int = Field(ge=0)
    extended_tokens: int = Field(ge=0)
    deep_tokens: int = Field(ge=0)

    def tokens(self, effort: Effort) -> int:
        return int(getattr(self, f"{effort.value}_tokens"))


class Rules(BaseModel, frozen=True, extra="forbid"):
    """`config/memory.toml`."""

    hot: Hot
    warm: Warm
    cold: Cold
    duplicates: Duplicates
    tasks: Tasks
    maintenance: Maintenance
    recall: Recall

    @classmethod
    def load(cls, settings: Settings | None = None) -> Rules:
        """The shipped rules with the owner's laid over; None: the shipped ones alone.

        Raises SettingsError naming the file and field of every fault.
        """
        merged = dict(_shipped())
        path = SHIPPED
        if settings is not None and (settings.config / "memory.toml").is_file():
            path = settings.config / "memory.toml"
            for key, value in _read(path).items():
                below = merged.get(key, {})
                both = isinstance(value, dict) and isinstance(below, dict)
                merged[key] = {**below, **value} if both else value
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise SettingsError(
                [
                    f"{path}: {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
                    for fault in error.errors(include_input=False, include_url=False)
                ]
            ) from None


def home(memory: Memory) -> Tier:
    """Where it begins: what a task's agent writes down is hot, everything else warm at once."""
    written = memory.collection is Collection.MEMORIES and memory.task_id is not None
    return Tier.HOT if written else Tier.WARM


def mergeable(memory: Memory) -> bool:
    """Whether a near duplicate may take it in: what has its place in a conversation or a
    document stays, since its neighbours need it.
    """
    return memory.collection is not Collection.CONVERSATIONS and memory.seq is None


def due(tier: Tier, *, used_at: datetime, now: datetime, rules: Rules) -> datetime | None:
    """When maintenance has to look at it next; None: not by time.

    hot: `used_at` is when it was stored; then it is too old to be hot. warm: when unused for too
    long, at the latest when its utility is to be worked out anew. cold: whole files leave.
    """
    if tier is Tier.HOT:
        return used_at + timedelta(seconds=rules.hot.age_s)
    if tier is Tier.WARM:
        unused = used_at + timedelta(seconds=rules.warm.unused_s)
        return min(unused, now + timedelta(seconds=RESCORE_S))
    return None


def place_points(rank: int) -> float:
    """What one recall at that place (1 is the best) is worth: 1 for the first, falling by a
    fifth with each place, 0 from the sixth on.
    """
    return max(0.0, (RANKS + 1 - rank) / RANKS)


def utility(*, access_count: int, rank_sum: float, unused_s: float, feedback: float) -> float:
    """The seed plan's formula, 0 to 1:

    0.3·min(access/10, 1) + 0.3·rank + 0.2·recency + 0.2·feedback

    access: how often it was recalled for a task. rank: the mean of `place_points` over those
    recalls (the seed plan's min(retrieval_rank/5, 1), where more must be better), 0 without any.
    recency: exp(-days unused / 30). feedback: 0 to 1, beginning at 0.5, moved by signals.
    """
    rank = rank_sum / access_count if access_count else 0.0
    recency = math.exp(-max(0.0, unused_s) / RECENCY_S)
    return (
        0.3 * min(access_count / ACCESSES, 1.0)
        + 0.3 * min(rank, 1.0)
        + 0.2 * recency
        + 0.2 * min(max(feedback, 0.0), 1.0)
    )


def utility_of(card: Mapping[str, Any], now: datetime) -> float:
    """The utility of a card's row at that moment."""
    return utility(
        access_count=card["access_count"],
        rank_sum=card["rank_sum"],
        unused_s=(now - card["used_at"]).total_seconds(),
        feedback=card["feedback"],
    )


def keeps(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Which of two duplicates takes the other in: True, the first. The one in the higher use,
    then the older one.
    """

    def weight(card: Mapping[str, Any]) -> tuple[int, int, float]:
        return card["access_count"], card["support"], -card["first_seen"].timestamp()

    return weight(first) >= weight(second)


def same_kind(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two similar memories may become one: of the same user, collection, phase and
    outcome, neither with a place among others, and both tainted or both not: so text from
    outside neither borrows trust from what it repeats, nor brings what it repeats into disrepute.
    """
    fields = ("user_id", "collection", "tainted", "phase", "outcome")
    return (
        all(first[field] == second[field] for field in fields)
        and first["collection"] != Collection.CONVERSATIONS
        and first["seq"] is None
        and second["seq"] is None
    )


@cache
def _shipped() -> dict[str, Any]:
    return _read(SHIPPED)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError([f"{path}: {error}"]) from error
