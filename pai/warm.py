"""The warm store: what is remembered, found by meaning and by words. One protocol, two engines.

`pai/warm_edge.py` keeps it in a folder, opened by this process alone (the default),
`pai/warm_server.py` in a Qdrant server or cluster. Neither is imported before `open_warm`.

A dense vector belongs to a model. While a new model takes over, both live side by side: `prepare`
with another model opens a second place, `missing` says what has no vector there yet, `fill` adds
it, `switch` makes it the only one. Searches go to the complete one until then, or to the one that
a Look names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias
from uuid import UUID

import numpy as np

from base import secrets
from base.errors import ConflictError, InputError
from base.settings import Settings
from pai.shapes import Collection

if TYPE_CHECKING:
    from pai.brief import Brief

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Value: TypeAlias = str | int | bool

#: The named vectors of a point. The first dense one is what a point must have to be found by
#: meaning; a point may go without any of them. A name that is added here is made by `prepare`.
DENSE = ("dense",)
SPARSE = ("words",)

Index = Literal["keyword", "integer", "float", "bool", "datetime"]
#: What is indexed in every collection; below it what the seed plan adds.
INDEXES: dict[str, Index] = {
    "user_id": "keyword",
    "kind": "keyword",
    "agent": "keyword",
    "task_id": "keyword",
    "conversation_id": "keyword",
    "seq": "integer",
    "tainted": "bool",
    "created_at": "datetime",
}
COLLECTIONS: dict[str, dict[str, Index]] = {
    Collection.MEMORIES: {**INDEXES, "tier": "keyword", "utility_score": "float"},
    Collection.LEARNINGS: {
        **INDEXES,
        "phase": "keyword",
        "outcome": "keyword",
        "extracted_at": "datetime",
    },
    Collection.CONVERSATIONS: {**INDEXES},
    Collection.KNOWLEDGE: {
        **INDEXES,
        "source": "keyword",
        "domain": "keyword",
        "updated_at": "datetime",
    },
}
#: What filters may name.
FILTERS: dict[str, Index] = {
    name: kind for indexes in COLLECTIONS.values() for name, kind in indexes.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """Weights by word number (0 to 2**32 - 1, each once); the two are of one length."""

    indices: tuple[int, ...]
    values: tuple[float, ...]

    def __bool__(self) -> bool:
        return bool(self.indices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """id: a UUID. payload: JSON; times ISO 8601 in UTC. dense: by name, float32, of length 1.

    model: whose the dense vectors are; empty: of the model that was last prepared. As a result,
    vectors are there only when they were asked for, and `dense` is that of the active model.
    """

    id: str
    payload: dict[str, Any]
    dense: dict[str, Floats] = field(default_factory=dict)
    sparse: dict[str, Sparse] = field(default_factory=dict)
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """A filter: what satisfies all of it is kept. InputError for a field not among `FILTERS`.

    any_of: the payload's value (one of them, of a list) is among these; none at all keeps
    nothing. ranges: from low to high, both inside, None open; numbers, or ISO 8601 times.
    """

    any_of: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float | str | None, float | str | None]] = field(
        default_factory=dict
    )
    not_ids: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in (*self.any_of, *self.ranges):
            if name not in FILTERS:
                raise InputError(f"memories are not filtered by {name!r}")

    @property
    def nothing(self) -> bool:
        """Whether no point can satisfy it."""
        return not all(self.any_of.values())

    def fits(self, payload: Mapping[str, Any]) -> bool:
        """Whether the payload satisfies `any_of`."""
        return all(_among(payload.get(key), values) for key, values in self.any_of.items())

    def fits_all(self, briefs: Iterable[Brief], keys: Iterable[str]) -> bool:
        """Whether all of them satisfy what `any_of` says of these keys, each one of a brief."""
        checked = [(key, self.any_of[key]) for key in keys]
        return not checked or all(
            _among(one.value(key), values) for one in briefs for key, values in checked
        )


def _among(found: Any, values: Sequence[Value]) -> bool:
    if isinstance(found, list):
        return any(one in values for one in found)
    return found in values


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One way to look: the `limit` points nearest to `vector` under that name.

    model: of a dense vector; empty: the active one.
    """

    name: str
    vector: Floats | Sparse
    limit: int
    model: str = ""

    @property
    def can_find(self) -> bool:
        """False for a question without words, or for no result at all."""
        return self.limit > 0 and (not isinstance(self.vector, Sparse) or bool(self.vector))


class Hit(NamedTuple):  # hundreds a search: a frozen dataclass takes three times as long to make
    """score: cosine for a dense vector, BM25 for words; higher is better. payload: None where it
    was not asked for and is not at hand: `get` has it.
    """

    id: str
    score: float
    brief: Brief
    payload: dict[str, Any] | None = None

    @classmethod
    def of(cls, id: str, score: float, payload: dict[str, Any]) -> Hit:
        from pai.brief import Brief

        return cls(id=id, score=score, brief=Brief.of(payload), payload=payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one model's vectors are: the vector's name is `<name>.<place>`."""

    model: str
    dim: int

    @property
    def key(self) -> str:
        return _key(self.model, self.dim)

    def of(self, name: str) -> str:
        return f"{name}.{self.key}"


@lru_cache
def _key(model: str, dim: int) -> str:
    """Asked for with each point that is written, and each look."""
    return sha256(f"{model}\n{dim}".encode()).hexdigest()[:10]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """active: what searches use; coming: the model that takes over, being filled, or None."""

    active: Place
    coming: Place | None = None

    @property
    def newest(self) -> Place:
        return self.coming or self.active

    @property
    def all(self) -> tuple[Place, ...]:
        return (self.active, self.coming) if self.coming else (self.active,)

    def after(self, wanted: Place) -> Places:
        """How it stands once `wanted` was prepared. Going back drops what was half filled."""
        return Places(active=self.active, coming=None if wanted == self.active else wanted)

    def find(self, model: str, default: Place) -> Place:
        """Raises ConflictError when no vectors of that model are here."""
        if not model:
            return default
        for place in self.all:
            if place.model == model:
                return place
        raise ConflictError(
            f"the warm store has no vectors of the model {model!r}, "
            f"only of {', '.join(repr(place.model) for place in self.all)}"
        )

    def dump(self) -> dict[str, Any]:
        return {
            name: {"model": place.model, "dim": place.dim} if place else None
            for name, place in (("active", self.active), ("coming", self.coming))
        }

    @classmethod
    def load(cls, found: Mapping[str, Any]) -> Places:
        """Raises KeyError or TypeError when it is none."""
        return cls(
            active=Place(**found["active"]),
            coming=Place(**found["coming"]) if found["coming"] else None,
        )


class Warm(Protocol):
    """Every call raises WarmError when the store cannot be reached, and TornError (a WarmError)
    when what it holds cannot be trusted: then `reset`, `prepare` and put everything again.
    InputError for an id that is no UUID, an unknown collection or vector, a wrong size.
    """

    async def prepare(self, dim: int, model: str) -> None:
        """Open or make the collections and their indexes. Safe twice.

        Another model than the stored one opens its place beside; `model` and `dim` then hold for
        what is put. ConflictError when another process has the store open.
        """

    async def places(self) -> Places:
        """Which models' vectors are here."""

    async def put(self, collection: str, points: Sequence[Point]) -> None:
        """Insert or replace. When it returns the points survive the death of this process."""

    async def search(
        self, collection: str, looks: Sequence[Look], keep: Keep, *, whole: bool = True
    ) -> list[list[Hit]]:
        """One list for each look, best first, in one trip. `keep` must name `user_id`. Not
        `whole`: payloads are not wanted, which is several times faster where they are on a disk.
        """

    async def search_all(
        self,
        collections: Sequence[str],
        looks: Sequence[Look],
        keep: Keep,
        *,
        whole: bool = True,
    ) -> dict[str, list[list[Hit]]]:
        """`search` in several collections in one trip: a look's `limit` holds for all of them
        together, what is returned is the best of all.
        """

    async def get(
        self, collection: str, ids: Sequence[str], *, vectors: bool = False
    ) -> list[Point]:
        """Those that are there, in the order of `ids`."""

    async def find(
        self, collection: str, keep: Keep, limit: int, *, after: str | None = None
    ) -> list[Point]:
        """Points without vectors in the order of their ids, those above the id `after`."""

    async def set(self, collection: str, id: str, payload: dict[str, Any]) -> None:
        """Merge into the payload; nothing happens when the point is not there."""

    async def remove(self, collection: str, ids: Sequence[str]) -> None:
        """Safe twice."""

    async def count(self, collection: str, keep: Keep | None = None) -> int: ...

    async def missing(self, collection: str, limit: int) -> list[Point]:
        """Points that have no dense vector of the newest model, without vectors."""

    async def count_missing(self, collection: str) -> int:
        """How many of them there are."""

    async def fill(
        self, collection: str, vectors: Mapping[str, Mapping[str, Floats]], *, model: str = ""
    ) -> None:
        """Add dense vectors by id and name; ids that are not there are left out. Safe twice."""

    async def switch(self) -> None:
        """The model that takes over is from now on the only one; the old vectors go.

        Nothing happens when none does. ConflictError while points are missing.
        """

    async def tidy(self) -> bool:
        """Give room of removed points back, merge; False: there was nothing to do."""

    async def wipe(self, collections: Sequence[str]) -> bool:
        """Leave no byte of what was removed from these on the disk; False: the engine does that
        only in its own time.
        """

    async def copy(self, folder: Path) -> bool:
        """Lay a whole copy into the new `folder`; False: a server, whose copies are its own."""

    async def reset(self) -> None:
        """Throw everything away; `prepare` comes next."""

    async def close(self) -> None:
        """Safe twice."""


async def open_warm(settings: Settings) -> Warm:
    """The engine that the settings name; nothing is opened before `prepare`."""
    if settings.qdrant_url is None:
        from pai.warm_edge import EdgeWarm

        return EdgeWarm(settings.home / "data" / "qdrant")
    from pai.warm_server import ServerWarm

    key = await secrets.of(settings).fetch("qdrant-api-key")
    return ServerWarm.at(settings.qdrant_url, key.get_secret_value() if key else None)


def best(found: Mapping[str, list[list[Hit]]], looks: Sequence[Look]) -> dict[str, list[list[Hit]]]:
    """Of each look's hits in all collections the best `limit`; equals in the order of ids."""
    kept: dict[str, list[list[Hit]]] = {name: [] for name in found}
    for at, look in enumerate(looks):
        if sum(len(lists[at]) for lists in found.values()) <= look.limit:
            for name, lists in found.items():
                kept[name].append(lists[at])
            continue
        ranked = sorted((-hit.score, hit.id) for lists in found.values() for hit in lists[at])
        last = ranked[look.limit - 1]
        for name, lists in found.items():
            kept[name].append([hit for hit in lists[at] if (-hit.score, hit.id) <= last])
    return kept


def check_looks(looks: Sequence[Look], keep: Keep) -> None:
    """Whoever forgets whose memories he wants shall not see everybody's."""
    if "user_id" not in keep.any_of:
        raise InputError("a search of memories must say whose")
    for look in looks:
        check_name(look.name, dense=not isinstance(look.vector, Sparse))


def check_name(name: str, *, dense: bool) -> None:
    if name not in (DENSE if dense else SPARSE):
        kind = "dense" if dense else "sparse"
        raise InputError(f"the warm store has no {kind} vector named {name!r}")


def check_dense(name: str, vector: Floats, place: Place) -> list[float]:
    """As the engines take it. InputError when it is not of the place's size or not finite."""
    check_name(name, dense=True)
    if vector.shape != (place.dim,) or not np.isfinite(vector).all():
        raise InputError(
            f"a vector of {place.model!r} has {place.dim} finite numbers, not {vector.shape}"
        )
    found: list[float] = vector.tolist()
    return found


def check_collection(name: str) -> str:
    if name not in COLLECTIONS:
        raise InputError(f"no collection named {name!r}; there are: {', '.join(COLLECTIONS)}")
    return str(name)


def check_id(id: str) -> str:
    """The id as the engines write it. InputError when it is no UUID."""
    try:
        return str(UUID(id))
    except ValueError as error:
        raise InputError(f"the id of a memory is a UUID, not {id!r}") from error
