"""One collection's folder of the embedded engine: blocking calls, values in, values out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge

from base.errors import TornError, WarmError
from pai.brief import CHECKED, Brief
from pai.packed import fields, packed, unpacked
from pai.pages import let_go
from pai.warm import (
    COLLECTIONS,
    DENSE,
    SPARSE,
    Floats,
    Hit,
    Keep,
    Look,
    Place,
    Places,
    Point,
    Sparse,
    Value,
    best,
    check_dense,
    check_id,
    check_name,
)
from pai.warm_engine import NUMBERS, SCHEMA, any_of, calling, conditions, config, sparse

#: Values of filters whose share of the points is remembered.
SHARED_MAX = 1_000


class Shard:
    """Not to be used by two threads at once, but for `sync`."""

    def __init__(self, folder: Path, collection: str, places: Places, *, new: bool) -> None:
        """Opens what is there; `new` makes it, over what a death left of it. TornError when it
        is not there, or cannot be read.
        """
        self.folder = folder
        self.collection = collection
        self.places = places
        #: By the number that its id is: the engine tells hundreds a search, and to write each as
        #: text takes longer than all else that is done with it.
        self._briefs: dict[int, tuple[str, Brief]] = {}
        self._briefed: str | None = ""
        self._shared: dict[tuple[str, tuple[Value, ...]], tuple[Value, ...]] = {}
        self._empty: bool | None = None
        if new:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with calling(WarmError, f"the warm store's {collection} cannot be made"):
                self._shard = edge.EdgeShard.create(str(folder), config(places))
        else:
            with calling(TornError, f"the warm store's {collection} cannot be read"):
                self._shard = edge.EdgeShard.load(str(folder))
        let_go(self.folder)  # read to the end while loading; what searches need comes back

    def add_index(self) -> bool:
        """One that is not there yet; False: all are. Each is flushed by the engine: slow."""
        have = self._shard.info().payload_schema
        for name, kind in COLLECTIONS[self.collection].items():
            if name not in have:
                self._update(edge.UpdateOperation.create_field_index(name, SCHEMA[kind]))
                return True
        return False

    # Vectors' names ------------------------------------------------------------------------

    def add_names(self, places: Places) -> None:
        """Make the vectors of these places. Safe twice."""
        for place in places.all:
            for name in DENSE:
                self._update(
                    edge.UpdateOperation.create_dense_vector(
                        place.of(name), place.dim, edge.Distance.Cosine, datatype=NUMBERS
                    )
                )
        for name in SPARSE:
            self._update(edge.UpdateOperation.create_sparse_vector(name, edge.Modifier.Idf))
        self.places = places

    def drop_names(self, names: Sequence[str]) -> None:
        """Safe twice."""
        for name in names:
            self._update(edge.UpdateOperation.delete_vector_name(name))

    # Writing -------------------------------------------------------------------------------

    def put(self, points: Sequence[Point]) -> None:
        made = [self._point(one) for one in points]
        ids = [str(one.id) for one in made]
        self._forget(ids)
        self._update(edge.UpdateOperation.upsert_points(made))
        for id, one in zip(ids, points, strict=True):
            self._keep_brief(id, one.payload)

    def set(self, id: str, payload: dict[str, Any]) -> None:
        if self._there([id]):
            self._forget([id])
            self._update(edge.UpdateOperation.set_payload([id], fields(payload)))

    def remove(self, ids: Sequence[str]) -> None:
        self._forget(ids)
        self._update(edge.UpdateOperation.delete_points(list(ids)))

    def fill(self, vectors: Mapping[str, Mapping[str, Floats]], place: Place) -> None:
        there = self._there(list(vectors))
        filled = [
            edge.PointVectors(
                id,
                {
                    place.of(name): check_dense(name, vector, place)
                    for name, vector in named.items()
                },
            )
            for id, named in vectors.items()
            if check_id(id) in there
        ]
        if filled:
            self._update(edge.UpdateOperation.update_vectors(filled))

    def flush(self) -> None:
        """Everything to its own files, so that the log can be cut."""
        with calling(WarmError, f"the warm store's {self.collection} could not be flushed"):
            self._shard.flush()
        let_go(self.folder)

    def sync(self) -> None:
        """The log to the disk. Lets others run, unlike everything else here."""
        log = self.folder / "wal"
        for path in (*log.iterdir(), log):
            try:
                handle = os.open(path, os.O_RDONLY)
            except FileNotFoundError:  # the engine cut its log meanwhile
                continue
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def pour(self, into: Shard, limit: int, after: str | None) -> str | None:
        """The next `limit` points above the id `after`, as they are, into another shard; the
        last one's id, None when there was none.
        """
        with self._reading():
            found, _ = self._shard.scroll(
                edge.ScrollRequest(
                    limit=limit + 1, with_payload=True, with_vector=True, offset=after
                )
            )
        found = [one for one in found if str(one.id) != after][:limit]
        if not found:
            return None
        points = [edge.Point(one.id, one.vector or {}, one.payload) for one in found]
        into._update(edge.UpdateOperation.upsert_points(points))
        ids = [str(one.id) for one in found]
        numbers = [UUID(id).int for id in ids]
        into._briefs |= {one: self._briefs[one] for one in numbers if one in self._briefs}
        return ids[-1]

    def close(self) -> None:
        with calling(WarmError, f"the warm store's {self.collection} could not be closed"):
            self._shard.close()

    # Reading -------------------------------------------------------------------------------

    def search(self, looks: Sequence[Look], keep: Keep) -> list[list[Hit]]:
        """Without payloads, and maybe with hits that `keep` does not keep: see `likely`."""
        filter = conditions(keep)
        asked = [self._request(look, filter) for look in looks]
        with self._reading():
            found = self._shard.query_batch(edge.QueryBatchRequest(asked))
            lists = [[(one.id.int, one.score) for one in hits] for hits in found]  # type: ignore[union-attr]
        briefs = self._briefs
        if missing := {number for some in lists for number, _ in some if number not in briefs}:
            for id, payload in self.payloads([str(UUID(int=one)) for one in missing]).items():
                self._keep_brief(id, payload)
        return [
            [Hit((it := briefs[number])[0], score, it[1]) for number, score in some]
            for some in lists
        ]

    def likely(self, keep: Keep) -> Keep:
        """`keep` without what all points here satisfy by the index's estimate, and without values
        that none has, which makes a search several times faster. Whoever uses it checks the briefs.
        """
        rest = {
            key: self._worth_asking(key, tuple(values)) if key in CHECKED else values
            for key, values in keep.any_of.items()
        }
        return replace(keep, any_of={key: values for key, values in rest.items() if values})

    def _worth_asking(self, key: str, values: tuple[Value, ...]) -> tuple[Value, ...]:
        """Those of the values that a point has, one at least; none when by the estimate all points
        have one of them. Asked once between writes.
        """
        found = self._shared.get((key, values))
        if found is None:
            if self._count(key, values, exact=False) >= self._points:
                found = ()
            else:
                there = [one for one in values if len(values) == 1 or self._has(key, one)]
                found = tuple(there) or values[:1]
            if len(self._shared) >= SHARED_MAX:
                self._shared.clear()
            self._shared[key, values] = found
        return found

    def _has(self, key: str, value: Value) -> bool:
        return any(self._count(key, (value,), exact=exact) for exact in (False, True))

    def _count(self, key: str, values: tuple[Value, ...], *, exact: bool) -> int:
        filter = edge.Filter(must=[any_of(key, values)])
        with self._reading():
            return self._shard.count(edge.CountRequest(exact=exact, filter=filter))

    @property
    def _points(self) -> int:
        with self._reading():
            return int(self._shard.info().points_count)

    @property
    def empty(self) -> bool:
        if self._empty is None:
            self._empty = not self._points
        return self._empty

    def payloads(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        with self._reading():
            found = self._shard.retrieve(list(ids), True, False)
        return {str(one.id): unpacked(one.payload) for one in found}

    def brief_ahead(self, limit: int) -> bool:
        """Of the next `limit` points, so that no search has to; False: there are no more."""
        if self._briefed is None:
            return False
        found = self._scroll(None, limit + 1, self._briefed or None)
        for one in found:
            if UUID(one.id).int not in self._briefs:
                self._keep_brief(one.id, one.payload)
        self._briefed = found[-1].id if len(found) > limit else None
        if self._briefed is None:
            let_go(self.folder / "segments")
        return self._briefed is not None

    def get(self, ids: Sequence[str], *, vectors: bool) -> list[Point]:
        with self._reading():
            found = self._shard.retrieve(list(ids), True, vectors)
        by_id = {str(one.id): one for one in found}
        return [self._read(by_id[id]) for id in dict.fromkeys(ids) if id in by_id]

    def find(self, keep: Keep, limit: int, after: str | None) -> list[Point]:
        more = 0 if after is None else 1
        return [
            one
            for one in self._scroll(conditions(keep), limit + more, after)
            if after is None or one.id != after
        ][:limit]

    def count(self, keep: Keep | None) -> int:
        with self._reading():
            return self._shard.count(
                edge.CountRequest(exact=True, filter=conditions(keep) if keep else None)
            )

    def missing(self, limit: int) -> list[Point]:
        return self._scroll(self._without_vector(), limit, None)

    def count_missing(self) -> int:
        with self._reading():
            return self._shard.count(edge.CountRequest(exact=True, filter=self._without_vector()))

    # Inside --------------------------------------------------------------------------------

    def _forget(self, ids: Sequence[str]) -> None:
        for id in ids:
            self._briefs.pop(UUID(id).int, None)

    def _keep_brief(self, id: str, payload: Mapping[str, Any]) -> None:
        self._briefs[UUID(id).int] = id, Brief.of(payload)

    def _without_vector(self) -> edge.Filter:
        return edge.Filter(must_not=[edge.HasVectorCondition(self.places.newest.of(DENSE[0]))])

    def _scroll(self, filter: edge.Filter | None, limit: int, offset: str | None) -> list[Point]:
        with self._reading():
            found, _ = self._shard.scroll(
                edge.ScrollRequest(limit=limit, filter=filter, with_payload=True, offset=offset)
            )
        return [self._read(one) for one in found]

    def _there(self, ids: Sequence[str]) -> frozenset[str]:
        with self._reading():
            found = self._shard.retrieve(list(ids), False, False)
            return frozenset(str(one.id) for one in found)

    def _point(self, point: Point) -> edge.Point:
        place = self.places.find(point.model, self.places.newest)
        vectors: dict[str, Any] = {
            place.of(name): check_dense(name, vector, place) for name, vector in point.dense.items()
        }
        for name, some in point.sparse.items():
            check_name(name, dense=False)
            if some:
                vectors[name] = sparse(some)
        return edge.Point(check_id(point.id), vectors, packed(point.payload))

    def _read(self, record: edge.Record) -> Point:
        found: dict[str, Any] = record.vector or {}  # type: ignore[assignment]
        for place in self.places.all:
            dense = {
                name: np.asarray(found[place.of(name)], dtype=np.float32)
                for name in DENSE
                if place.of(name) in found
            }
            if dense:
                break
        return Point(
            id=str(record.id),
            payload=unpacked(record.payload),
            dense=dense,
            sparse={
                name: Sparse(indices=tuple(found[name].indices), values=tuple(found[name].values))
                for name in SPARSE
                if name in found
            },
            model=place.model if dense else "",
        )

    def _request(self, look: Look, filter: edge.Filter) -> edge.QueryRequest:
        vector: Any
        if isinstance(look.vector, Sparse):
            check_name(look.name, dense=False)
            vector, name = sparse(look.vector), look.name
        else:
            place = self.places.find(look.model, self.places.active)
            vector, name = check_dense(look.name, look.vector, place), place.of(look.name)
        return edge.QueryRequest(
            limit=look.limit,
            query=edge.Query.Nearest(vector, name),
            filter=filter,
            with_payload=False,
        )

    def _update(self, operation: edge.UpdateOperation) -> None:
        self._shared.clear()
        self._empty = None
        with calling(WarmError, f"the warm store's {self.collection} refused a write"):
            self._shard.update(operation)

    def _reading(self) -> Any:
        return calling(WarmError, f"the warm store's {self.collection} refused a read")


def search(
    shards: Mapping[str, Shard], looks: Sequence[Look], keep: Keep, *, whole: bool
) -> dict[str, list[list[Hit]]]:
    """See `Warm.search_all`."""
    full = {at: shard for at, shard in shards.items() if not shard.empty}
    found: dict[str, list[list[Hit]]] = {}
    for shortened in (True, False):
        wanted = {at: shard.likely(keep) if shortened else keep for at, shard in full.items()}
        found = best({at: shard.search(looks, wanted[at]) for at, shard in full.items()}, looks)
        if all(_kept(found[at], keep, wanted[at]) for at in full):
            break
    return {at: _whole(full[at], lists) for at, lists in found.items()} if whole else found


def _kept(lists: Sequence[Sequence[Hit]], keep: Keep, wanted: Keep) -> bool:
    """Whether all of them satisfy what was left out of `keep`."""
    briefs = (hit.brief for some in lists for hit in some)
    return keep.fits_all(briefs, keep.any_of.keys() - wanted.any_of.keys())


def _whole(shard: Shard, lists: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
    payloads = shard.payloads(list({hit.id: None for some in lists for hit in some}))
    return [[hit._replace(payload=payloads.get(hit.id)) for hit in some] for some in lists]
