"""Which agent gets a subtask, and why. Pure; the explanation is shown to people.

A person's choice wins and waits for that agent. A plan's choice waits while the agent is
busy, and falls back to another when it is paused or gone. With neither, words decide: those
of the text that appear among an agent's capabilities, then load.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from base.errors import UnknownAgentError

WORD = re.compile(r"[a-z0-9+#.]{2,}")
NOISE = frozenset(
    {"the", "and", "for", "with", "that", "this", "from", "into", "your", "you", "are", "was"}
    | {"what", "how", "why", "when", "who", "which", "can", "could", "would", "should", "please"}
    | {"make", "have", "has", "does", "not", "all", "any", "one", "its", "them", "then", "than"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An agent as the route sees it. `load`: tasks that it holds now; `served`: how many it
    was given before, which settles ties; `barred`: why it can get nothing now, or None.
    """

    name: str
    capabilities: tuple[str, ...] = ()
    load: int = 0
    served: int = 0
    barred: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """`agent` None: wait; `why` says for what, or why this one."""

    agent: str | None
    why: str


def route(
    text: str,
    candidates: Sequence[Candidate],
    *,
    requested: str | None = None,
    planned: str | None = None,
) -> Choice:
    """Choose among `candidates`. Raises UnknownAgentError when `requested` is none of them."""
    known = {candidate.name: candidate for candidate in candidates}
    if requested is not None:
        if requested not in known:
            raise UnknownAgentError(requested, sorted(known))
        return _insist(known[requested], "asked for by name")
    if planned is not None and planned in known and known[planned].barred is None:
        return _insist(known[planned], "named by the plan")
    able = [candidate for candidate in candidates if candidate.barred is None]
    if not able:
        reasons = ", ".join(f"{one.name} {one.barred}" for one in candidates)
        return Choice(agent=None, why=f"no agent can take it: {reasons}")
    free = [candidate for candidate in able if candidate.load == 0]
    if not free:
        return Choice(agent=None, why="every agent is busy")
    words = set(WORD.findall(text.lower())) - NOISE
    scored = sorted(free, key=lambda one: (-len(_hits(one, words)), one.served, one.name))
    best = scored[0]
    hits = sorted(_hits(best, words))
    why = f"knows {', '.join(hits[:4])}" if hits else "free, and nobody's words match"
    if planned is not None:
        reason = known[planned].barred if planned in known else "is not in the roster"
        why = f"in place of {planned}, which {reason}; {why}"
    elif len(free) < len(able):
        why += f"; {len(able) - len(free)} busy"
    return Choice(agent=best.name, why=why)


def _insist(candidate: Candidate, why: str) -> Choice:
    if candidate.barred is not None:
        return Choice(agent=None, why=f"waiting for {candidate.name}, which {candidate.barred}")
    if candidate.load:
        return Choice(agent=None, why=f"waiting for {candidate.name}, which is busy")
    return Choice(agent=candidate.name, why=why)


def _hits(candidate: Candidate, words: set[str]) -> set[str]:
    """Words of the text that are among the capabilities, a plural s apart."""
    able = {
        word for capability in candidate.capabilities for word in WORD.findall(capability.lower())
    }
    return {
        word for word in words if word in able or word.rstrip("s") in able or word + "s" in able
    }
