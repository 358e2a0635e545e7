"""Whether what the audit log holds is signed, and how long ago that was."""

from __future__ import annotations

from datetime import UTC, datetime

from base import audit_heads
from base.audit_writer import HEAD_S, ROLE, usable_role
from base.plural import counted
from portal.checks.check import Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    heads = audit_heads.read(audit_heads.heads_path(sight.settings))
    if not heads:
        return False, "no signed head yet"
    age_s = (datetime.now(UTC) - datetime.fromisoformat(heads[-1].signed_at)).total_seconds()
    store = await sight.store()
    last = int(await store.fetchval("SELECT COALESCE(max(seq), 0) FROM audit_logs"))
    unsigned = max(0, last - heads[-1].seq)
    said = f"row {heads[-1].seq} signed {age_s / 60:.0f} min ago, {counted(unsigned, 'row')} since"
    if not await usable_role(store):
        said += f"; no role {ROLE}: rows are written with the rights of the database's owner"
    return unsigned == 0 or age_s < 2 * HEAD_S, said


CHECK = Check(
    name="audit log",
    mend="ai-infra up; then ai-infra audit verify",
    look=look,
)
