"""The vector store: its engine, and whether each memory's vector is there."""

from __future__ import annotations

from base.errors import AIError
from base.plural import counted
from portal.checks.check import Check, Finding
from portal.checks.embedding import package
from portal.checks.sight import Sight, host_of

ENGINE = "qdrant-edge-py"
COUNT = (
    "SELECT COUNT(*) AS warm, COUNT(*) FILTER (WHERE COALESCE(vector_of, '') = ''"
    " OR id IN (SELECT memory_id FROM memory_unplaced)) AS late"
    " FROM memory WHERE tier = 'warm' AND NOT leaving"
)


async def look(sight: Sight) -> Finding:
    if not sight.settings.qdrant_url:
        ok, said = package(ENGINE)
        if not ok:
            return ok, said
    else:
        said = f"Qdrant at {host_of(sight.settings.qdrant_url)}"
    try:
        store = await sight.store()
        warm, late = (await store.fetch(COUNT))[0].values()
    except AIError:
        return True, f"{said}; not looked into: nothing runs"
    held = counted(warm, "memory", "memories")
    return True, f"{said}; {held}, {late} of them found by words alone so far"


CHECK = Check(
    name="vector store",
    mend="./install.sh, or set QDRANT_URL; then ai-infra memory maintain",
    look=look,
)
