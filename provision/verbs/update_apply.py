"""update.apply: another version of the product, and back if it does not work."""

from __future__ import annotations

from typing import Any

from base.settings import load
from base.verbs import By, UpdateApply
from provision import product, update
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(request: UpdateApply, box: Box) -> list[str]:
    """Raises ConflictError for the version that runs, SettingsError without a source."""
    return await update.plan(product.installed(load(), box), request.version)


async def run(request: UpdateApply, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    """The versions, the backup and how long it took; the broker itself restarts afterwards."""
    done = await update.apply(product.installed(load(), box), request.version, tell)
    return done.model_dump(mode="json")


VERB = Verb(
    name="update.apply",
    request=UpdateApply,
    approval="person",
    plan=plan,
    run=run,
    deadline_s=5_400.0,
)
