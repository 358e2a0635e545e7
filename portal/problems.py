"""Errors as RFC 9457 problem documents; the one place that knows which error is which status."""

from __future__ import annotations

import http
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from base import errors, log

#: First match wins, so children stand before their parents.
STATUS: tuple[tuple[type[errors.AIError], int], ...] = (
    (errors.InputError, 422),
    (errors.UnauthenticatedError, 401),
    (errors.ForbiddenError, 403),
    (errors.NotFoundError, 404),
    (errors.ConflictError, 409),
    (errors.TooManyError, 429),
    (errors.PlanError, 422),
    (errors.NoAnswerError, 503),
    (errors.BusError, 503),
    (errors.StoreError, 503),
    (errors.NotRunningError, 503),
    (errors.WindowsError, 503),
    (errors.ModelError, 502),
)
SAID = {
    404: "There is nothing at this address.",
    405: "This address does not take that method.",
}


def status_of(error: Exception) -> int:
    """The HTTP status that tells `error`; 500 for what the tree does not know."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def code_of(status: int) -> str:
    """A short word for programs, e.g. `not-found`; part of the problem's type."""
    return http.HTTPStatus(status).phrase.lower().replace(" ", "-").replace("'", "")


def problem(
    status: int,
    detail: str,
    instance: str,
    *,
    code: str | None = None,
    faults: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The document. `faults` names each wrong field: `{"at": "body.content", "message": …}`;
    `code` says more than the status does.
    """
    body: dict[str, Any] = {
        "type": f"urn:ai-infra:problem:{code or code_of(status)}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": instance,
    }
    if faults:
        body["faults"] = [dict(fault) for fault in faults]
    extra = dict(headers or {})
    if status == 401:
        extra.setdefault("WWW-Authenticate", "Bearer")
    return JSONResponse(body, status, media_type="application/problem+json", headers=extra)


def from_error(error: errors.AIError, instance: str) -> JSONResponse:
    """The problem document of an error of ours."""
    status = status_of(error)
    headers = {}
    if isinstance(error, errors.TooManyError):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    faults = [{"at": "", "message": fault} for fault in getattr(error, "faults", ())]
    if isinstance(error, errors.FieldsError):
        faults = [{"file": one[0], "at": one[1], "message": one[2]} for one in error.fields]
    detail = str(error) if status != 500 else "The portal failed at this; its log has the cause."
    code: str | None = getattr(error, "code", None)
    return problem(status, detail, instance, code=code, faults=faults, headers=headers)


def faults_of(error: RequestValidationError) -> list[dict[str, str]]:
    """One entry for each wrong field, without the values that were sent. Of a field that takes
    several kinds, e.g. a text or a list, what was wrong with the kind that was meant.
    """
    told: dict[tuple[int | str, ...], list[tuple[tuple[int, bool], dict[str, str]]]] = {}
    for fault in error.errors():
        loc: tuple[int | str, ...] = tuple(fault["loc"])
        label = next((at for at, part in enumerate(loc) if "[" in str(part)), len(loc))
        fits = (len(loc) - label, not str(fault["type"]).endswith("_type"))
        message = str(fault["msg"]).removeprefix("Value error, ")
        at = ".".join(str(part) for part in (*loc[:label], *loc[label + 1 :]))
        told.setdefault(loc[:label], []).append((fits, {"at": at, "message": message}))
    return [
        one
        for found in told.values()
        for fits, one in found
        if fits == max(best for best, _ in found)
    ]


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""
    logger = log.get("portal")

    async def ours(request: Request, error: Exception) -> JSONResponse:
        if status_of(error) >= 500:
            logger.error("answered with an error", path=request.url.path, error=str(error))
        return from_error(cast("errors.AIError", error), request.url.path)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        faults = faults_of(cast("RequestValidationError", error))
        detail = "; ".join(f"{fault['at']}: {fault['message']}" for fault in faults)
        return problem(422, detail, request.url.path, faults=faults)

    async def plain(request: Request, error: Exception) -> JSONResponse:
        said = cast("HTTPException", error)
        phrase = http.HTTPStatus(said.status_code).phrase
        detail = SAID.get(said.status_code, phrase) if said.detail == phrase else said.detail
        return problem(said.status_code, str(detail), request.url.path, headers=said.headers)

    async def unknown(request: Request, error: Exception) -> JSONResponse:
        logger.error("answered with an error", path=request.url.path, error=repr(error))
        return from_error(errors.AIError(), request.url.path)

    app.add_exception_handler(errors.AIError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(Exception, unknown)
