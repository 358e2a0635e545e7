"""A stand-in for a Qdrant server: the REST calls that `pai/warm_server.py` makes, nothing else.

Bodies are read with the client's own models; behind them is the client's local mode. What a real
server does with index types, limits, consistency or a cluster is not shown by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
from pydantic import TypeAdapter
from qdrant_client import AsyncQdrantClient, models
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

KEY = "a-key"


class StandIn:
    """calls: (method, path) of every request. faults: statuses that the next ones are given.
    pause_s: how long an answer takes.
    """

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.calls: list[tuple[str, str]] = []
        self.faults: list[int] = []
        self.pause_s = 0.0
        self.client = AsyncQdrantClient(":memory:")

    def app(self) -> Starlette:
        async def answer(request: Request) -> JSONResponse:
            self.calls.append((request.method, request.url.path))
            await asyncio.sleep(self.pause_s)
            if self.faults:
                return _error(self.faults.pop(0), "as ordered")
            if request.headers.get("api-key") != KEY:
                return _error(401, "Must provide an API key")
            try:
                return JSONResponse(
                    {"result": await self._do(request), "status": "ok", "time": 0.0}
                )
            except ValueError as error:
                return _error(404 if "not found" in str(error) else 400, str(error))

        return Starlette(
            routes=[Route("/{path:path}", answer, methods=["GET", "PUT", "POST", "DELETE"])]
        )

    async def _do(self, request: Request) -> Any:
        client = self.client
        _, name, *rest = request.url.path.strip("/").split("/")
        body = await request.json() if await request.body() else {}
        done = {"operation_id": 0, "status": "completed"}
        match request.method, rest:
            case "GET", ["exists"]:
                return {"exists": await client.collection_exists(name)}
            case "GET", []:
                return _plain(await client.get_collection(name))
            case "DELETE", []:
                return await client.delete_collection(name)
            case "PUT", []:
                made = models.CreateCollection.model_validate(body)
                return await client.create_collection(
                    name,
                    vectors_config=made.vectors,
                    sparse_vectors_config=made.sparse_vectors,
                )
            case "PUT", ["index"]:
                models.CreateFieldIndex.model_validate(body)
            case "PUT", ["vectors", vector]:
                config: Any = TypeAdapter(models.VectorNameConfig).validate_python(body)
                await client.create_vector_name(name, vector, config)
            case "DELETE", ["vectors", vector]:
                await client.delete_vector_name(name, vector)
            case "PUT", ["points"]:
                await client.upsert(name, models.PointsList.model_validate(body).points)
            case "PUT", ["points", "vectors"]:
                await client.update_vectors(name, models.UpdateVectors.model_validate(body).points)
            case "POST", ["points"]:
                asked = models.PointRequest.model_validate(body)
                return _plain(
                    await client.retrieve(
                        name,
                        asked.ids,
                        with_payload=asked.with_payload is True,
                        with_vectors=asked.with_vector or False,
                    )
                )
            case "POST", ["points", "delete"]:
                await client.delete(name, models.PointIdsList.model_validate(body).points)
            case "POST", ["points", "payload"]:
                given = models.SetPayload.model_validate(body)
                assert given.filter
                await client.set_payload(name, given.payload, points=given.filter)
            case "POST", ["points", "count"]:
                count = models.CountRequest.model_validate(body)
                return _plain(await client.count(name, count_filter=count.filter))
            case "POST", ["points", "scroll"]:
                page = models.ScrollRequest.model_validate(body)
                found, more = await client.scroll(
                    name,
                    scroll_filter=page.filter,
                    limit=page.limit or 10,
                    offset=page.offset,
                    with_payload=True,
                )
                return {"points": _plain(found), "next_page_offset": more}
            case "POST", ["points", "query", "batch"]:
                batch = models.QueryRequestBatch.model_validate(body)
                return _plain(await client.query_batch_points(name, batch.searches))
            case _:
                raise ValueError(f"not found: {request.method} {request.url.path}")
        return done


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.model_dump(mode="json")


def _error(status: int, said: str) -> JSONResponse:
    return JSONResponse({"status": {"error": said}, "time": 0.0, "result": None}, status)


@contextlib.contextmanager
def stand_in() -> Iterator[StandIn]:
    """One that runs in a thread of its own."""
    served = StandIn()
    config = uvicorn.Config(served.app(), port=served.port, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), name="stand-in")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.02)
        yield served
    finally:
        server.should_exit = True
        thread.join(10)
