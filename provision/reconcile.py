"""Two sides of a folder and what they last agreed on: what goes where, and where both changed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from provision.git import PLAIN, PROGRAM, Blob

Side = Literal["here", "there"]
#: What decides over rights is only pushed: taking it from outside is for a person, by name.
GUARDED = {
    "approvals.toml", "broker.toml", "levels.toml", "limits.toml", "mcp.toml", "outside.toml",
    "settings.env", "settings.json", "settings.toml",
}  # fmt: skip
#: Keys of an agent's file that do so, too; and what is in such a folder is run.
RIGHTS = ("level", "tools")
RUN = "hooks"
BY_NAME = "so it is taken only by name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """to_here, to_there: path → what it becomes on that side, None: taken away. both: path → why
    it is left as it is on both sides. agreed: what the sides agree on afterwards.
    """

    to_here: dict[str, Blob | None] = field(default_factory=dict)
    to_there: dict[str, Blob | None] = field(default_factory=dict)
    both: dict[str, str] = field(default_factory=dict)
    agreed: dict[str, Blob] = field(default_factory=dict)


def plan(
    base: Mapping[str, Blob],
    here: Mapping[str, Blob],
    there: Mapping[str, Blob],
    settled: Mapping[str, Side],
) -> Plan:
    """settled: which side holds for a path, as a person said."""
    made = Plan()
    for path in sorted({*base, *here, *there}):
        old, mine, theirs = base.get(path), here.get(path), there.get(path)
        side = settled.get(path)
        if mine == theirs:
            holds = mine
        elif side == "here" or (side is None and theirs == old):
            holds = made.to_there[path] = mine
        elif (why := _unfit(path, theirs, asked=side == "there")) or (side is None and mine != old):
            made.both[path] = why or _told(mine, theirs)
            holds = old
        else:
            holds = made.to_here[path] = theirs
        if holds is not None:
            made.agreed[path] = holds
    for path in [*made.to_here, *made.to_there]:
        if _collides(path, {**there, **here}):
            made.both[path] = "a file stands where the other side has a folder"
            made.to_here.pop(path, None)
            made.to_there.pop(path, None)
            made.agreed.pop(path, None)
            if path in base:
                made.agreed[path] = base[path]
    return made


def _unfit(path: str, theirs: Blob | None, *, asked: bool) -> str | None:
    if theirs is not None and theirs.mode not in {PLAIN, PROGRAM}:
        return "it is a link there, which is never taken"
    *above, name = path.split("/")
    if (name in GUARDED or RUN in above) and not asked:
        return f"it was changed there and decides over rights, {BY_NAME}"
    return None


def rights(path: str, here: bytes, there: bytes) -> str | None:
    """Why a readable file is not taken as it is there: it says other rights than the one here."""
    if not path.endswith(".toml"):
        return None
    try:
        ours = tomllib.loads(here.decode())
    except ValueError:
        ours = {}
    theirs = tomllib.loads(there.decode())
    named = [key for key in RIGHTS if ours.get(key) != theirs.get(key)]
    return f"it has another {' and '.join(named)} there, {BY_NAME}" if named else None


def _told(mine: Blob | None, theirs: Blob | None) -> str:
    if mine is None:
        return "it was removed here and changed there"
    if theirs is None:
        return "it was changed here and removed there"
    return "it was changed on both sides"


def _collides(path: str, files: Mapping[str, Blob]) -> bool:
    parts = path.split("/")
    above = any("/".join(parts[:count]) in files for count in range(1, len(parts)))
    return above or any(other.startswith(f"{path}/") for other in files)
