"""An account, a role: on a real PostgreSQL with the installer's own roles, what the agents' account
cannot do however it tries, and that everybody can do their work.
"""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from jinja2 import Environment

from base import audit_months
from base.audit_chain import GENESIS
from base.audit_writer import add, own_row, usable_role
from base.backup.database import Database
from base.errors import AIError, ForbiddenError, StoreError
from base.grants import TABLES
from base.settings import Settings
from base.store import Store
from base.verbs import By, DomainAdd
from portal import approvals as portal
from portal.auth import Caller
from provision import leave
from supervisor import docket
from tests.conftest import POSTGRES_BIN, serving_postgres
from tests.provision.rig import Record

pytestmark = pytest.mark.xdist_group("roles")  # one server
ROLE = Path(__file__).parents[2] / "provision/project/roles/postgres"
OWNER = "ai_owner"  # no superuser, as on the appliance
#: What nobody but the owner, the portal, sees or writes. A new table goes here or into base/grants.
CLOSED = {
    "api_tokens", "domains", "idempotency", "identities", "links", "session_used", "sessions",
    "webhook_deliveries", "webhooks",
}  # fmt: skip
WANTED = DomainAdd(domain="roles.example.org")
#: With {id}: an approval that waits.
FORGED = [
    "INSERT INTO consents (approval_id, user_id, binding) SELECT id, user_id, binding"
    " FROM approvals",
    "UPDATE consents SET used_at = NULL",
    "DELETE FROM consents",
    "TRUNCATE consents",
    "TRUNCATE approvals CASCADE",
    "SELECT * FROM consents",
    "COPY consents FROM PROGRAM 'true'",
    "ALTER TABLE consents DISABLE TRIGGER ALL",
    "ALTER TABLE consents OWNER TO ai",
    "DROP TABLE consents CASCADE",
    "GRANT ALL ON consents TO ai",
    "GRANT ai_owner TO ai",
    "GRANT ai_infra_broker TO ai",
    "SET ROLE ai_owner",
    "SET ROLE ai_infra_broker",
    'SET ROLE "ai-api"',
    'SET SESSION AUTHORIZATION "ai-api"',
    'ALTER ROLE "ai-api" RESET role',
    "ALTER DEFAULT PRIVILEGES FOR ROLE ai_owner GRANT ALL ON TABLES TO ai",
    "CREATE TABLE public.mine (id INT)",
    "CREATE TEMP TABLE consents (id INT)",
    "CREATE SCHEMA root",
    "CREATE FUNCTION public.binding(x TEXT) RETURNS TEXT LANGUAGE sql AS 'SELECT x'",
    "CREATE OR REPLACE FUNCTION approvals_renew(which UUID, epoch INTEGER) RETURNS VOID"
    " LANGUAGE sql AS 'SELECT 1'",
    "ALTER FUNCTION api_usage_sum() SET search_path = mine",
    "CREATE TRIGGER mine BEFORE INSERT ON approvals EXECUTE FUNCTION memory_counted()",
    "CREATE RULE mine AS ON INSERT TO approvals DO INSTEAD NOTHING",
    "UPDATE approvals SET request = '{{}}' WHERE id = '{id}'",
    "UPDATE approvals SET binding = repeat('0', 64), sentence = 'harmless' WHERE id = '{id}'",
    "UPDATE approvals SET id = gen_random_uuid()",
    "DELETE FROM approvals",
    "DELETE FROM tasks",
    "UPDATE users SET role = 'admin'",
    "UPDATE users SET password_hash = 'mine'",
    "INSERT INTO users (email, role) VALUES ('me@example.org', 'admin')",
    "SELECT password_hash FROM users",
    "INSERT INTO sessions (user_id, token_hash, expires_at) SELECT id, 'x', now() FROM users",
    "INSERT INTO links (token_hash, user_id, purpose, expires_at) SELECT repeat('0', 64), id,"
    " 'login', now() FROM users",
    "INSERT INTO api_tokens (user_id, name, token_hash, hint, scopes) SELECT id, 'x', 'x', 'x',"
    " ARRAY['admin'] FROM users",
    "INSERT INTO identities (provider, subject, user_id) SELECT 'google', 'me', id FROM users",
    "SELECT response FROM idempotency",
    "UPDATE audit_logs SET actor_id = 'x'",
    "DELETE FROM audit_chain",
    "SELECT audit_logs_end_month('consents')",
    "SELECT audit_logs_end_month('audit_logs_default')",
    f"SELECT audit_logs_end_month('audit_logs_y{datetime.now(UTC):%Y}m{datetime.now(UTC):%m}')",
    "DELETE FROM schema_migrations",
]


class Place:
    """A database that the installer's role made, migrated by the portal's account."""

    def __init__(self, server: Path) -> None:
        self.server, self.name = server, f"r{uuid.uuid4().hex[:12]}"

    def dsn(self, account: str, name: str | None = None) -> str:
        return f"postgresql://{account}@/{name or self.name}?host={self.server}"

    def psql(self, sql: str, database: str = "postgres") -> str:
        line = [str(POSTGRES_BIN / "psql"), "-h", str(self.server), "-U", "ai_infra", "-XAtq"]
        more = ["-v", "ON_ERROR_STOP=1", "-d", database]
        told = subprocess.run(
            [*line, *more], input=sql, check=True, stdout=subprocess.PIPE, text=True
        )
        return told.stdout

    @property
    def database(self) -> Database:
        """As root's restore reaches it: by the superuser."""
        before = ("env", "PGUSER=ai_infra")
        return Database(name=self.name, owner=OWNER, host=str(self.server), port="", before=before)


@pytest.fixture(scope="module")
def place(short_tmp: Path) -> Iterator[Place]:
    """On a server of its own: accounts are the server's, not a database's."""
    with serving_postgres(short_tmp) as server:
        yield _made(server)


def _made(server: Path) -> Place:
    made = Place(server)
    known = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    known |= {"postgres_database": made.name, "postgres_owner": OWNER}
    known["postgres_members"]["ai-api"] = [OWNER]
    template = Environment(trim_blocks=True).from_string(
        (ROLE / "templates/roles.sql.j2").read_text()
    )
    made.psql(template.render(known))
    made.psql(template.render(known))  # a second run of the installer
    asyncio.run(_migrated(made))
    return made


async def _migrated(place: Place) -> None:
    """The others come first, and wait for the portal."""
    accounts = ("ai", "ai-memory", "ai-api")
    stores = [await Store.open(place.dsn(account)) for account in accounts]
    try:
        waiting = [asyncio.create_task(store.migrate()) for store in stores[:2]]
        await asyncio.sleep(0.3)
        assert not any(one.done() for one in waiting)
        assert len(await stores[2].migrate()) >= 10
        assert await asyncio.gather(*waiting) == [[], []]
    finally:
        for store in stores:
            await store.close()


async def _open(place: Place, account: str) -> AsyncIterator[Store]:
    store = await Store.open(place.dsn(account))
    yield store
    await store.close()


@pytest.fixture
async def ai(place: Place) -> AsyncIterator[Store]:
    async for store in _open(place, "ai"):
        yield store


@pytest.fixture
async def api(place: Place) -> AsyncIterator[Store]:
    async for store in _open(place, "ai-api"):
        yield store


@pytest.fixture
async def root(place: Place) -> AsyncIterator[Store]:
    async for store in _open(place, "root"):
        yield store


async def _asked(ai: Store, api: Store, *, via: str = "api") -> tuple[By, Any, Caller]:
    """An agent's request that the supervisor holds to be approved; the admin who said yes, whose
    word is not in the record yet.
    """
    admin = await Record(api).user("admin")
    by = By(user_id=admin, agent="infra", task_id=await Record(ai).task(admin))
    found = await Record(ai).approval(
        "domain.add", WANTED, by,
        decided_by="policy" if via == "policy" else admin, via=via, consent=False,
    )  # fmt: skip
    caller = Caller(
        user_id=admin, email="a@example.org", role="admin", session_id=None, expires_at_s=0.0
    )
    return by.model_copy(update={"approval_id": found.id}), found, caller


async def _consent(api: Store, caller: Caller, found: Any, settings: Settings) -> None:
    desk: Any = SimpleNamespace(store=api, settings=settings)
    await portal._consent(desk, caller, found)


async def test_every_table_is_decided_about(ai: Store) -> None:
    rows = await ai.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p', 'm', 'v') AND NOT relispartition"
    )
    known = CLOSED.union(*TABLES.values())
    assert {row["relname"] for row in rows} == known
    owners = await ai.fetch(
        "SELECT DISTINCT pg_get_userbyid(relowner) AS name FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace"
    )
    assert [row["name"] for row in owners] == [OWNER]


async def test_the_agents_account_cannot_forge_a_yes(ai: Store, api: Store) -> None:
    _, found, _ = await _asked(ai, api)
    before = await api.fetch("SELECT id, role, password_hash FROM users ORDER BY id")
    for sql in FORGED:
        said = "it was done"
        try:
            await ai.execute(sql.format(id=found.id))
        except AIError as error:
            said = str(error)
        words = ("denied", "must be owner", "must have admin", "must be able", "no past month")
        assert any(word in said for word in words), (sql, said)
    assert await api.fetchval("SELECT count(*) FROM consents") == 0
    assert await api.fetch("SELECT id, role, password_hash FROM users ORDER BY id") == before


@pytest.mark.parametrize("account", ["ai-memory", "root"])
async def test_nor_can_the_others(place: Place, ai: Store, api: Store, account: str) -> None:
    await _asked(ai, api)
    store = await Store.open(place.dsn(account))
    try:
        for sql in (FORGED[0], "DELETE FROM consents", "UPDATE users SET role = 'admin'"):
            with pytest.raises(StoreError, match="permission denied"):
                await store.execute(sql)
    finally:
        await store.close()


async def test_a_yes_is_good_once_and_in_time_whatever_the_agents_write(
    ai: Store, api: Store, root: Store, settings: Settings
) -> None:
    by, found, caller = await _asked(ai, api)
    with pytest.raises(ForbiddenError, match="no admin gave it"):
        await leave.find(root, "domain.add", WANTED, by, "admin")
    await _consent(api, caller, found, settings)
    held = await leave.find(root, "domain.add", WANTED, by, "admin")
    await leave.use(root, held)
    again = "UPDATE approvals SET status = 'approved', expires_at = now() + interval '1 year'"
    await ai.execute(again)
    with pytest.raises(ForbiddenError, match="used or over"):
        await leave.find(root, "domain.add", WANTED, by, "admin")
    with pytest.raises(ForbiddenError, match="used or expired meanwhile"):
        await leave.use(root, held)
    by, found, caller = await _asked(ai, api)
    await _consent(api, caller, found, settings)
    await api.execute("UPDATE consents SET expires_at = now() - interval '1 second'")
    await ai.execute(again)
    with pytest.raises(ForbiddenError, match="used or over"):
        await leave.find(root, "domain.add", WANTED, by, "admin")


async def test_a_rule_that_only_the_agents_tell_of_gives_nothing(
    ai: Store, api: Store, root: Store
) -> None:
    by, _, _ = await _asked(ai, api, via="policy")
    with pytest.raises(ForbiddenError, match="no rule gives a verb here"):
        await leave.find(root, "domain.add", WANTED, by, "admin")
    await leave.find(root, "domain.add", WANTED, by, "admin", rules_give=True)


async def test_the_supervisor_and_the_keeper_do_their_work(
    place: Place, ai: Store, api: Store
) -> None:
    _, found, _ = await _asked(ai, api)
    assert (await docket.renew(ai, found, 7)).request.epoch == 7  # type: ignore[arg-type]
    await api.execute("INSERT INTO idempotency SELECT id, 'k', repeat('0', 64), 200, '{}',"
                      " now() - interval '30 days' FROM users LIMIT 1")  # fmt: skip
    assert await ai.tidy() == 1
    assert await usable_role(ai)
    old = own_row("start", "write", {}) | {"timestamp": datetime(2020, 1, 31, tzinfo=UTC)}
    async with ai.transaction() as tx:
        await add(tx, [old, own_row("start", "write", {})], after=(0, GENESIS))
    await ai.fetchval("SELECT audit_logs_make_partitions()")
    month = "audit_logs_y2020m01"
    assert month in await audit_months.past(ai, 12)
    async with ai.transaction() as tx:
        sealed = await audit_months.seal(tx, month)
        assert sealed["rows"] == 1
        await audit_months.drop(tx, month)
    assert month not in await audit_months.past(ai, 12)
    assert await ai.fetchval("SELECT count(*) FROM audit_chain") == 1
    keeper = await Store.open(place.dsn("ai-memory"))
    try:
        await keeper.execute(
            "INSERT INTO memory (id, collection, user_id, tier, text, created_at, first_seen, hash)"
            " VALUES (gen_random_uuid(), 'memories', 'u', 'warm', 't', now(), now(), 'h')"
        )
        assert await keeper.fetchval("SELECT count FROM memory_count") == 1
    finally:
        await keeper.close()


async def test_a_restored_dump_keeps_it(
    place: Place, ai: Store, api: Store, settings: Settings, tmp_path: Path
) -> None:
    _, found, caller = await _asked(ai, api)
    await _consent(api, caller, found, settings)
    count = await api.fetchval("SELECT count(*) FROM consents")
    database, new = place.database, f"{place.name}_new"
    async with database.exported() as moment:
        await database.dump(tmp_path / "dump", moment)
    await database.load(tmp_path / "dump", new)
    theirs = await Store.open(place.dsn("ai", new))
    ours = await Store.open(place.dsn("ai-api", new))
    try:
        for _ in range(2):  # as it was loaded, and once the portal has started with it
            with pytest.raises(StoreError, match="permission denied"):
                await theirs.execute(FORGED[0])
            with pytest.raises(StoreError, match="permission denied"):
                await theirs.execute("CREATE TABLE public.mine (id INT)")
            assert await theirs.fetchval("SELECT count(*) FROM approvals") > 0
            assert await ours.migrate() == []
        assert await ours.fetchval("SELECT count(*) FROM consents") == count > 0
        owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'consents'"
        assert await ours.fetchval(owner) == OWNER
        stranger = "SELECT has_database_privilege('pg_monitor', current_database(), 'CONNECT')"
        assert not await ours.fetchval(stranger)
    finally:
        await theirs.close()
        await ours.close()
        await database.drop(new)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")
