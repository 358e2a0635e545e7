"""What the sandbox may reach: the rules the driver is given, and what it tells of connections."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from base.levels import PACKAGE_INDEXES, Level

REASON = "blocked by policy: not on the list of level {level}; do not retry another way"
#: Where an owner's own network is: closed to names at a level that opens a whole port.
PRIVATE = (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15", "fc00::/7",
)  # fmt: skip
_KEPT = 50


def rules(level: Level, grants: Iterable[str], indexes: Iterable[str]) -> list[dict[str, object]]:
    """`{"address": "host:port", "index": bool}` of all that may be reached."""
    own = [address for address in (*level.network, *grants) if address != PACKAGE_INDEXES]
    found = [{"address": address, "index": False} for address in own]
    if PACKAGE_INDEXES in level.network:  # first: a host that is both counts as an index
        found[:0] = [{"address": address, "index": True} for address in indexes]
    return found


def open_ports(level: Level) -> bool:
    """Whether a whole port is open, and not named hosts alone."""
    return any(address.startswith("*:") for address in level.network)


@dataclass(slots=True)  # mutable: what is told adds up
class Seen:
    """What was told of connections since the last `take`."""

    refused: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, None] = field(default_factory=dict)

    def note(self, event: dict[str, object]) -> None:
        """Take one line of the driver in."""
        address = f"{str(event.get('host'))[:253]}:{event.get('port')}"
        if event.get("allowed") is not True:
            if len(self.refused) < _KEPT:
                self.refused[address] = str(event.get("why") or "")[:200]
        elif event.get("index") is not True and len(self.foreign) < _KEPT:
            self.foreign[address] = None

    def take(self) -> Seen:
        """All of it, and forget it."""
        now = Seen(refused=self.refused, foreign=self.foreign)
        self.refused, self.foreign = {}, {}
        return now


def told(refused: dict[str, str], level: str) -> str:
    """What the model reads of refused addresses; empty when there were none."""
    lines = []
    for address, why in refused.items():
        reason = why or f"is not on the list of level {level}"
        lines.append(
            f"blocked by policy: {address} {reason}: "
            "do not retry another way; ask with request_permission"
        )
    return "\n".join(lines)
