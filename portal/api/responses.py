"""The problem documents that a route may answer with, as OpenAPI tells of them."""

from __future__ import annotations

import http
from typing import Any

from portal.problems import code_of

PROBLEM_JSON = "application/problem+json"
REF = {"$ref": "#/components/schemas/Problem"}
#: RFC 9457, with `faults` as our extension.
PROBLEM: dict[str, Any] = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457). `detail` is for people, `type` for programs.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {
            "type": "string",
            "pattern": "^urn:ai-infra:problem:[a-z-]+$",
            "description": "Which kind of problem; does not change between versions.",
        },
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "The path that was asked for."},
        "faults": {
            "type": "array",
            "description": "Every wrong field, e.g. `body.content`.",
            "items": {
                "type": "object",
                "required": ["at", "message"],
                "properties": {"at": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
SAID = {
    400: ("The body cannot be read.", "There was an error parsing the body"),
    401: (
        "No token, or one that is wrong, expired or revoked.",
        "no token: send `Authorization: Bearer …`, or log in",
    ),
    403: ("Yours to see, not to do.", "only an admin may do this"),
    404: ("No such thing, or somebody else's.", "no such thing"),
    405: ("This address does not take that method.", "This address does not take that method."),
    409: (
        "Its state does not allow it, or the Idempotency-Key belongs to another request.",
        "this Idempotency-Key was used for another request",
    ),
    413: ("The body is too large.", "The request body is larger than 1,000,000 bytes."),
    422: (
        "It cannot be carried out as given; `faults` names every wrong field.",
        "query.limit: Input should be a valid integer, unable to parse string as an integer",
    ),
    429: (
        "Too often; `Retry-After` says in how many seconds again.",
        "too many requests; try again in 12 s",
    ),
    502: ("A provider outside failed.", "OpenAI answered 401: the key is not valid"),
    503: ("A part of the system does not answer.", "the service memory did not answer in time"),
}


def may(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses=`: what it answers beyond what any route does."""
    return {status: response(status) for status in statuses}


def response(status: int, detail: str | None = None) -> dict[str, Any]:
    """One problem response, with an example."""
    description, said = SAID[status]
    example: dict[str, Any] = {
        "type": f"urn:ai-infra:problem:{code_of(status)}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail or said,
        "instance": "/api/…",
    }
    if status == 422:
        at, _, message = said.partition(": ")
        example["faults"] = [{"at": at, "message": message}]
    found: dict[str, Any] = {
        "description": description,
        "content": {PROBLEM_JSON: {"schema": REF, "example": example}},
    }
    if status == 429:
        found["headers"] = {
            "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}}
        }
    return found
