"""The warm store in a Qdrant server or cluster, over its REST interface.

Vectors live in collections of the seed plan's names; which models' they are is one point of the
collection `ai_infra_state`. A second model beside the first needs a server that can add a named
vector to a collection (1.18 or newer). One installation a server: the names have no prefix.

What was never run against a real server, for want of one: everything here. It is tested against
the client's own local mode and against a stand-in that speaks these REST calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException
from qdrant_client.http.exceptions import UnexpectedResponse as Refused

from base.errors import ConflictError, TornError, WarmError
from pai import warm_wire as wire
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
    best,
    check_collection,
    check_dense,
    check_id,
    check_looks,
)

STATE = "ai_infra_state"
STATE_ID = "00000000-0000-0000-0000-000000000001"
#: Points a request: with 1,536 numbers each, far below the server's limit of 32 MB.
SLICE = 256
#: Seconds for one request, and the pauses before it is made again; everything is safe twice.
REQUEST_S = 10
PAUSES_S = (0.2, 1.0)
P = ParamSpec("P")
T = TypeVar("T")


class ServerWarm:
    """`Warm` over a client; see there for what each call promises."""

    def __init__(self, client: AsyncQdrantClient, name: str) -> None:
        """name: how errors call the server."""
        self._client = client
        self._name = name
        self._known: Places | None = None

    @classmethod
    def at(cls, url: str, key: str | None) -> ServerWarm:
        """No question is asked yet. The key is sent with every request."""
        return cls(
            AsyncQdrantClient(url=url, api_key=key, timeout=REQUEST_S, check_compatibility=False),
            url,
        )

    # Opening and closing -------------------------------------------------------------------

    async def prepare(self, dim: int, model: str) -> None:
        wanted = Place(model=model, dim=dim)
        stored = await self._read()
        places = (stored or Places(active=wanted)).after(wanted)
        for name in COLLECTIONS:
            if await self._ask(self._client.collection_exists, name):
                await self._add_names(name, places)
            elif stored is not None:
                raise TornError(f"the Qdrant server {self._name} has lost its {name}")
            else:
                await self._ask(self._make, name, places)
            await self._add_indexes(name)
        await self._write(places)
        await self._drop_stale()

    async def _make(self, name: str, places: Places) -> None:
        await self._client.create_collection(
            name,
            vectors_config={
                place.of(one): wire.dense_params(place) for place in places.all for one in DENSE
            },
            sparse_vectors_config={
                one: models.SparseVectorParams(modifier=models.Modifier.IDF) for one in SPARSE
            },
            on_disk_payload=True,
        )

    async def _add_names(self, name: str, places: Places) -> None:
        have = await self._names(name)
        for place in places.all:
            for one in (one for one in DENSE if place.of(one) not in have):
                config: Any = models.DenseVectorNameConfig(
                    dense=models.DenseVectorConfig(size=place.dim, distance=models.Distance.COSINE)
                )
                await self._name_vector(name, place.of(one), config)
        for one in (one for one in SPARSE if one not in have):
            config = models.SparseVectorNameConfig(
                sparse=models.SparseVectorConfig(modifier=models.Modifier.IDF)
            )
            await self._name_vector(name, one, config)

    async def _name_vector(self, collection: str, name: str, config: Any) -> None:
        try:
            await self._ask(self._client.create_vector_name, collection, name, config)
        except TornError as error:
            raise WarmError(
                f"the Qdrant server {self._name} cannot add a vector to a collection: "
                "1.18 or newer can"
            ) from error

    async def _add_indexes(self, name: str) -> None:
        info = await self._ask(self._client.get_collection, name)
        for key, kind in COLLECTIONS[name].items():
            if key not in (info.payload_schema or {}):
                await self._ask(
                    self._client.create_payload_index, name, key, wire.SCHEMA[kind], wait=True
                )

    async def _drop_stale(self) -> None:
        places = await self.places()
        wanted = {place.of(one) for place in places.all for one in DENSE} | set(SPARSE)
        for name in COLLECTIONS:
            for stale in await self._names(name) - wanted:
                await self._ask(self._client.delete_vector_name, name, stale)

    async def _names(self, name: str) -> set[str]:
        params = (await self._ask(self._client.get_collection, name)).config.params
        dense = params.vectors if isinstance(params.vectors, dict) else {}
        return {*dense, *(params.sparse_vectors or {})}

    async def _read(self) -> Places | None:
        if not await self._ask(self._client.collection_exists, STATE):
            return None
        found = await self._ask(self._client.retrieve, STATE, [STATE_ID])
        try:
            return Places.load(found[0].payload or {}) if found else None
        except (KeyError, TypeError) as error:
            raise TornError(f"the Qdrant server {self._name} holds no state of ours") from error

    async def _write(self, places: Places) -> None:
        if not await self._ask(self._client.collection_exists, STATE):
            await self._ask(
                self._client.create_collection,
                STATE,
                models.VectorParams(size=1, distance=models.Distance.DOT),
            )
        point = models.PointStruct(id=STATE_ID, vector=[1.0], payload=places.dump())
        await self._ask(self._client.upsert, STATE, [point], wait=True)
        self._known = places

    async def places(self) -> Places:
        if self._known is None:
            raise WarmError("the warm store is not open")
        return self._known

    async def copy(self, folder: Path) -> bool:
        return False

    async def reset(self) -> None:
        self._known = None
        for name in (*COLLECTIONS, STATE):
            await self._ask(self._client.delete_collection, name)

    async def close(self) -> None:
        self._known = None
        await self._client.close()

    # Writing -------------------------------------------------------------------------------

    async def put(self, collection: str, points: Sequence[Point]) -> None:
        places = await self._open(collection)
        for start in range(0, len(points), SLICE):
            some = [wire.to_point(one, places) for one in points[start : start + SLICE]]
            await self._ask(self._client.upsert, collection, some, wait=True)

    async def set(self, collection: str, id: str, payload: dict[str, Any]) -> None:
        await self._open(collection)
        there = models.Filter(must=[models.HasIdCondition(has_id=[check_id(id)])])
        await self._ask(self._client.set_payload, collection, payload, points=there, wait=True)

    async def remove(self, collection: str, ids: Sequence[str]) -> None:
        await self._open(collection)
        gone: list[Any] = [check_id(id) for id in ids]
        if gone:
            await self._ask(self._client.delete, collection, gone, wait=True)

    async def fill(
        self, collection: str, vectors: Mapping[str, Mapping[str, Floats]], *, model: str = ""
    ) -> None:
        places = await self._open(collection)
        place = places.find(model, places.newest)
        filled = {
            check_id(id): {
                place.of(name): check_dense(name, vector, place) for name, vector in named.items()
            }
            for id, named in vectors.items()
        }
        left = iter(filled)
        while ids := list(islice(left, SLICE)):
            found = await self._retrieve(collection, ids, payload=False, vectors=False)
            there: list[Any] = [
                models.PointVectors(id=one.id, vector=filled[str(one.id)])  # type: ignore[arg-type]
                for one in found
            ]
            if there:
                await self._ask(self._client.update_vectors, collection, there, wait=True)

    async def switch(self) -> None:
        places = await self.places()
        if places.coming is None:
            return
        for name in COLLECTIONS:
            if left := await self.count_missing(name):
                raise ConflictError(
                    f"{left} of {name} have no vector of {places.coming.model!r} yet"
                )
        await self._write(Places(active=places.coming))
        await self._drop_stale()

    async def wipe(self, collections: Sequence[str]) -> bool:
        """A server's own optimiser writes segments anew, when it sees fit."""
        return False

    async def tidy(self) -> bool:
        """The server does it by itself."""
        return False

    # Reading -------------------------------------------------------------------------------

    async def search(
        self, collection: str, looks: Sequence[Look], keep: Keep, *, whole: bool = True
    ) -> list[list[Hit]]:
        return (await self.search_all([collection], looks, keep, whole=whole))[collection]

    async def search_all(
        self,
        collections: Sequence[str],
        looks: Sequence[Look],
        keep: Keep,
        *,
        whole: bool = True,
    ) -> dict[str, list[list[Hit]]]:
        """Payloads always come along: a second trip would cost more."""
        check_looks(looks, keep)
        lists = await asyncio.gather(*(self._search(name, looks, keep) for name in collections))
        return best(dict(zip(collections, lists, strict=True)), looks)

    async def _search(self, collection: str, looks: Sequence[Look], keep: Keep) -> list[list[Hit]]:
        places = await self._open(collection)
        found: list[list[Hit]] = [[] for _ in looks]
        able = [at for at, look in enumerate(looks) if look.can_find]
        if not able or keep.nothing:
            return found
        asked = [wire.to_request(looks[at], places, keep) for at in able]
        answers = await self._ask(self._client.query_batch_points, collection, asked)
        for at, answer in zip(able, answers, strict=True):
            found[at] = [Hit.of(str(one.id), one.score, one.payload or {}) for one in answer.points]
        return found

    async def get(
        self, collection: str, ids: Sequence[str], *, vectors: bool = False
    ) -> list[Point]:
        places = await self._open(collection)
        wanted = list(dict.fromkeys(check_id(id) for id in ids))
        if not wanted:
            return []
        found = await self._retrieve(collection, wanted, payload=True, vectors=vectors)
        by_id = {str(one.id): one for one in found}
        return [wire.from_record(by_id[id], places) for id in wanted if id in by_id]

    async def find(
        self, collection: str, keep: Keep, limit: int, *, after: str | None = None
    ) -> list[Point]:
        await self._open(collection)
        if keep.nothing or limit < 1:
            return []
        more = 0 if after is None else 1
        offset = None if after is None else check_id(after)
        found = await self._scroll(collection, wire.to_filter(keep), limit + more, offset)
        return [one for one in found if one.id != offset][:limit]

    async def count(self, collection: str, keep: Keep | None = None) -> int:
        await self._open(collection)
        if keep and keep.nothing:
            return 0
        return await self._count(collection, wire.to_filter(keep) if keep else None)

    async def missing(self, collection: str, limit: int) -> list[Point]:
        places = await self._open(collection)
        return await self._scroll(collection, wire.without_vector(places), limit, None)

    async def count_missing(self, collection: str) -> int:
        return await self._count(collection, wire.without_vector(await self._open(collection)))

    # Inside --------------------------------------------------------------------------------

    async def _open(self, collection: str) -> Places:
        check_collection(collection)
        return await self.places()

    async def _count(self, collection: str, filter: models.Filter | None) -> int:
        found = await self._ask(self._client.count, collection, count_filter=filter, exact=True)
        return found.count

    async def _scroll(
        self, collection: str, filter: models.Filter, limit: int, offset: str | None
    ) -> list[Point]:
        found, _ = await self._ask(
            self._client.scroll,
            collection,
            scroll_filter=filter,
            limit=limit,
            offset=offset,
            with_payload=True,
        )
        places = await self.places()
        return [wire.from_record(one, places) for one in found]

    async def _retrieve(
        self, collection: str, ids: Sequence[str], *, payload: bool, vectors: bool
    ) -> list[models.Record]:
        return await self._ask(
            self._client.retrieve, collection, list(ids), with_payload=payload, with_vectors=vectors
        )

    async def _ask(self, call: Callable[P, Awaitable[T]], *values: P.args, **named: P.kwargs) -> T:
        """Make the call, again when the server is away or overloaded; then say so."""
        for pause_s in (*PAUSES_S, None):
            try:
                return await call(*values, **named)
            except Refused as error:
                again = error.status_code in {429, 500, 502, 503, 504}
                if pause_s is None or not again:
                    raise self._refused(error) from error
            except (ApiException, ResponseHandlingException) as error:
                if pause_s is None:
                    raise WarmError(
                        f"the Qdrant server {self._name} cannot be reached: {error}"
                    ) from error
            except RuntimeError as error:  # the client was closed
                raise WarmError(f"the Qdrant server {self._name}: {error}") from error
            await asyncio.sleep(pause_s)
        raise AssertionError("unreachable")

    def _refused(self, error: Refused) -> WarmError:
        said = error.content.decode(errors="replace")[:200]
        if error.status_code in {401, 403}:
            return WarmError(
                f"the Qdrant server {self._name} refuses the key; set it again: "
                "ai-infra secrets set qdrant-api-key"
            )
        if error.status_code == 404:
            return TornError(f"the Qdrant server {self._name} has lost a collection: {said}")
        return WarmError(f"the Qdrant server {self._name} refused ({error.status_code}): {said}")
