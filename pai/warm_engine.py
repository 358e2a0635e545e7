"""What goes to the embedded engine, as it takes it, and what it raises, as errors of ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import qdrant_edge as edge

from base.errors import WarmError
from pai.warm import DENSE, SPARSE, Index, Keep, Places, Sparse, Value, check_id

#: In KB; far above what a shard may hold, so that no graph is ever built.
NO_GRAPH = 100_000_000
#: Two bytes a number: cosines right to 1e-4, half the memory, four times as fast as float32.
NUMBERS = edge.VectorStorageDatatype.Turbo16
#: Of what is kept as `pai/packed` has it.
SCHEMA: dict[Index, Any] = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Integer,
    "datetime": edge.PayloadSchemaType.Datetime,
}


def config(places: Places) -> edge.EdgeConfig:
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


def sparse(vector: Sparse) -> edge.SparseVector:
    return edge.SparseVector(list(vector.indices), list(vector.values))


def conditions(keep: Keep) -> edge.Filter:
    must: list[Any] = [any_of(key, values) for key, values in keep.any_of.items()]
    must += [
        edge.FieldCondition(key, range=_range(low, high))
        for key, (low, high) in keep.ranges.items()
    ]
    never: list[Any] = (
        [edge.HasIdCondition({check_id(id) for id in keep.not_ids})] if keep.not_ids else []
    )
    return edge.Filter(must=must, must_not=never)


def any_of(key: str, values: Sequence[Value]) -> edge.FieldCondition | edge.Filter:
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
def calling(kind: type[WarmError], said: str) -> Iterator[None]:
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
