"""Whether the database is at the schema of this version."""

from __future__ import annotations

from base import migrations
from base.plural import counted
from portal.checks.check import Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    store = await sight.store()
    files = migrations.read()
    left = migrations.pending(files, await store.fetch("SELECT * FROM schema_migrations"))
    if left:
        waits = counted(len(left), "migration waits", "migrations wait")
        return False, f"{waits}, the first is {left[0].name}"
    return True, f"at {files[-1].name}"


CHECK = Check(
    name="schema",
    mend="ai-infra up (it migrates); a database of a newer version needs that version",
    look=look,
)
