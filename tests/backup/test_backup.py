"""Backups of a home: made, checked, restored; and each way in which that goes wrong."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from base.backup import create as making
from base.backup import record, restore, rules, running, staging
from base.backup.database import Database
from base.backup.restic import Restic
from base.errors import BackupError, ConflictError, NotFoundError, SettingsError
from base.settings import Settings
from base.store import Store
from tests.backup.conftest import Home, say

ROOT = Path(__file__).resolve().parents[2]
WIPED = ("MEMORY", "TELOS", "attachments", "config", "hooks", "workspaces", "audit", "data")


def restored(home: Home, **more: Any) -> restore.Restored:
    return asyncio.run(restore.restore(home.settings, say, **more))


def restic_of(home: Home) -> Restic:
    return Restic.of(home.settings, rules.load(home.settings))


def test_what_is_wiped_is_there_again(home: Home) -> None:
    for name in WIPED:
        shutil.rmtree(home.path / name)
    done = restored(home)
    assert done.manifest.counts["users"] == 1
    assert home.users() == ["ada@example.org"]
    assert (home.path / "config" / "settings.toml").read_text() == "port = 8123\n"
    assert (home.path / "MEMORY" / "Learning" / "one.md").read_text() == "what was learned\n"
    assert (home.path / "workspaces" / "u1" / "main" / "work.py").exists()
    assert (home.path / "audit" / "heads.jsonl").exists()
    assert (home.path / "data" / "qdrant" / restore.MARK).exists()  # the keeper looks through it
    assert not restore.folder(home.settings).exists()
    assert not staging.folder(home.settings).exists()


def test_rows_are_counted_as_of_the_moment_that_is_dumped(home: Home) -> None:
    """What is written while the dump runs is not in it, so a drill must not miss it."""

    async def busy(text: str) -> None:
        if text == "dumping the database":
            await asyncio.to_thread(home.add_user, "late")

    done = asyncio.run(making.create(home.settings, busy))
    assert home.users() == ["ada@example.org", "late@example.org"]
    assert done.manifest.counts["users"] == 1


MEANT = """REVOKE ALL ON DATABASE {name} FROM PUBLIC; CREATE ROLE "a guest";
GRANT CONNECT ON DATABASE {name} TO "a guest";
ALTER ROLE "a guest" IN DATABASE {name} SET role TO {owner};
ALTER DATABASE {name} SET search_path TO public, pg_catalog;"""
SAID = """SELECT d.datacl::text, array_agg((s.setrole::regrole, s.setconfig)::text
 ORDER BY s.setrole) FROM pg_database d JOIN pg_db_role_setting s ON s.setdatabase = d.oid
 WHERE d.datname = current_database() GROUP BY 1"""


async def _asked(home: Home, text: str) -> str:
    async with restore.answering(home.settings) as there:
        return await there.sql(text.format(name=there.name, owner=there.owner))


def test_what_was_there_is_kept_aside(home: Home) -> None:
    home.add_user("later")
    asyncio.run(_asked(home, MEANT))
    meant = asyncio.run(_asked(home, SAID))
    assert "role=" in meant
    (home.path / "MEMORY" / "Learning" / "one.md").write_text("changed\n")
    done = restored(home)
    assert home.users() == ["ada@example.org"]
    assert (done.aside / "MEMORY" / "Learning" / "one.md").read_text() == "changed\n"
    database = Database.of(home.settings)
    kept = database.line("psql", done.database_aside or "")

    async def before() -> str:
        async with restore.answering(home.settings) as there:
            return await there.sql("SELECT count(*) FROM users", done.database_aside)

    assert asyncio.run(before()) == "2", kept
    # No dump has it: who may enter, and as whom.
    assert asyncio.run(_asked(home, SAID)) == meant


ACCOUNTS = """CREATE ROLE shop NOLOGIN; CREATE ROLE "till-1" LOGIN;
COMMENT ON ROLE "till-1" IS 'it''s ours'; CREATE ROLE ai_infra_agents NOLOGIN NOINHERIT;
GRANT shop TO "till-1"; ALTER ROLE "till-1" SET role TO 'shop'; GRANT ai_infra_agents TO "till-1";
"""
SHOP = """REVOKE ALL ON DATABASE shop FROM PUBLIC;
GRANT CONNECT ON DATABASE shop TO ai_infra_agents;
SET ROLE shop; CREATE TABLE boats (name TEXT); GRANT SELECT ON boats TO ai_infra_agents; RESET ROLE;
ALTER DATABASE shop SET search_path TO public, pg_catalog;
ALTER ROLE "till-1" IN DATABASE shop SET statement_timeout TO '7s';"""
OTHER = "TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
THEIRS = """SELECT datdba::regrole, datacl, encoding, datcollate FROM pg_database
 WHERE datname = current_database();
SELECT setrole::regrole, setconfig FROM pg_db_role_setting
 WHERE setdatabase = 0 OR setdatabase = (SELECT oid FROM pg_database
 WHERE datname = current_database()) ORDER BY setdatabase, setrole;
SELECT roleid::regrole, member::regrole FROM pg_auth_members
 WHERE member = '"till-1"'::regrole ORDER BY roleid::regrole::text;
SELECT rolcanlogin, rolinherit, shobj_description(oid, 'pg_authid') FROM pg_roles
 WHERE rolname IN ('till-1', 'shop', 'ai_infra_agents') ORDER BY rolname;
SELECT relacl FROM pg_class WHERE relname = 'boats'"""
FORGET = 'DROP OWNED BY shop, "till-1", ai_infra_agents; DROP ROLE shop, "till-1", ai_infra_agents'


def test_of_a_database_that_is_gone_all_that_was_said_comes_back(
    home: Home, tmp_path: Path
) -> None:
    """Dropped, and then on a server that knows none of its accounts: as a new one does not."""

    async def work() -> None:
        async with restore.answering(home.settings) as there:
            own = {"before": ("env", f"PGUSER={there.owner}"), "name": "shop", "owner": "nobody"}
            shop = replace(there, **own)
            await there.sql(ACCOUNTS, "postgres")
            await there.sql(f"CREATE DATABASE shop OWNER shop {OTHER}", "postgres")
            await shop.sql(SHOP)
            said = await shop.sql(THEIRS)
            async with shop.exported() as moment:
                await shop.dump(tmp_path / "dump", moment)
            access = await shop.access()
            assert access is not None
            assert await there.access() is None  # no superuser: nothing that it could say again
            for lost in ("", FORGET):
                await shop.drop("shop")
                await there.sql(lost, "postgres")
                await shop.load(tmp_path / "dump", "shop_new", access)
                assert await shop.swap("shop_new", "shop_before") is None
                assert await shop.sql(THEIRS) == said
            # With pools of connections in it that come back at once, as the root broker's does.
            await shop.load(tmp_path / "dump", "shop_new", access)
            at = home.settings.postgres.replace("/ai_infra?", "/shop?")
            pools = [await Store.open(at) for _ in range(20)]
            try:
                assert await shop.swap("shop_new", "shop_before") == "shop_before"
                for pool in pools:
                    assert await pool.fetchval("SELECT current_database()") == "shop"
            finally:
                for pool in pools:
                    await pool.close()
            assert await shop.sql(THEIRS) == said

    asyncio.run(work())


def test_a_part_leaves_the_rest(home: Home) -> None:
    home.add_user("later")
    (home.path / "config" / "settings.toml").write_text("port = 9\n")
    restored(home, parts=("configuration",))
    assert (home.path / "config" / "settings.toml").read_text() == "port = 8123\n"
    assert home.users() == ["ada@example.org", "later@example.org"]
    # The key that opens the backups is in no backup, and still there.
    assert restic_of(home).key.is_file()
    assert asyncio.run(making.snapshots(home.settings))


def test_the_key_is_in_no_backup_and_nobody_elses(home: Home, tmp_path: Path) -> None:
    restic = restic_of(home)
    assert restic.key.stat().st_mode & 0o777 == 0o600
    asyncio.run(restic.restore("latest", tmp_path / "all", ["/"]))
    names = {path.name for path in (tmp_path / "all").rglob("*")}
    assert "settings.toml" in names
    assert rules.KEY not in names
    restic.key.chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        asyncio.run(making.snapshots(home.settings))


def test_a_damaged_repository_is_found(home: Home) -> None:
    assert asyncio.run(making.verify(home.settings, whole=True)) == home.made.snapshot
    packs = [path for path in (home.path / "backups" / "data").rglob("*") if path.is_file()]
    pack = max(packs, key=lambda path: path.stat().st_size)
    pack.chmod(0o600)
    raw = bytearray(pack.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    pack.write_bytes(raw)
    with pytest.raises(BackupError, match="damaged"):
        asyncio.run(making.verify(home.settings, whole=True))
    with pytest.raises(BackupError):
        restored(home)
    assert (home.path / "MEMORY" / "Learning" / "one.md").exists()
    assert not restore.folder(home.settings).exists()


def test_a_wrong_key_and_a_lost_one(home: Home) -> None:
    key = restic_of(home).key
    right = key.read_text()
    key.write_text("not this one\n")
    for attempt in (making.snapshots(home.settings), making.create(home.settings, say)):
        with pytest.raises(BackupError, match="is not the repository's"):
            asyncio.run(attempt)
    key.unlink()
    with pytest.raises(BackupError, match="bring it back"):
        asyncio.run(making.create(home.settings, say))
    assert not key.exists()  # a new one would open nothing
    last = record.last(home.settings)
    assert last is not None
    assert "bring it back" in (last.problem or "")
    key.write_text(right)
    key.chmod(0o600)
    assert asyncio.run(making.create(home.settings, say)).first is False
    last = record.last(home.settings)
    assert last is not None
    assert last.problem is None


@pytest.fixture
def small(home: Home, request: pytest.FixtureRequest) -> Iterator[None]:
    """A folder of the home on a disk with little room: what is in it now, and 200 kB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk wants root")
    place = home.path / request.param
    kept = place.with_name("kept")
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", place, kept], check=True)
    pages = sum(-(-path.stat().st_size // 4096) + 1 for path in kept.rglob("*"))
    size = f"size={pages * 4 + 200}k"
    line = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)]
    if subprocess.run(line, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    subprocess.run(["cp", "-a", f"{kept}/.", place], check=True)
    yield
    subprocess.run(["umount", str(place)], check=True)
    shutil.rmtree(place)
    kept.rename(place)


@pytest.mark.parametrize("small", ["data/stage", "backups"], indirect=True)
def test_a_full_disk_loses_nothing(home: Home, small: None) -> None:
    (home.path / "workspaces" / "u1" / "main" / "big").write_bytes(os.urandom(8_000_000))
    with pytest.raises(BackupError, match=r"[Nn]o space"):
        asyncio.run(making.create(home.settings, say))
    assert [one.id for one in asyncio.run(making.snapshots(home.settings))] == [home.made.snapshot]
    last = record.last(home.settings)
    assert last is not None
    assert "o space" in (last.problem or "")
    assert asyncio.run(making.verify(home.settings, whole=False)) == home.made.snapshot


def test_killed_in_the_middle_the_next_one_works(home: Home) -> None:
    big = home.path / "workspaces" / "u1" / "main" / "big"
    big.write_bytes(os.urandom(60_000_000))
    process = subprocess.Popen(
        [sys.executable, "-m", "portal.cli", "backup", "create"],
        cwd=ROOT,
        env={**os.environ, "AI_INFRA_HOME": str(home.path)},
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "writing to" in line:
            break
    end_s = time.monotonic() + 30
    locks = home.path / "backups" / "locks"
    while not list(locks.iterdir()) and process.poll() is None and time.monotonic() < end_s:
        time.sleep(0.01)
    for pid in [process.pid, *_restics(home)]:
        os.kill(pid, signal.SIGKILL)
    process.wait(10)
    assert list(locks.iterdir())
    assert staging.folder(home.settings).exists()
    made = asyncio.run(making.create(home.settings, say))
    assert {one.id for one in asyncio.run(making.snapshots(home.settings))} >= {made.snapshot}
    assert not staging.folder(home.settings).exists()
    assert asyncio.run(making.verify(home.settings, whole=False)) == made.snapshot


def _restics(home: Home) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            raw = path.read_bytes()
            line = path.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if f"RESTIC_REPOSITORY={home.path}/".encode() in raw and b"restic" in line:
            found.append(int(path.parent.name))
    return found


class Died(BaseException):
    """As if the process had been killed here."""


@pytest.mark.parametrize("steps", [3])
def test_a_restore_that_was_cut_off_is_put_back(
    home: Home, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    home.add_user("later")
    (home.path / "MEMORY" / "Learning" / "one.md").write_text("changed\n")
    ahead = restore.moves.ahead

    def cut(planned: Any) -> None:
        ahead(planned[:steps])
        raise Died

    monkeypatch.setattr(restore.moves, "ahead", cut)
    with pytest.raises(Died):
        restored(home)
    monkeypatch.undo()
    with pytest.raises(ConflictError, match="--undo"):
        restored(home)
    assert asyncio.run(restore.undo(home.settings, say))
    assert home.users() == ["ada@example.org", "later@example.org"]
    assert (home.path / "MEMORY" / "Learning" / "one.md").read_text() == "changed\n"
    assert (home.path / "config" / "settings.toml").read_text() == "port = 8123\n"
    assert not asyncio.run(restore.undo(home.settings, say))
    restored(home)
    assert home.users() == ["ada@example.org"]


def test_one_that_does_not_start_is_undone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.add_user("later")

    async def start(settings: Settings, environment: Any = None) -> None:
        raise BackupError("the installation did not start: planted")

    monkeypatch.setattr(running, "start", start)
    with pytest.raises(BackupError, match="planted"):
        restored(home, start=True)
    assert home.users() == ["ada@example.org", "later@example.org"]
    assert not restore.folder(home.settings).exists()


def test_a_snapshot_of_a_newer_version_is_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging.migrations, "read", lambda: ())
    with pytest.raises(BackupError, match="update first"):
        restored(home)
    with pytest.raises(NotFoundError, match="no snapshot ffffffff"):
        restored(home, snapshot="ffffffff")


def test_old_snapshots_go(home: Home) -> None:
    restic = restic_of(home)

    async def fill() -> list[str]:
        for day in (1, 2, 3):
            for hour in ("06", "18"):
                line = ["backup", "--tag", "ai-infra", "--time", f"2026-10-0{day} {hour}:00:00"]
                await restic._run([*line, str(home.path / "config")], 60.0)
        await restic.forget(daily=3, weekly=0, monthly=0)
        return [f"{one.at:%m-%d %H}" for one in await restic.snapshots()]

    left = asyncio.run(fill())
    assert left[:2] == ["10-02 18", "10-03 18"]
    assert len(left) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('repository = "ftp://x/y"', "repository"),
        ("[keep]\ndaily = 0", "keep.daily"),
        ("nonsense = 1", "nonsense"),
        ("repository = ", "backup.toml"),
    ],
)
def test_faults_of_backup_toml_are_named(tmp_path: Path, text: str, said: str) -> None:
    settings = Settings(home=tmp_path)
    (tmp_path / "config").mkdir()
    path = tmp_path / "config" / "backup.toml"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match=said):
        rules.load(settings)
    path.write_text("")
    assert rules.load(settings).keep.daily == 7
    path.chmod(0o666)
    with pytest.raises(SettingsError, match="may be written by others"):
        rules.load(settings)


def test_s3(home: Home, tmp_path: Path) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        path = home.path / "config" / "backup.toml"
        path.write_text(f'repository = "s3:http://{host}:{port}/bucket/kept"\n')
        path.chmod(0o600)
        with pytest.raises(SettingsError, match="aws_access_key_id"):
            asyncio.run(making.create(home.settings, say))
        keys = home.path / "secrets" / rules.S3
        keys.write_text(json.dumps({"aws_access_key_id": "id", "aws_secret_access_key": "secret"}))
        keys.chmod(0o600)
        made = asyncio.run(making.create(home.settings, say))
        assert [one.id for one in asyncio.run(making.snapshots(home.settings))] == [made.snapshot]
        shutil.rmtree(home.path / "MEMORY")
        restored(home)
        assert (home.path / "MEMORY" / "Learning" / "one.md").exists()
    finally:
        server.stop()
