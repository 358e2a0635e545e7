"""What goes to a Qdrant server and comes back, as values of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from pai.warm import (
    DENSE,
    SPARSE,
    Index,
    Keep,
    Look,
    Place,
    Places,
    Point,
    Sparse,
    Value,
    check_dense,
    check_id,
    check_name,
)

SCHEMA: dict[Index, models.PayloadSchemaType] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.BOOL,
    "datetime": models.PayloadSchemaType.DATETIME,
}


def dense_params(place: Place) -> models.VectorParams:
    return models.VectorParams(size=place.dim, distance=models.Distance.COSINE)


def to_point(point: Point, places: Places) -> models.PointStruct:
    place = places.find(point.model, places.newest)
    vectors: dict[str, Any] = {
        place.of(name): check_dense(name, vector, place) for name, vector in point.dense.items()
    }
    for name, sparse in point.sparse.items():
        check_name(name, dense=False)
        if sparse:
            vectors[name] = _sparse(sparse)
    return models.PointStruct(id=check_id(point.id), vector=vectors, payload=point.payload)


def from_record(record: models.Record, places: Places) -> Point:
    found: dict[str, Any] = record.vector if isinstance(record.vector, dict) else {}
    for place in places.all:
        dense = {
            name: np.asarray(found[place.of(name)], dtype=np.float32)
            for name in DENSE
            if place.of(name) in found
        }
        if dense:
            break
    return Point(
        id=str(record.id),
        payload=record.payload or {},
        dense=dense,
        sparse={
            name: Sparse(indices=tuple(found[name].indices), values=tuple(found[name].values))
            for name in SPARSE
            if name in found
        },
        model=place.model if dense else "",
    )


def _sparse(vector: Sparse) -> models.SparseVector:
    return models.SparseVector(indices=list(vector.indices), values=list(vector.values))


def to_request(look: Look, places: Places, keep: Keep) -> models.QueryRequest:
    vector: Any
    if isinstance(look.vector, Sparse):
        check_name(look.name, dense=False)
        vector, name = _sparse(look.vector), look.name
    else:
        place = places.find(look.model, places.active)
        vector, name = check_dense(look.name, look.vector, place), place.of(look.name)
    return models.QueryRequest(
        query=vector, using=name, filter=to_filter(keep), limit=look.limit, with_payload=True
    )


def without_vector(places: Places) -> models.Filter:
    name = places.newest.of(DENSE[0])
    return models.Filter(must_not=[models.HasVectorCondition(has_vector=name)])


def to_filter(keep: Keep) -> models.Filter:
    must: list[Any] = [_any_of(key, values) for key, values in keep.any_of.items()]
    must += [
        models.FieldCondition(key=key, range=_range(low, high))
        for key, (low, high) in keep.ranges.items()
    ]
    never: list[Any] = []
    if keep.not_ids:
        never = [models.HasIdCondition(has_id=[check_id(id) for id in keep.not_ids])]
    return models.Filter(must=must, must_not=never)


def _any_of(key: str, values: Sequence[Value]) -> models.FieldCondition | models.Filter:
    if len(values) > 1 and {type(value) for value in values} in ({str}, {int}):
        many: Any = models.MatchAny(any=list(values))  # type: ignore[arg-type]
        return models.FieldCondition(key=key, match=many)
    return models.Filter(
        should=[
            models.FieldCondition(key=key, match=models.MatchValue(value=value)) for value in values
        ]
    )


def _range(low: float | str | None, high: float | str | None) -> Any:
    if isinstance(low, str) or isinstance(high, str):
        return models.DatetimeRange(gte=low, lte=high)  # type: ignore[arg-type]
    return models.Range(gte=low, lte=high)
