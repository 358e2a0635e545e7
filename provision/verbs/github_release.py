"""github.release: a release at GitHub."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import GithubRelease
from provision.box import Box
from provision.github_jobs import Jobs, quiet
from provision.verb import Tell, Verb


async def plan(asked: GithubRelease, box: Box) -> list[str]:
    found = await Jobs(box).release(asked, quiet, dry_run=True)
    if found.made:
        return [f"make release {asked.tag}"]
    changed = ", ".join(found.changed)
    return [f"change {changed} of release {asked.tag}" if changed else "nothing: it is so already"]


async def run(asked: GithubRelease, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    found = await Jobs(box).release(asked, tell)
    return {
        "tag": found.tag, "url": found.url, "made": found.made, "changed": list(found.changed)
    }  # fmt: skip


VERB = Verb(name="github.release", request=GithubRelease, approval="admin", plan=plan, run=run)
