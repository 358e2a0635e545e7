"""site.deploy: a new release of a static site, or the one before."""

from __future__ import annotations

from typing import Any

from base.verbs import By, SiteDeploy
from provision.box import Box
from provision.releases import Releases, shown
from provision.verb import Tell, Verb, named


async def plan(request: SiteDeploy, box: Box) -> list[str]:
    return await Releases(box).plan(request.domain, request.source)


async def run(request: SiteDeploy, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    # A user, and whoever's agent, publishes from that user's workspaces alone.
    own = by.role == "user" or by.agent is not None
    owner = (by.user_id or "") if own else None
    releases = Releases(box, who=named(by), owner=owner, tell=tell)
    made = shown(await releases.deploy(request.domain, request.source))
    return {"release": made.pop("id"), **made}


VERB = Verb(
    name="site.deploy",
    request=SiteDeploy,
    approval="admin",
    plan=plan,
    run=run,
    deadline_s=480.0,
)
