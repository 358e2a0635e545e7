"""What goes in and out of memory: one shape for each thing, on the wire and in the stores."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from base.messages import Wire

#: What belongs to everybody: knowledge that the owner put in. Nothing else may carry it.
SHARED = "*"
TEXT_CHARS = 20_000
QUERY_CHARS = 4_000
LIMIT_MAX = 100
TAGS_MAX = 200
EXTRA_VALUES_MAX = 1_000
INT_MAX = 2**31 - 1


def _moment(at: datetime) -> datetime:
    """Not at the very ends of the calendar, where another time zone is an overflow."""
    if not 2 <= at.year <= 9998:
        raise ValueError("a year from 2 to 9998 is wanted")
    return at


def _extra(given: dict[str, Any]) -> dict[str, Any]:
    """What every store takes: not too much of it, and whole numbers of 64 bits."""
    for count, value in enumerate(_values(given)):
        if count == EXTRA_VALUES_MAX:
            raise ValueError(f"at most {EXTRA_VALUES_MAX:,} values")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("a whole number has 64 bits at most")
        if isinstance(value, str) and len(value) > TEXT_CHARS:
            raise ValueError(f"a text has at most {TEXT_CHARS:,} characters")
    return given


def _values(given: object) -> Iterator[object]:
    waiting = [given]
    while waiting:
        one = waiting.pop()
        yield one
        if isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list | tuple):
            waiting += one


Moment = Annotated[AwareDatetime, AfterValidator(_moment)]
Word = Annotated[str, Field(max_length=TEXT_CHARS)]


class Tier(StrEnum):
    HOT = "hot"
    WARM = "warm"
    COLD = "cold"


class Collection(StrEnum):
    """The seed plan's four."""

    MEMORIES = "memories"
    LEARNINGS = "learnings"
    CONVERSATIONS = "conversations"
    KNOWLEDGE = "knowledge"


class Memory(Wire):
    """One thing remembered. The same `id` and text again changes nothing.

    user_id: whose it is; nobody else ever sees it. speaker: who said it, as people know them.
    seq: its place in its conversation or document; neighbours differ by one. created_at: when it
    was said or happened. tainted: it stands on text from outside: shown as such, never part of a
    prompt by itself. phase, outcome, applies_when, evidence: of a learning. domain: of knowledge.
    """

    id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    collection: Collection = Collection.MEMORIES
    user_id: str = Field(min_length=1)
    text: str = Field(min_length=1, max_length=TEXT_CHARS)
    kind: str = Field(default="fact", max_length=40)
    agent: Word = ""
    speaker: Word = ""
    source: Word = ""
    task_id: Word | None = None
    conversation_id: Word | None = None
    seq: Annotated[int, Field(ge=-INT_MAX, le=INT_MAX)] | None = None
    file: Word = ""
    tags: Annotated[tuple[Word, ...], Field(max_length=TAGS_MAX)] = ()
    tainted: bool = False
    created_at: Moment = Field(default_factory=lambda: datetime.now(UTC))
    phase: Word = ""
    outcome: Literal["", "success", "failure"] = ""
    applies_when: Word = ""
    evidence: Word = ""
    domain: Word = ""
    extra: Annotated[dict[str, Any], AfterValidator(_extra)] = Field(default_factory=dict)


class Query(Wire):
    """What to recall, and for whom. None means any.

    budget_tokens: cut so that the items' text stays below; neighbours: how many on each side of
    a hit in its conversation come with it; task_id: the task that will use what is found, noted
    so that its end can judge it; trusted: only what no text from outside stands on.
    """

    text: str = Field(min_length=1, max_length=QUERY_CHARS)
    user_id: str = Field(min_length=1)
    limit: int = Field(default=10, ge=1, le=LIMIT_MAX)
    budget_tokens: int | None = Field(default=None, ge=1)
    tiers: tuple[Tier, ...] = (Tier.HOT, Tier.WARM)
    collections: tuple[Collection, ...] = (
        Collection.MEMORIES,
        Collection.CONVERSATIONS,
        Collection.KNOWLEDGE,
    )
    agent: str | None = None
    kind: str | None = None
    conversation_id: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    trusted: bool = False
    neighbours: int = Field(default=0, ge=0, le=5)
    task_id: str | None = None


class Item(Wire):
    """One memory found. `why`: what spoke for it, in words for people; `around`: its neighbours
    in their order.
    """

    memory: Memory
    tier: Tier
    score: float
    why: tuple[str, ...] = ()
    around: tuple[Memory, ...] = ()
    support: int = 1


class Card(Wire):
    """A memory with what became of it. hash: of what it says; an edit names the one that it saw.

    access_count: how often a task was given it; helped, harmed: how its uses were judged at the
    tasks' ends; feedback, utility: 0 to 1; usefulness: of a learning, 0 to 1, else None.
    """

    memory: Memory
    tier: Tier
    hash: str
    stored_at: Moment
    used_at: Moment
    first_seen: Moment
    support: int
    access_count: int
    feedback: float
    utility: float
    helped: int
    harmed: int
    usefulness: float | None = None


class Browse(Wire):
    """Whose memories to look through, which of them, in which order. None and (): any.

    order: newest; used: the most used first; utility: the least useful first. after: where the
    page before ended (`Page.next`).
    """

    user_id: str = Field(min_length=1)
    tiers: tuple[Tier, ...] = ()
    collections: tuple[Collection, ...] = ()
    agent: str | None = None
    kind: str | None = None
    phase: str | None = None
    since: Moment | None = None
    order: Literal["newest", "used", "utility"] = "newest"
    limit: int = Field(default=20, ge=1, le=LIMIT_MAX)
    after: str | None = None


class Page(Wire):
    """next: None at the end."""

    cards: tuple[Card, ...] = ()
    next: str | None = None


class Edit(Wire):
    """What memory `id` of that user says from now on. kind, tags None: as they were. seen: the
    card's hash when it was read; "" does not ask.
    """

    user_id: str = Field(min_length=1)
    id: str
    text: str = Field(min_length=1, max_length=TEXT_CHARS)
    kind: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    tags: Annotated[tuple[Word, ...], Field(max_length=TAGS_MAX)] | None = None
    seen: str = ""


class Found(Wire):
    """The answer to a Query, best first. dense False: the embedding worker did not answer, so
    words alone decided. took_ms: by part (embed, store, rank).
    """

    items: tuple[Item, ...] = ()
    dense: bool = True
    took_ms: dict[str, float] = Field(default_factory=dict)


class Learned(Wire):
    """What a task taught, on its way to the keeper: one lesson of one phase.

    applies_when: the situation in which the lesson holds, in words; evidence: what was measured.
    """

    phase: str
    lesson: str
    applies_when: str
    evidence: str = ""
    outcome: Literal["success", "failure"]


class SignalKind(StrEnum):
    """The seed plan's ten; their weights are in `pai/signals.py`."""

    USER_RATING = "user_rating"
    USER_CORRECTION = "user_correction"
    USER_ACCEPTANCE = "user_acceptance"
    TASK_SUCCESS = "task_success"
    TASK_FAILURE = "task_failure"
    TASK_RETRY = "task_retry"
    TASK_ABANDON = "task_abandon"
    RESPONSE_EDIT = "response_edit"
    FOLLOW_UP = "follow_up"
    CONTEXT_SWITCH = "context_switch"


class Signal(Wire):
    """Something that says how well a task went. `id` makes a second delivery recognisable.

    weight: -1 to 1, how strongly; for a rating (rating - middle) scaled to that. rating: only
    when a person gave one, 1 to 5 here and 1 to 10 in PAI's files (`scale`).
    """

    id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    kind: SignalKind
    user_id: str
    root_id: str | None = None
    task_id: str | None = None
    weight: float = Field(default=1.0, ge=-1, le=1)
    rating: int | None = Field(default=None, ge=1, le=10)
    scale: Literal[5, 10] = 5
    comment: str = ""
    at: Moment = Field(default_factory=lambda: datetime.now(UTC))


class Told(Wire):
    """Payload on the stream `memory` (Message type learn): what the keeper shall not miss.

    remember: `memories`; learned: `learned` of task_id by agent; signal: `signal`; ended: the
    root `root_id` ended with `status`: its tasks' hot memories move on. Safe to deliver twice.
    """

    verb: Literal["remember", "learned", "signal", "ended"]
    user_id: str
    agent: str = ""
    task_id: str | None = None
    root_id: str | None = None
    conversation_id: str | None = None
    status: str = ""
    tainted: bool = False
    memories: tuple[Memory, ...] = ()
    learned: tuple[Learned, ...] = ()
    signal: Signal | None = None


def memory_id(*parts: str) -> str:
    """The id of a memory that is made from something with ids of its own: always the same."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "ai-infra:memory:" + ":".join(parts)))
