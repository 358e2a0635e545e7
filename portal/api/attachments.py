"""Files for messages."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response

from portal import attachments
from portal.door import Asking, At, need
from portal.talk import File

router = APIRouter(prefix="/attachments", tags=["attachments"])

BODY = {
    "requestBody": {
        "required": True,
        "description": "The bytes of the file, as they are.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("", status_code=201, openapi_extra=BODY, dependencies=[need("tasks:write")])
async def take(
    desk: At,
    caller: Asking,
    request: Request,
    name: Annotated[str, Query(min_length=1, max_length=255)],
) -> File:
    """Keep a file for a message that is sent within a day. What it is, is found in its bytes."""
    return await attachments.take(desk, caller, name, request.stream())


@router.get(
    "/{attachment_id}",
    response_class=Response,
    responses={200: {"content": {"*/*": {}}}},
    dependencies=[need("tasks:read")],
)
async def give(desk: At, caller: Asking, attachment_id: UUID) -> Response:
    """The file, to its owner alone, always as a download."""
    found, path = await attachments.give(desk, caller, str(attachment_id))
    plain = "".join(char if char.isascii() else "_" for char in found.name)
    return FileResponse(
        path,
        media_type=found.media_type if found.kind == "image" else "application/octet-stream",
        headers={
            "Content-Disposition": f'attachment; filename="{plain}"; '
            f"filename*=UTF-8''{quote(found.name, safe='')}",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "private, max-age=86400, immutable",
        },
    )


@router.delete("/{attachment_id}", status_code=204, dependencies=[need("tasks:write")])
async def drop(desk: At, caller: Asking, attachment_id: UUID) -> None:
    """Take back a file that no message has yet."""
    await attachments.drop(desk, caller, str(attachment_id))
