"""github.sync: both sides of a repository get what the other changed."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import GithubSync
from provision.box import Box
from provision.github_jobs import Jobs, planned, quiet, told
from provision.reconcile import Side
from provision.verb import Tell, Verb


async def plan(asked: GithubSync, box: Box) -> list[str]:
    return planned(await Jobs(box).sync(asked.name, _settled(asked), quiet, dry_run=True))


async def run(asked: GithubSync, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    return told(await Jobs(box).sync(asked.name, _settled(asked), tell))


def _settled(asked: GithubSync) -> dict[str, Side]:
    ours: dict[str, Side] = dict.fromkeys(asked.here, "here")
    return {**ours, **dict.fromkeys(asked.there, "there")}


VERB = Verb(
    name="github.sync", request=GithubSync, approval="admin", plan=plan, run=run, deadline_s=900
)
