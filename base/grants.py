"""Who may do what in the record where each program has an account of its own: the appliance.

There the installer makes the group roles named here (provision/project/roles/postgres) and puts
the accounts into them. The owner's role is the portal's alone: it migrates, and what it migrates
it grants. In local mode there is one role, and nothing here is done.

What a person's yes to root rests on (`consents`, accounts, sessions, tokens) is not for the
agents' account to write, so a process of theirs that was taken over cannot give itself leave.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from base.store import Session

READ, WRITE = "SELECT", "SELECT, INSERT, UPDATE, DELETE"
#: Of a person: who they are, and nothing of how they get in.
_PEOPLE = "SELECT (id, email, display_name, role, is_active, time_zone)"
_DECISION = "status, decided_at, decided_by, decided_via, decided_why, expires_at"

#: By group role, then by table. What is not named is not allowed; the owner may everything.
TABLES: Mapping[str, Mapping[str, str]] = {
    "ai_infra_agents": {
        "agent_heartbeats": "SELECT, INSERT, UPDATE",
        "api_usage": "SELECT, INSERT",
        "api_usage_daily": READ,
        "approvals": f"SELECT, INSERT, UPDATE ({_DECISION})",
        "attachments": READ,
        "audit_chain": READ,
        "audit_logs": READ,
        "conversations": READ,
        "memory": READ,
        "memory_unplaced": READ,
        "messages": "SELECT, INSERT",
        "outbox": "SELECT, INSERT, DELETE, UPDATE (sent_at)",
        "schema_migrations": READ,
        "task_logs": "SELECT, INSERT",
        "tasks": "SELECT, INSERT, UPDATE",
        "users": _PEOPLE,
    },
    "ai_infra_memory": {
        "memory": WRITE,
        "memory_count": WRITE,
        "memory_file": WRITE,
        "memory_folder": WRITE,
        "memory_merged": WRITE,
        "memory_model": WRITE,
        "memory_signal": WRITE,
        "memory_unplaced": WRITE,
        "memory_use": WRITE,
        "schema_migrations": READ,
        "tasks": READ,
    },
    "ai_infra_broker": {
        "approvals": "SELECT, UPDATE (status)",
        "consents": "SELECT, UPDATE (used_at)",
        "schema_migrations": READ,
        "users": "SELECT (id, role, is_active)",
    },
    # The audit log's writer becomes this one for each batch: see migration 0003.
    "ai_infra_audit": {"audit_chain": "INSERT, SELECT", "audit_logs": "INSERT"},
}
MORE: Mapping[str, tuple[str, ...]] = {
    "ai_infra_agents": (
        "USAGE ON SEQUENCE outbox_id_seq",
        "EXECUTE ON FUNCTION api_usage_sum()",
        "EXECUTE ON FUNCTION approvals_renew(uuid, integer)",
        "EXECUTE ON FUNCTION audit_logs_end_month(text)",
        "EXECUTE ON FUNCTION audit_logs_make_partitions(integer)",
        "EXECUTE ON FUNCTION idempotency_purge(double precision, integer)",
    ),
}
#: Nobody but the owner makes anything: a name of theirs could stand before one of ours.
_CLOSED = """
DO $$ BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
END $$
"""


async def apply(session: Session) -> None:
    """Grant exactly this, whatever was granted before. Nothing where one of the roles is not, or
    where we are not the database's owner.
    """
    here = await session.fetchval(
        "SELECT COUNT(*) = $2 FROM pg_roles WHERE rolname = ANY($1::text[]) AND (SELECT"
        " pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database())",
        *(list(TABLES), len(TABLES)),
    )
    if not here:
        return
    async with session.transaction():
        await session.execute(_CLOSED)
        database = await session.fetchval("SELECT quote_ident(current_database())")
        for role, tables in TABLES.items():
            await session.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}")
            await session.execute(f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {role}")
            await session.execute(f"REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM {role}")
            await session.execute(f"REVOKE ALL ON SCHEMA public FROM {role}")
            await session.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
            await session.execute(f"GRANT CONNECT ON DATABASE {database} TO {role}")
            for table, rights in tables.items():
                await session.execute(f"GRANT {rights} ON {table} TO {role}")
            for right in MORE.get(role, ()):
                await session.execute(f"GRANT {right} TO {role}")
