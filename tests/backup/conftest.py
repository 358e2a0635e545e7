"""A home with a database of its own and no more: what a backup is made of, without the agents."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from base.backup import create as making
from base.backup.create import Made
from base.backup.database import answering
from base.settings import Settings
from base.store import Store

if shutil.which("restic") is None and not os.environ.get("CI"):
    pytest.skip("restic is not installed", allow_module_level=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """A home with one user, some files, and what was backed up of them."""

    settings: Settings
    made: Made

    @property
    def path(self) -> Path:
        return self.settings.home

    def users(self) -> list[str]:
        """The mail addresses in the database."""
        return asyncio.run(_users(self.settings))

    def add_user(self, name: str) -> None:
        asyncio.run(_add(self.settings, name))


async def say(text: str) -> None:
    """Nobody listens."""


def settings_of(home: Path, **more: Any) -> Settings:
    return Settings(home=home, redis_url=None, postgres_dsn=None, broker=None, **more)


async def _prepare(settings: Settings) -> None:
    settings.prepare()
    (settings.config / "settings.toml").write_text("port = 8123\n")
    (settings.home / "TELOS").mkdir()
    (settings.home / "TELOS" / "mission.md").write_text("# Mission\n")
    (settings.memory / "Learning").mkdir()
    (settings.memory / "Learning" / "one.md").write_text("what was learned\n")
    folder = settings.workspaces / "u1" / "main"
    folder.mkdir(parents=True)
    (folder / "work.py").write_text("print(1)\n")
    (settings.home / "audit").mkdir()
    (settings.home / "audit" / "heads.jsonl").write_text('{"number":1}\n')
    async with answering(settings) as database:
        await database.sql("CREATE DATABASE ai_infra", "postgres")
        store = await Store.open(settings.postgres, "test")
        await store.migrate()
        await store.close()
        await database.sql(INSERT.format(name="ada"))


INSERT = "INSERT INTO users (email, password_hash, role) VALUES ('{name}@example.org', 'x', 'user')"


async def _users(settings: Settings) -> list[str]:
    async with answering(settings) as database:
        return (await database.sql("SELECT email FROM users ORDER BY email")).splitlines()


async def _add(settings: Settings, name: str) -> None:
    async with answering(settings) as database:
        await database.sql(INSERT.format(name=name))


@pytest.fixture(scope="session")
def pattern() -> Iterator[Home]:
    """The one that others are copied from; made once."""
    folder = Path(tempfile.mkdtemp(prefix="ai-keep-"))
    folder.chmod(0o755)
    settings = settings_of(folder / "pattern")
    asyncio.run(_prepare(settings))
    made = asyncio.run(making.create(settings, say))
    yield Home(settings=settings, made=made)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def home(pattern: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A copy to spoil; its backups lie within."""
    folder = Path(tempfile.mkdtemp(prefix="ai-keep-"))
    folder.chmod(0o755)
    subprocess.run(["cp", "-a", pattern.path, folder / "home"], check=True)
    settings = settings_of(folder / "home")
    yield Home(settings=settings, made=pattern.made)
    shutil.rmtree(folder, ignore_errors=True)
