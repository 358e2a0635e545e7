"""REST under `/api`: one module a resource. Each route says what it takes and calls the desk."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Depends, FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from portal.api import (
    agents,
    approvals,
    attachments,
    audit,
    auth,
    backups,
    broker,
    conversations,
    domains,
    events,
    memory,
    openapi,
    ops,
    settings,
    tasks,
    tokens,
    usage,
    users,
    voice,
    webhooks,
)
from portal.door import declared

EVERY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
MODULES = (
    auth,
    users,
    tokens,
    conversations,
    attachments,
    tasks,
    agents,
    approvals,
    memory,
    domains,
    broker,
    backups,
    webhooks,
    usage,
    events,
    ops,
    audit,
    settings,
    voice,
)


def install(app: FastAPI) -> None:
    """Put all routes on `app`; what is under `/api` and no route is a problem, not a page."""
    router = APIRouter(
        prefix="/api",
        dependencies=[Depends(declared)],
        generate_unique_id_function=openapi.operation_id,
    )
    for module in MODULES:
        router.include_router(module.router)
    router.include_router(agents.fleet_router)
    app.include_router(router)
    app.router.routes.append(Route("/api/{rest:path}", Nowhere(app, list(app.router.routes))))
    openapi.install(app)


class Nowhere:
    """Every address under `/api` that is none, and every method that an address does not take."""

    def __init__(self, app: FastAPI, known: Sequence[BaseRoute]) -> None:
        self._app = app
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises HTTPException 405 with what is allowed there, or 404."""
        # A path with a name of its own, such as /memory/search, is not one with an id.
        allowed = {one.upper() for one in self._app.openapi()["paths"].get(scope["path"], ())}
        for method in EVERY_METHOD if not allowed else ():
            asked = dict(scope, method=method)
            if any(route.matches(asked)[0] is Match.FULL for route in self._known):
                allowed.add(method)
        if allowed:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(allowed))})
        raise HTTPException(404)
