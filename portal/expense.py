"""What the portal itself spends: told to the supervisor, which writes it down and counts it."""

from __future__ import annotations

from base import log, streams
from base.bus import Bus
from base.errors import BusError
from base.messages import Message, ModelCall, Type

logger = log.get("portal")


async def tell(bus: Bus, call: ModelCall) -> None:
    """Have `call` counted. While Redis is away it is lost, and the log says so."""
    message = Message(
        source="portal",
        target=streams.SERVICE_SUPERVISOR,
        type=Type.RESULT,
        payload=call.model_dump(mode="json"),
    )
    try:
        await bus.publish(streams.USAGE, message)
    except BusError as error:
        logger.error("usage lost", error=str(error))
