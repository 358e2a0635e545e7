"""github.list: the repositories of outside.toml and how their last run went."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import All
from provision.box import Box
from provision.github_jobs import Jobs
from provision.verb import Tell, Verb


async def plan(_asked: All, _box: Box) -> list[str]:
    return ["read what became of the last runs; nothing is changed"]


async def run(_asked: All, box: Box, _by: By, _tell: Tell) -> dict[str, Any]:
    jobs = Jobs(box)
    due = jobs.due()
    return {
        "repositories": [
            {**jobs.about(name), "due": name in due} for name in jobs.outside().repositories
        ]
    }


VERB = Verb(name="github.list", request=All, approval="none", plan=plan, run=run, alone=False)
