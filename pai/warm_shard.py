"""One collection's folder of the embedded engine: blocking calls, values in, values out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from base.errors import TornError, WarmError
from pai.pages import let_go
from pai.warm import (
    COLLECTIONS,
    DENSE,
    SPARSE,
    Floats,
    Index,
    Keep,
    Look,
    Place,
    Places,
    Point,
    Score,
    Sparse,
    Value,
    check_dense,
    check_id,
    check_name,
)

#: In KB; far above what a shard may hold, so that no graph is ever built.
NO_GRAPH = 100_000_000
#: Two bytes a number: cosines right to 1e-4, half the memory, four times as fast as float32.
NUMBERS = edge.VectorStorageDatatype.Turbo16
#: The binding turns True into 1 before it compares, so what is declared a bool is kept as 0 or 1.
SCHEMA: dict[Index, Any] = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Integer,
    "datetime": edge.PayloadSchemaType.Datetime,
}


class Shard:
    """Not to be used by two threads at once, but for `sync`."""

    def __init__(self, folder: Path, collection: str, places: Places, *, new: bool) -> None:
        """Opens what is there; `new` makes it, over what a death left of it. TornError when it
        is not there, or cannot be read.
        """
        self.folder = folder
        self.collection = collection
        self.places = places
        self._bools = [key for key, kind in COLLECTIONS[collection].items() if kind == "bool"]
        if new:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with _engine(WarmError, f"the warm store's {collection} cannot be made"):
                self._shard = edge.EdgeShard.create(str(folder), _config(places))
        else:
            with _engine(TornError, f"the warm store's {collection} cannot be read"):
                self._shard = edge.EdgeShard.load(str(folder))
        let_go(self.folder / "wal")  # read to the end while loading

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
        self._update(edge.UpdateOperation.upsert_points([self._point(one) for one in points]))

    def set(self, id: str, payload: dict[str, Any]) -> None:
        if self._there([id]):
            self._update(edge.UpdateOperation.set_payload([id], self._kept(payload, int)))

    def remove(self, ids: Sequence[str]) -> None:
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
        with _engine(WarmError, f"the warm store's {self.collection} could not be flushed"):
            self._shard.flush()
        let_go(self.folder / "wal")

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
        return str(found[-1].id)

    def close(self) -> None:
        with _engine(WarmError, f"the warm store's {self.collection} could not be closed"):
            self._shard.close()

    # Reading -------------------------------------------------------------------------------

    def search(self, looks: Sequence[Look], keep: Keep) -> list[list[Score]]:
        """Without payloads, and maybe with hits that `keep` does not keep: see `likely`."""
        filter = _filter(keep)
        asked = [self._request(look, filter) for look in looks]
        with self._reading():
            found = self._shard.query_batch(edge.QueryBatchRequest(asked))
        return [[(str(one.id), one.score) for one in hits] for hits in found]

    def likely(self, keep: Keep) -> Keep:
        """`keep` without what all points here satisfy by the index's estimate, which makes a
        search several times faster. Whoever uses it checks the payloads.
        """
        with self._reading():
            total = self._shard.info().points_count
            rest = {
                key: values
                for key, values in keep.any_of.items()
                if self._shard.count(
                    edge.CountRequest(exact=False, filter=edge.Filter(must=[_any_of(key, values)]))
                )
                < total
            }
        return replace(keep, any_of=rest)

    def payloads(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        with self._reading():
            found = self._shard.retrieve(list(ids), True, False)
        return {str(one.id): self._kept(one.payload or {}, bool) for one in found}

    def get(self, ids: Sequence[str], *, vectors: bool) -> list[Point]:
        with self._reading():
            found = self._shard.retrieve(list(ids), True, vectors)
        by_id = {str(one.id): one for one in found}
        return [self._read(by_id[id]) for id in dict.fromkeys(ids) if id in by_id]

    def find(self, keep: Keep, limit: int, after: str | None) -> list[Point]:
        more = 0 if after is None else 1
        return [
            one
            for one in self._scroll(_filter(keep), limit + more, after)
            if after is None or one.id != after
        ][:limit]

    def count(self, keep: Keep | None) -> int:
        with self._reading():
            return self._shard.count(
                edge.CountRequest(exact=True, filter=_filter(keep) if keep else None)
            )

    def missing(self, limit: int) -> list[Point]:
        return self._scroll(self._without_vector(), limit, None)

    def count_missing(self) -> int:
        with self._reading():
            return self._shard.count(edge.CountRequest(exact=True, filter=self._without_vector()))

    # Inside --------------------------------------------------------------------------------

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
        for name, sparse in point.sparse.items():
            check_name(name, dense=False)
            if sparse:
                vectors[name] = _sparse(sparse)
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
            vector, name = _sparse(look.vector), look.name
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
        with _engine(WarmError, f"the warm store's {self.collection} refused a write"):
            self._shard.update(operation)

    def _reading(self) -> Any:
        return _engine(WarmError, f"the warm store's {self.collection} refused a read")


def _config(places: Places) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={
            place.of(name): edge.EdgeVectorParams(
                size=place.dim, distance=edge.Distance.Cosine, datatype=NUMBERS
            )
            for place in places.all
            for name in DENSE
        },
        sparse_vectors={
            name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf) for name in SPARSE
        },
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=NO_GRAPH, default_segment_number=1),
        payload_memory=edge.Memory.Cold,
        max_search_threads=2,
        wal_enabled=True,
    )


def _sparse(vector: Sparse) -> edge.SparseVector:
    return edge.SparseVector(list(vector.indices), list(vector.values))


def _filter(keep: Keep) -> edge.Filter:
    must: list[Any] = [_any_of(key, values) for key, values in keep.any_of.items()]
    must += [
        edge.FieldCondition(key, range=_range(low, high))
        for key, (low, high) in keep.ranges.items()
    ]
    never: list[Any] = (
        [edge.HasIdCondition({check_id(id) for id in keep.not_ids})] if keep.not_ids else []
    )
    return edge.Filter(must=must, must_not=never)


def _any_of(key: str, values: Sequence[Value]) -> edge.FieldCondition | edge.Filter:
    kinds = {type(value) for value in values}
    if len(values) == 1:
        return edge.FieldCondition(key, match=edge.MatchValue(values[0]))
    if kinds in ({str}, {int}):
        return edge.FieldCondition(key, match=edge.MatchAny(list(values)))  # type: ignore[arg-type]
    return edge.Filter(
        should=[edge.FieldCondition(key, match=edge.MatchValue(value)) for value in values]
    )


def _range(low: float | str | None, high: float | str | None) -> Any:
    if isinstance(low, str) or isinstance(high, str):
        return edge.RangeDateTime(gte=_text(low), lte=_text(high))
    return edge.RangeFloat(gte=low, lte=high)


def _text(value: float | str | None) -> str | None:
    return None if value is None else str(value)


@contextmanager
def _engine(kind: type[WarmError], said: str) -> Iterator[None]:
    """The engine raises bare Exception, and a panic that is not even one."""
    try:
        yield
    except WarmError:
        raise
    except Exception as error:
        raise kind(f"{said}: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise kind(f"{said}: {error}") from error
