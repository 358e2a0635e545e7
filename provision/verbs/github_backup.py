"""github.backup: push a backup to GitHub."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import GithubJob
from provision.box import Box
from provision.github_jobs import Jobs, planned, quiet, told
from provision.verb import Tell, Verb


async def plan(asked: GithubJob, box: Box) -> list[str]:
    return planned(await Jobs(box).backup(asked.name, quiet, dry_run=True))


async def run(asked: GithubJob, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    return told(await Jobs(box).backup(asked.name, tell))


VERB = Verb(
    name="github.backup", request=GithubJob, approval="admin", plan=plan, run=run, deadline_s=900
)
