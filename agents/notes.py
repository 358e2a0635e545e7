"""What other agents broadcast: kept for a day, and shown to tasks of the same user only."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta

from base.messages import BROADCAST_TARGET, Message, Type

KEPT = 20
KEPT_FOR = timedelta(hours=24)
USERS = 1_000
TEXT_CHARS = 2_000


class Notes:
    """The last notes of each user, newest last. `own`: this agent, whose own notes are left out."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._by_user: dict[str, deque[tuple[datetime, str]]] = {}

    def take(self, message: Message) -> None:
        """Keep a broadcast; one without user or text is dropped."""
        user, text = message.payload.get("user_id"), message.payload.get("text")
        if message.source == self._own or not isinstance(user, str) or not isinstance(text, str):
            return
        kept = self._by_user.pop(user, deque(maxlen=KEPT))
        kept.append((message.timestamp, f"{message.source}: {text[:TEXT_CHARS]}"))
        self._by_user[user] = kept
        if len(self._by_user) > USERS:
            del self._by_user[next(iter(self._by_user))]

    def of(self, user_id: str, now: datetime | None = None) -> list[str]:
        """The notes of that user's tasks, not older than a day."""
        oldest = (now or datetime.now(UTC)) - KEPT_FOR
        return [text for at, text in self._by_user.get(user_id, ()) if at >= oldest]


def note(agent: str, user_id: str, task_id: str, text: str) -> Message:
    """A broadcast on its way."""
    return Message(
        source=agent,
        target=BROADCAST_TARGET,
        type=Type.LEARN,
        payload={"user_id": user_id, "task_id": task_id, "text": text[:TEXT_CHARS]},
    )
