"""Deadlines: an absolute moment on the monotonic clock, passed down, never a remainder."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """`at_s` is seconds on `time.monotonic()`; comparable only inside one process."""

    at_s: float

    @classmethod
    def after(cls, seconds_s: float) -> Deadline:
        """The moment `seconds_s` from now; negative means already passed."""
        return cls(time.monotonic() + seconds_s)

    @property
    def left_s(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.at_s - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at_s

    def sooner(self, other: Deadline | None) -> Deadline:
        """The earlier of the two; `None` means the other has no limit."""
        return self if other is None or self.at_s <= other.at_s else other
