"""One collection's folder of the embedded engine: blocking calls, values in, values out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from base.errors import TornError, WarmError
from pai.brief import CHECKED, Brief
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
    Score,
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
        self._briefs: dict[str, Brief] = {}
        self._briefed: str | None = ""
        self._shared: dict[tuple[str, tuple[Value, ...]], bool] = {}
        self._bools = [key for key, kind in COLLECTIONS[collection].items() if kind == "bool"]
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
        briefs = [Brief.of(one.payload) for one in points]
        self._briefs.update(zip(ids, briefs, strict=True))

    def set(self, id: str, payload: dict[str, Any]) -> None:
        if self._there([id]):
            self._forget([id])
            self._update(edge.UpdateOperation.set_payload([id], self._kept(payload, int)))

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
        into._briefs |= {id: self._briefs[id] for id in ids if id in self._briefs}
        return ids[-1]

    def close(self) -> None:
        with calling(WarmError, f"the warm store's {self.collection} could not be closed"):
            self._shard.close()

    # Reading -------------------------------------------------------------------------------

    def search(self, looks: Sequence[Look], keep: Keep) -> list[list[Score]]:
        """Without payloads, and maybe with hits that `keep` does not keep: see `likely`."""
        filter = conditions(keep)
        asked = [self._request(look, filter) for look in looks]
        with self._reading():
            found = self._shard.query_batch(edge.QueryBatchRequest(asked))
        return [[(str(one.id), one.score) for one in hits] for hits in found]

    def likely(self, keep: Keep) -> Keep:
        """`keep` without what all points here satisfy by the index's estimate, which makes a
        search several times faster. Whoever uses it checks the briefs.
        """
        rest = {
            key: values
            for key, values in keep.any_of.items()
            if key not in CHECKED or not self._satisfied(key, tuple(values))
        }
        return replace(keep, any_of=rest)

    def _satisfied(self, key: str, values: tuple[Value, ...]) -> bool:
        """Whether by the estimate all points have one of the values; asked once between writes."""
        found = self._shared.get((key, values))
        if found is None:
            filter = edge.Filter(must=[any_of(key, values)])
            with self._reading():
                count = self._shard.count(edge.CountRequest(exact=False, filter=filter))
                found = count >= self._shard.info().points_count
            if len(self._shared) >= SHARED_MAX:
                self._shared.clear()
            self._shared[key, values] = found
        return found

    @property
    def empty(self) -> bool:
        with self._reading():
            return bool(self._shard.info().points_count == 0)

    def payloads(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        with self._reading():
            found = self._shard.retrieve(list(ids), True, False)
        return {str(one.id): self._kept(one.payload or {}, bool) for one in found}

    def briefs(self, ids: Sequence[str]) -> dict[str, Brief]:
        """Of those that are there; read once, from then on at hand."""
        if missing := [id for id in ids if id not in self._briefs]:
            for id, payload in self.payloads(missing).items():
                self._briefs[id] = Brief.of(payload)
        return {id: self._briefs[id] for id in ids if id in self._briefs}

    def brief_ahead(self, limit: int) -> bool:
        """Of the next `limit` points, so that no search has to; False: there are no more."""
        if self._briefed is None:
            return False
        found = self._scroll(None, limit + 1, self._briefed or None)
        for one in found:
            self._briefs.setdefault(one.id, Brief.of(one.payload))
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
            self._briefs.pop(id, None)

    def _kept(self, payload: dict[str, Any], kind: type[int]) -> dict[str, Any]:
        bools = {key: kind(payload[key]) for key in self._bools if key in payload}
        return {**payload, **bools}

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
        return edge.Point(check_id(point.id), vectors, self._kept(point.payload, int))

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
            payload=self._kept(record.payload or {}, bool),
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
        with calling(WarmError, f"the warm store's {self.collection} refused a write"):
            self._shard.update(operation)

    def _reading(self) -> Any:
        return calling(WarmError, f"the warm store's {self.collection} refused a read")


def search(
    shards: Mapping[str, Shard], looks: Sequence[Look], keep: Keep, *, whole: bool
) -> dict[str, list[list[Hit]]]:
    """See `Warm.search_all`."""
    full = {at: shard for at, shard in shards.items() if not shard.empty}
    for shortened in (True, False):
        wanted = {at: shard.likely(keep) if shortened else keep for at, shard in full.items()}
        found = {at: shard.search(looks, wanted[at]) for at, shard in full.items()}
        scores = best(found, looks)
        ids = {at: list({id: None for some in scores[at] for id, _ in some}) for at in full}
        briefs = {at: full[at].briefs(ids[at]) for at in full}
        if all(
            keep.fits_all(briefs[at].values(), keep.any_of.keys() - wanted[at].any_of.keys())
            for at in full
        ):
            break
    payloads = {at: full[at].payloads(ids[at]) if whole else {} for at in full}
    return {
        at: [
            [Hit(id, score, briefs[at][id], payloads[at].get(id)) for id, score in some]
            for some in scores[at]
        ]
        for at in full
    }
