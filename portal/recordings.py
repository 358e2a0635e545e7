"""Recordings that are still being spoken: kept in memory until they are written down.

A browser sends its recording in pieces while it lasts. Nothing here reaches the record or a disk;
what nobody asks for again within KEEP_S, or what is too much, goes, the oldest first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from base.errors import ConflictError, InputError, NotFoundError
from base.sound import LARGEST_BYTES

KEEP_S = 600.0
PER_USER = 8
ALL_BYTES = 200_000_000
TOO_LARGE = f"the recording is larger than {LARGEST_BYTES:,} bytes"

Where = tuple[str, str]  # whose, which


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What arrived so far; `touched_s`: when, on the monotonic clock."""

    touched_s: float
    data: bytearray = field(default_factory=bytearray)


class Recordings:
    """By user and id. Another user's does not exist."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._held: dict[Where, Recording] = {}  # the longest untouched first

    def put(self, user_id: str, recording_id: str, at: int, piece: bytes) -> int:
        """Add the piece that begins at byte `at`; how many bytes there are now. Safe twice.

        Raises ConflictError when what comes before it is missing, InputError when it is too much.
        """
        self._forget()
        where = (user_id, recording_id)
        kept = self._held.get(where)
        data = kept.data if kept else bytearray()
        if at > len(data):
            raise ConflictError(
                f"byte {at:,} comes after byte {len(data):,}: send what is missing, or all of it"
            )
        if at + len(piece) > LARGEST_BYTES:
            raise InputError(TOO_LARGE)
        data[at : at + len(piece)] = piece
        self._held.pop(where, None)
        self._held[where] = Recording(touched_s=self._now_s(), data=data)
        mine = [one for one in self._held if one[0] == user_id]
        for one in mine[:-PER_USER]:
            del self._held[one]
        while sum(len(one.data) for one in self._held.values()) > ALL_BYTES:
            del self._held[next(iter(self._held))]
        return len(data)

    def get(self, user_id: str, recording_id: str) -> bytes:
        """All that arrived. Raises NotFoundError."""
        self._forget()
        kept = self._held.get((user_id, recording_id))
        if kept is None:
            raise NotFoundError("no such recording, or it was dropped; send it again")
        return bytes(kept.data)

    def drop(self, user_id: str, recording_id: str) -> None:
        """Forget it. Safe when it is gone."""
        self._held.pop((user_id, recording_id), None)

    def _forget(self) -> None:
        end_s = self._now_s() - KEEP_S
        for where in [one for one, kept in self._held.items() if kept.touched_s < end_s]:
            del self._held[where]
