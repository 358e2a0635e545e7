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
        self._by_user: dict[str, deque[tuple[datetime, str, bool]]] = {}

    def take(self, message: Message) -> None:
        """Keep a broadcast; one without user or text is dropped."""
        user, text = message.payload.get("user_id"), message.payload.get("text")
        if message.source == self._own or not isinstance(user, str) or not isinstance(text, str):
            return
        kept = self._by_user.pop(user, deque(maxlen=KEPT))
        tainted = message.payload.get("tainted") is True
        kept.append((message.timestamp, f"{message.source}: {text[:TEXT_CHARS]}", tainted))
        self._by_user[user] = kept
        if len(self._by_user) > USERS:
            del self._by_user[next(iter(self._by_user))]

    def of(self, user_id: str, now: datetime | None = None) -> list[str]:
        """The notes of that user's tasks, not older than a day."""
        return [text for text, _ in self._fresh(user_id, now)]

    def tainted(self, user_id: str, now: datetime | None = None) -> bool:
        """Whether one of them was written by a task that had read untrusted content."""
        return any(tainted for _, tainted in self._fresh(user_id, now))

    def _fresh(self, user_id: str, now: datetime | None) -> list[tuple[str, bool]]:
        oldest = (now or datetime.now(UTC)) - KEPT_FOR
        kept = self._by_user.get(user_id, ())
        return [(text, tainted) for at, text, tainted in kept if at >= oldest]


def note(agent: str, user_id: str, task_id: str, text: str, *, tainted: bool = False) -> Message:
    """A broadcast on its way. `tainted`: its task had read untrusted content."""
    return Message(
        source=agent,
        target=BROADCAST_TARGET,
        type=Type.LEARN,
        payload={
            "user_id": user_id,
            "task_id": task_id,
            "text": text[:TEXT_CHARS],
            "tainted": tainted,
        },
    )
