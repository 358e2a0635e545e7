"""What a check is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from portal.checks.sight import Sight

#: Whether it is well, and what was found, in words.
Finding = tuple[bool, str]
#: For what serves; a program that is started may be slow on a busy machine.
DEADLINE_S, PROGRAM_S = 5.0, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """look: what is found; an AIError or OSError that it raises is a fault in its words.

    mend: the line that mends it; `{config}`, `{home}` and `{logs}` stand for those folders.
    appliance: it has nothing to look at in local mode.
    """

    name: str
    mend: str
    look: Callable[[Sight], Awaitable[Finding]]
    deadline_s: float = DEADLINE_S
    appliance: bool = False
