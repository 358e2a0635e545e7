"""REST under `/api`: one module a resource. Each route says what it takes and calls the desk."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.routing import Match

from portal.api import (
    agents,
    approvals,
    attachments,
    audit,
    auth,
    conversations,
    memory,
    ops,
    settings,
    tasks,
    tokens,
    users,
    voice,
)
from portal.door import bearer, declared

EVERY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
PROBLEM = {
    "description": "A problem document (RFC 9457)",
    "content": {"application/problem+json": {}},
}


def install(app: FastAPI) -> None:
    """Put all routes on `app`; what is under `/api` and no route is a problem, not a page."""
    router = APIRouter(
        prefix="/api",
        dependencies=[Depends(bearer), Depends(declared)],
        responses={"4XX": PROBLEM, "5XX": PROBLEM},
    )
    for module in (
        auth,
        users,
        tokens,
        conversations,
        attachments,
        tasks,
        agents,
        approvals,
        memory,
        ops,
        audit,
        settings,
        voice,
    ):
        router.include_router(module.router)
    router.include_router(agents.fleet_router)
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
