"""REST under `/api`: one module a resource. Each route says what it takes and calls the desk."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.routing import Match

from portal.api import (
    agents,
    approvals,
    audit,
    auth,
    conversations,
    domains,
    events,
    memory,
    openapi,
    ops,
    tasks,
    usage,
    webhooks,
)

EVERY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
MODULES = (
    auth,
    conversations,
    tasks,
    agents,
    approvals,
    memory,
    domains,
    webhooks,
    usage,
    events,
    ops,
    audit,
)


def install(app: FastAPI) -> None:
    """Put all routes on `app`; what is under `/api` and no route is a problem, not a page."""
    router = APIRouter(prefix="/api", generate_unique_id_function=openapi.operation_id)
    for module in MODULES:
        router.include_router(module.router)
    app.include_router(router)
    known = list(app.router.routes)

    async def nowhere(request: Request) -> None:
        allowed = set()
        for method in EVERY_METHOD:
            scope = dict(request.scope, method=method)
            if any(route.matches(scope)[0] is Match.FULL for route in known):
                allowed.add(method)
        if allowed:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(allowed))})
        raise HTTPException(404)

    app.add_api_route("/api/{rest:path}", nowhere, methods=EVERY_METHOD, include_in_schema=False)
    openapi.install(app)
