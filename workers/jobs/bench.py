"""What every job is given to work with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from base.settings import Settings
from workers.batch import Core
from workers.device import SHARE, Device

#: Numbers of one block of a product: 64 MiB of fp32, whatever the machine.
BLOCK = 1 << 24

#: Texts in, rows of float32 out.
Embed = Callable[[Sequence[str]], Awaitable[NDArray[np.float32]]]


class Job(Protocol):
    """One kind of job. `answer` raises InputError for a payload that cannot be."""

    async def answer(self, payload: dict[str, Any]) -> dict[str, Any]: ...

    def info(self) -> dict[str, Any]:
        """At least `ready`: False when it needs a setting, or what is set cannot be used."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The core to compute on, the device it has, and the way to vectors of texts."""

    core: Core
    device: Device
    settings: Settings
    embed: Embed

    def block(self) -> int:
        """How many fp32 numbers a product may fill now: `BLOCK`, or less on a full GPU."""
        free_bytes = self.device.free_bytes
        return BLOCK if free_bytes is None else max(1, min(BLOCK, int(free_bytes * SHARE / 8)))
