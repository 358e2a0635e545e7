"""What the keeper holds open, in one place; every part of it takes this."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from base.bus import Bus
from base.settings import Settings
from base.store import Store
from pai.cards import Use
from pai.cold import Archive
from pai.hot import Index, Shared
from pai.meaning import Meaning
from pai.tiers import Rules
from pai.warm import Warm

LATE_SEARCHES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """lock: held by whoever changes cards that are there, or moves copies; never while waiting
    for the embedding worker, and by maintenance for a slice at a time. wake: there is something
    to do for maintenance. uses: not written yet. search_ms: how long the last searches took.
    counted: what maintenance did since the start, by name. thaw: id → text of cold memories that
    a task was given. people: whose voices a user's memories have, once he asked. analyzed: how
    many memories there were when the database last looked at their spread. held: a backup that has
    everything stand still, and what lets it go.
    """

    settings: Settings
    rules: Rules
    bus: Bus
    store: Store
    warm: Warm
    index: Index
    shared: Shared
    archive: Archive
    meaning: Meaning
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    uses: deque[Use] = field(default_factory=deque)
    search_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATE_SEARCHES))
    counted: dict[str, int] = field(default_factory=dict)
    thaw: dict[str, str] = field(default_factory=dict)
    analyzed: list[int] = field(default_factory=lambda: [0])
    people: dict[str, set[str]] = field(default_factory=dict)
    held: dict[asyncio.Task[None], asyncio.Event] = field(default_factory=dict)

    def count(self, name: str, number: int = 1) -> None:
        if number:
            self.counted[name] = self.counted.get(name, 0) + number
