"""The package indexes of this machine, as pip and npm are configured to use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from base.levels import Level
from base.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexes:
    addresses: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    async def of(cls, settings: Settings, level: Level) -> Indexes:
        return cls()
