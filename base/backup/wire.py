"""Redis after a restore: what waits there is of the database that was."""

from __future__ import annotations

from base import log, streams
from base.bus import Bus
from base.errors import AIError
from base.settings import Settings

PAGE = 500
logger = log.get(__name__)


async def clear(settings: Settings) -> None:
    """Remove every key of ours and no other. When Redis cannot be asked it stays as it is, and
    what is on it for tasks that are no more is refused by their epochs.
    """
    try:
        bus = await Bus.open(settings.redis, "restore")
    except AIError as error:
        logger.warning("redis was not cleared", why=str(error))
        return
    try:
        for pattern in streams.OURS:
            cursor = b"0"
            while True:
                ((cursor, keys),) = await bus.call(
                    ("SCAN", cursor, "MATCH", pattern, "COUNT", str(PAGE))
                )
                if keys:
                    await bus.call(("UNLINK", *keys))
                if int(cursor) == 0:
                    break
    except AIError as error:
        logger.warning("redis was not cleared", why=str(error))
    finally:
        await bus.close()
