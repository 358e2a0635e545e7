"""Voice: a recording into text, a sentence into sound, and who does it."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from base import sound
from base.errors import InputError
from base.messages import Wire
from portal.api.responses import may
from portal.door import Asking, At, need
from portal.limits import BODY_MAX_BYTES
from portal.shapes import Sentence
from portal.voice import Heard, Offers

router = APIRouter(tags=["voice"])
NEED = [need("voice")]
#: ISO 639, as `en`; left out, the provider finds out itself.
Language = Annotated[str | None, Query(pattern=r"^[a-z]{2,3}$")]
TAKES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": f"The recording itself: {sound.TAKEN}; what it is, its first bytes say.",
        "content": {
            kind.media_type: {"schema": {"type": "string", "format": "binary"}}
            for kind in sound.KINDS.values()
        },
    }
}
SOUND: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The sentence as sound",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("audio/wav", "audio/mpeg")
        },
    }
}


class Arrived(Wire):
    """How much of a recording is here."""

    received_bytes: int


@router.get("/voice", summary="Who hears and speaks", dependencies=NEED)
async def offers(desk: At, caller: Asking) -> Offers:
    """Who hears and who speaks, and what to set where nobody does."""
    return await desk.voice.offers()


@router.post(
    "/voice/transcriptions",
    summary="Write down a recording",
    dependencies=NEED,
    openapi_extra=TAKES,
    responses=may(409, 502),
)
async def transcribe(
    desk: At, caller: Asking, request: Request, language: Language = None
) -> Heard:
    """A whole recording as text: at most five minutes and 10,000,000 bytes."""
    data = await request.body()
    if not data:
        raise InputError("there is no recording in the request: send it as the body")
    return await desk.voice.hear(data, language or "")


@router.put(
    "/voice/recordings/{recording_id}",
    summary="Send a piece of a recording",
    dependencies=NEED,
    openapi_extra=TAKES,
    responses=may(409),
)
async def piece(
    desk: At,
    caller: Asking,
    request: Request,
    recording_id: UUID,
    at: Annotated[int, Query(ge=0, le=sound.LARGEST_BYTES)],
) -> Arrived:
    """A piece of a recording that still goes on, beginning at byte `at`. Safe to send twice.

    Kept in memory for ten minutes; 409 when what comes before it is missing.
    """
    data = await request.body()
    if not data:
        raise InputError(f"the piece is empty; 1 to {BODY_MAX_BYTES:,} bytes can be sent")
    held = desk.voice.recordings.put(caller.user_id, str(recording_id), at, data)
    return Arrived(received_bytes=held)


@router.post(
    "/voice/recordings/{recording_id}/transcription",
    summary="Write down the pieces",
    dependencies=NEED,
    responses=may(404, 409, 502),
)
async def transcribe_pieces(
    desk: At, caller: Asking, recording_id: UUID, language: Language = None
) -> Heard:
    """The recording that was sent in pieces, as text. It is forgotten once that worked."""
    recordings, whose = desk.voice.recordings, (caller.user_id, str(recording_id))
    heard = await desk.voice.hear(recordings.get(*whose), language or "")
    recordings.drop(*whose)
    return heard


@router.delete(
    "/voice/recordings/{recording_id}",
    summary="Forget a recording",
    dependencies=NEED,
    status_code=204,
)
async def drop(desk: At, caller: Asking, recording_id: UUID) -> None:
    """Forget a recording. Safe when it is gone."""
    desk.voice.recordings.drop(caller.user_id, str(recording_id))


@router.post(
    "/voice/speech",
    summary="Speak a sentence",
    dependencies=NEED,
    responses=SOUND | may(409, 502),
    response_class=StreamingResponse,
)
async def speak(desk: At, caller: Asking, body: Sentence) -> StreamingResponse:
    """One sentence as sound, as it comes from the provider. The same again comes from memory."""
    speech = await desk.voice.speak(body.text.strip(), body.language or "")
    return StreamingResponse(speech.pieces, media_type=speech.media_type)
