"""What came by import is forgotten in the kept originals too, and that is proved."""

from __future__ import annotations

from pathlib import Path

import pytest
from keeper_world import World

from pai import passport

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_what_came_by_import_leaves_the_originals_too(made: World, tmp_path: Path) -> None:
    page = tmp_path / "MEMORY" / "WORK" / "20260101-000000_door" / "PRD.md"
    page.parent.mkdir(parents=True)
    page.write_text("## Context\n\nThe door opens with 4711.\n")
    plan = passport.read(tmp_path, "ann")
    home = made.stores.settings.memory
    passport.keep(plan, home)
    (one,) = plan.memories
    await made.client.remember(one)
    proof = await made.client.forget("ann", [one.id])
    (said,) = proof["forgotten"]
    assert proof["proved"]
    assert [Path(place).name for place in said["removed"]["originals"]] == ["PRD.md"]
    assert said["found"]["originals"] == 0
    assert not [found for found in (home / "Imported").rglob("*") if found.is_file()]
    assert page.exists()  # the person's own folder is theirs
