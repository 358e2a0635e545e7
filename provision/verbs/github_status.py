"""github.status: one repository, and how files differ that both sides changed."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import GithubJob
from provision.box import Box
from provision.github_jobs import Jobs
from provision.verb import Tell, Verb


async def plan(asked: GithubJob, _box: Box) -> list[str]:
    return [f"read what became of the last run of {asked.name}; nothing is changed"]


async def run(asked: GithubJob, box: Box, _by: By, _tell: Tell) -> dict[str, Any]:
    return await Jobs(box).status(asked.name)


VERB = Verb(
    name="github.status", request=GithubJob, approval="none", plan=plan, run=run, alone=False
)
