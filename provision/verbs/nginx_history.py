"""nginx.history: the last changes of the sites: what, who, why, the difference, how it ended."""

from __future__ import annotations

from typing import Any

from base.verbs import By, Nothing
from provision.box import Box
from provision.changes import shown
from provision.sites import Sites
from provision.verb import Tell, Verb

SHOWN = 100
DIFF_CHARS = 20_000


async def plan(request: Nothing, box: Box) -> list[str]:
    return ["read the record of changes"]


async def run(request: Nothing, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    changes = [shown(change) for change in Sites(box).history(SHOWN)]
    for change in changes:
        change["diff"] = change["diff"][:DIFF_CHARS]
    return {"changes": changes}


VERB = Verb(
    name="nginx.history",
    request=Nothing,
    approval="none",
    plan=plan,
    run=run,
    deadline_s=30.0,
    alone=False,
)
