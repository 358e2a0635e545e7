"""`/openapi.json`: what FastAPI knows of the routes, and what it cannot know.

Added here for every operation: who may call it, the problems that any call can end in, and the
examples of `examples.py`. A route says the rest itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from portal.api.examples import ANSWERS, BODIES
from portal.api.responses import PROBLEM, response
from portal.api.samples import FINISHED
from portal.door import COOKIE, FREE_PATHS, OPEN_PATHS
from portal.signature import HEADER

VERSION = version("ai-infrastructure")
METHODS = frozenset({"get", "post", "put", "patch", "delete"})
DESCRIPTION = (
    "The interface of one installation. Everything that the pages and the command can do goes "
    "through it.\n\nErrors are problem documents (RFC 9457). A POST that creates takes an "
    "`Idempotency-Key`: the same key with the same request gives the first answer again. Live "
    "events come over the WebSocket `/ws` or as server-sent events from `/api/events`."
)
TAGS = {
    "auth": "Logging in and out, one's own account, and where one is logged in.",
    "users": "Everybody with an account (admin).",
    "tokens": "API tokens: for programs, with scopes.",
    "conversations": "Conversations and their messages. A message is work for the agents.",
    "attachments": "Files for messages.",
    "tasks": "What became of a message: its plan, its state, what was spent.",
    "agents": "Who works here, and an admin's hand on them.",
    "approvals": "What agents ask leave for.",
    "memory": "What is remembered of the caller's work.",
    "domains": "The server's own domains; not available in local mode.",
    "broker": "What only root can do, by typed verbs (admin); not available in local mode.",
    "backups": "Backups of the whole installation: made, checked, restored (admin).",
    "webhooks": "Have an address of yours told when a task ended.",
    "usage": "What model calls spent.",
    "settings": "The configuration and the secrets (admin).",
    "voice": "Recordings into text, sentences into sound.",
    "events": "The live view.",
    "health": "Whether the parts answer.",
    "dlq": "Messages that could not be handled (admin).",
    "audit": "The audit log (admin).",
}
SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An access token of `POST /api/auth/login`, or an API token, whose scopes "
        "have to reach so far.",
    },
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "The pages' cookie (`__Host-` over https). It counts for requests of our "
        "own pages alone: a write needs a matching Origin.",
    },
}
EITHER: list[dict[str, list[str]]] = [{"bearer": []}, {"cookie": []}]


def operation_id(route: APIRoute) -> str:
    """`<tag>_<function>`, e.g. `tasks_cancel`: what generated clients call it."""
    tag = str(route.tags[0])
    name = {tag.removesuffix("s"): "get", tag: "list"}.get(route.name, route.name)
    return f"{tag}_{name}"


def install(app: FastAPI) -> None:
    """Have `app` tell all of itself. Built at the first question, then kept."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = build(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def build(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    spec = get_openapi(
        title="AI Infrastructure",
        version=VERSION,
        description=DESCRIPTION,
        license_info={"name": "MIT", "identifier": "MIT"},
        tags=[{"name": name, "description": said} for name, said in TAGS.items()],
        routes=app.routes,
    )
    parts = spec.setdefault("components", {})
    parts["securitySchemes"] = SCHEMES
    for left_over in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(left_over, None)
    parts["schemas"]["Problem"] = PROBLEM
    for path, operation in operations(spec):
        _complete(path, operation)
    spec["security"] = EITHER
    spec["webhooks"] = {"task.finished": {"post": _finished()}}
    return spec


def operations(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each operation with its path."""
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            if method in METHODS:
                yield path, operation


def _complete(path: str, operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    answers.pop("422", None)
    asked = {401, 429} if path not in FREE_PATHS else set()
    if path.replace("{provider}", "google") in OPEN_PATHS:
        operation["security"] = []
    else:
        asked |= {403}  # a token's scopes may not reach so far
        operation["security"] = EITHER
    if operation.get("parameters") or "requestBody" in operation:
        asked |= {422}
    if any(one["name"] == "Idempotency-Key" for one in operation.get("parameters", ())):
        asked |= {409}
    if "{" in path:
        asked |= {404, 405}  # an odd name makes another path
    if "requestBody" in operation:
        asked |= {400, 413}
    if path != "/api/health/live":
        asked |= {503}
    for status in asked:
        answers.setdefault(str(status), response(status))
    operation["responses"] = dict(sorted(answers.items()))
    _exemplify(operation)


def _exemplify(operation: dict[str, Any]) -> None:
    """The examples of its request and of its success, where the route gave none."""
    name = operation["operationId"]
    if name in BODIES:
        for content in operation["requestBody"]["content"].values():
            content.setdefault("example", BODIES[name])
    if name in ANSWERS:
        for status, answer in operation["responses"].items():
            if status.startswith("2") and "application/json" in answer.get("content", {}):
                answer["content"]["application/json"].setdefault("example", ANSWERS[name])


def _finished() -> dict[str, Any]:
    """What we call, told in the same words."""
    signature = {
        "name": HEADER,
        "in": "header",
        "required": True,
        "description": "`t=<Unix time>,v1=<hex>`: HMAC-SHA256 with the webhook's secret over "
        "`<t>.<body>`. Refuse what is older than 300 s.",
        "schema": {"type": "string", "pattern": "^t=[0-9]+,v1=[0-9a-f]{64}$"},
    }
    return {
        "operationId": "task_finished",
        "summary": "A task ended",
        "description": "Sent to each active webhook of the task's owner, at least once; `id` is "
        "the same at every attempt.",
        "tags": ["webhooks"],
        "security": [],
        "parameters": [signature],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}, "example": FINISHED}},
        },
        "responses": {"2XX": {"description": "Taken. Anything else is tried again."}},
    }
