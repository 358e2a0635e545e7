"""The product's units: all of them started anew at once, and looked at until each is up or lost.

systemd gets one order for all and nobody waits for its end: whoever looks sees a unit that will not
come up long before the slowest of the others has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from base.backup.command import Done, run
from base.errors import ConflictError

#: In the order of a start; the broker, which may be doing this, comes after it all.
PROGRAMS = (
    "ai-memory", "ai-workers@embed", "ai-rehearsal", "ai-api", "ai-agents", "ai-supervisor",
)  # fmt: skip
#: Does not run where there is a key, and that is well.
AT_TIMES = "ai-rehearsal"
FIELDS = "Id,ActiveState,SubState,NRestarts,Job"
#: So often may one die while it starts: the first time its port, say, may not have been free yet.
DEATHS = 2
ORDER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """As systemd has it. deaths: since it was told to start; waits: an order for it is open."""

    name: str
    state: str
    deaths: int
    waits: bool

    @property
    def up(self) -> bool:
        return self.state == "active" and not self.waits

    @property
    def lost(self) -> str:
        """Why it will not come up; "": it is up or may come."""
        if self.state == "failed" or (self.state == "inactive" and not self.waits):
            return f"{self.name} is {self.state}"
        return f"{self.name} died {self.deaths} times" if self.deaths >= DEATHS else ""


async def restart(names: Iterable[str]) -> None:
    """All of them anew, by what their files say now; systemd does it. Raises ConflictError."""
    await order("daemon-reload")
    await systemctl("reset-failed", *names)
    await order("restart", "--no-block", *names)


async def look(names: Iterable[str]) -> list[Unit]:
    """How each of them is. Raises ConflictError where systemd does not say."""
    return read((await order("show", "--property", FIELDS, *names)).out)


def read(said: str) -> list[Unit]:
    """What `systemctl show` says of some units."""
    found = []
    for block in said.strip().split("\n\n"):
        told = dict(line.partition("=")[::2] for line in block.splitlines())
        dead = told.get("SubState", "").startswith("auto-restart")
        found.append(
            Unit(
                name=told.get("Id", "").removesuffix(".service"),
                state=told.get("ActiveState", ""),
                deaths=int(told.get("NRestarts") or 0) + dead,
                waits=told.get("Job", "0") not in {"", "0"},
            )
        )
    return found


def lost(units: Iterable[Unit]) -> str:
    """Why they will never all be up; "": they may be."""
    return ", ".join(unit.lost for unit in units if unit.lost)


async def order(*words: str) -> Done:
    """Raises ConflictError when systemd refuses."""
    done = await systemctl(*words)
    if done.code:  # its first line names the unit, its last where to read on
        said = done.err.strip().partition("\n")[0] or done.words
        raise ConflictError(f"systemctl {words[0]}: {said}")
    return done


async def systemctl(*words: str) -> Done:
    return await run(["systemctl", *words], deadline_s=ORDER_S)
