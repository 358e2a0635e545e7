"""Updates of a small product that really serves: done, rolled back, cut off."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from base.errors import AIError, ConflictError, InputError, NotFoundError, SettingsError
from base.store import Store
from provision import expansion, source, update

SERVE = """import http.server, pathlib, sys, tomllib
here = pathlib.Path(__file__).resolve().parent
version = tomllib.loads((here / "pyproject.toml").read_text())["project"]["version"]
if (here / "broken").exists():
    sys.exit("broken")
class Said(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(version.encode())
    def log_message(self, *_): ...
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Said).serve_forever()
"""
BROKER = "import os, sys; sys.exit(os.path.exists(sys.argv[1]))"
FIRST = "CREATE TABLE boats (id INTEGER PRIMARY KEY);"
SECOND = "ALTER TABLE boats ADD COLUMN name TEXT;"
HEALTHY_S = 5.0


def release(folder: Path, version: str, *migrations: str, broken: bool = False) -> Path:
    place = folder / version
    (place / "base" / "schema").mkdir(parents=True)
    (place / "pyproject.toml").write_text(f'[project]\nname = "small"\nversion = "{version}"\n')
    (place / "serve.py").write_text(SERVE)
    for number, text in enumerate(migrations, 1):
        (place / "base" / "schema" / f"{number:04}_x.sql").write_text(text)
    if broken:
        (place / "broken").touch()
    return place


@dataclass(kw_only=True)
class Small:
    """A product of one program and one table: real processes, a real database."""

    root: Path
    state: Path
    origin: source.Origin
    store: Store
    port: int
    process: subprocess.Popen[bytes] | None = None
    dies: bool = False
    did: list[str] = field(default_factory=list)

    async def room(self) -> str:
        return "next to nothing"

    async def build(self, release: Path, tell: update.Tell) -> None:
        self.did.append("build")
        line = [sys.executable, "-m", "venv", "--without-pip", str(release / ".venv")]
        subprocess.run(line, check=True)

    async def back_up(self) -> str:
        self.did.append("back up")
        return "1a2b3c4d"

    async def migrate(self, release: Path) -> None:
        self.did.append("migrate")
        await self.store.migrate(release / "base" / "schema")

    async def restart(self, release: Path) -> None:
        self.did.append(f"restart {release.name}")
        if self.dies:
            raise Died
        self.stop()
        python = self.root / "current" / ".venv" / "bin" / "python"
        serve = self.root / "current" / "serve.py"
        self.process = subprocess.Popen([python, serve, str(self.port)], stderr=subprocess.DEVNULL)

    async def settle(self) -> None:
        self.did.append(f"settle {self.now}")

    async def healthy(self, version: str) -> str:
        end_s = time.monotonic() + HEALTHY_S
        while time.monotonic() < end_s and self.process and self.process.poll() is None:
            if self.says() == version:
                return ""
            await asyncio.sleep(0.05)
        return "it does not answer"

    async def answers(self, version: str) -> str:
        self.did.append(f"answers {version}")
        return await self.healthy(version)

    def says(self) -> str:
        try:
            url = f"http://127.0.0.1:{self.port}/"
            with urllib.request.urlopen(url, timeout=1) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return ""

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
            self.process = None

    @property
    def now(self) -> str:
        found = update.current(self)
        return found.name if found else ""


async def starts(small: Small, most: int = 5) -> int:
    """As systemd starts the broker: before each try what its unit does; how many it took."""
    for number in range(1, most + 1):
        await update.starting(small)
        release = small.root / "current"
        line = [release / ".venv" / "bin" / "python", "-c", BROKER, release / "mute"]
        if subprocess.run(line, check=False).returncode == 0:
            update.started(small)
            return number
    raise AssertionError("it never started")


class Died(BaseException):
    """As if the process had been killed here."""


async def tell(text: str) -> None:
    """Nobody listens."""


@pytest_asyncio.fixture
async def small(tmp_path: Path, empty_dsn: str) -> AsyncIterator[Small]:
    """0.1.0 runs."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    folder = tmp_path / "source"
    release(folder, "0.1.0", FIRST)
    store = await Store.open(empty_dsn, "test")
    made = Small(
        root=tmp_path / "opt",
        state=tmp_path / "state",
        origin=source.Origin(source=str(folder), keep=2),
        store=store,
        port=port,
    )
    made.root.mkdir()
    done = await update.apply(made, "0.1.0", tell)
    assert done.before is None
    assert made.says() == "0.1.0"
    made.did.clear()
    yield made
    made.stop()
    await store.close()


async def test_another_version_runs_and_the_oldest_release_goes(small: Small) -> None:
    folder = Path(small.origin.source)
    (release(folder, "0.2.0", FIRST, SECOND) / update.WHOLE).touch()  # it ran elsewhere
    release(folder, "0.3.0", FIRST, SECOND)
    plan = await update.plan(small, "0.2.0")
    assert any("migrations" in line for line in plan)
    assert "packages as in 0.1.0 are shared, others fetched; next to nothing" in "".join(plan)
    assert small.now == "0.1.0"
    done = await update.apply(small, "0.2.0", tell)
    assert small.did == ["build", "back up", "migrate", "restart 0.2.0", "settle 0.2.0"]
    assert (done.before, done.backup, small.says()) == ("0.1.0", "1a2b3c4d", "0.2.0")
    assert await small.store.fetch("SELECT name FROM boats") == []
    assert (small.root / update.SAFE).resolve().name == "0.1.0"  # until the broker runs, too
    with pytest.raises(ConflictError, match=r"has yet to start as 0\.2\.0"):
        await update.apply(small, "0.3.0", tell)
    assert await starts(small) == 1
    assert not (small.root / update.SAFE).is_symlink()
    assert (await update.apply(small, "0.3.0", tell)).kept == ["0.2.0", "0.3.0"]
    update.started(small)
    with pytest.raises(ConflictError, match="already"):
        await update.apply(small, "0.3.0", tell)


async def test_a_broker_that_does_not_start_after_an_update_is_rolled_back(small: Small) -> None:
    folder = Path(small.origin.source)
    (release(folder, "0.2.0", FIRST, SECOND) / "mute").touch()
    assert (await update.apply(small, "0.2.0", tell)).version == "0.2.0"
    assert small.says() == "0.2.0"
    assert await starts(small) == 2
    assert small.did[-2:] == ["restart 0.1.0", "settle 0.1.0"]
    assert (small.now, await small.healthy("0.1.0")) == ("0.1.0", "")
    assert not (small.root / update.SAFE).is_symlink()
    assert await starts(small) == 1
    # Whoever is at it is not undone by a broker that is started meanwhile.
    release(folder, "0.3.0", FIRST, SECOND)
    seen: list[str] = []

    async def meanwhile(version: str) -> str:
        with pytest.raises(ConflictError, match="is under way"):
            await update.starting(small)
        seen.append(version)
        return ""

    small.healthy = meanwhile  # type: ignore[method-assign]
    await update.apply(small, "0.3.0", tell)
    assert (seen, small.now) == (["0.3.0"], "0.3.0")


@pytest.mark.parametrize("place", ["before", "current", None])
def test_the_unit_asks_the_release_that_is_known_to_work(tmp_path: Path, place: str | None) -> None:
    unit = Path(__file__).resolve().parents[2] / "systemd" / "ai-provision.service"
    text = unit.read_text().replace("\\\n", " ")
    line = next(one for one in text.splitlines() if one.startswith("ExecStartPre="))
    how, _, script = line.removeprefix("ExecStartPre=").partition("/bin/sh -c ")
    assert set(how) == {"-", "+"}  # not confined: it lays units; its failure stops no start
    state = tmp_path / "broker"
    state.mkdir()
    for name in ("before", "current") if place == "before" else ("current",):
        python = tmp_path / name / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text('#!/bin/sh\necho "$(basename "$PWD") $*"\n')
        python.chmod(0o755)
    if place is not None:
        (state / "update.json").touch()
    words = script.strip("'").replace("/opt/ai-infra", str(tmp_path))
    words = words.replace("/var/lib/ai-broker", str(state))
    done = subprocess.run(["/bin/sh", "-c", words], check=True, capture_output=True, text=True)
    wanted = f"{place} -m provision.product --recover --start\n" if place else ""
    assert done.stdout == wanted


async def test_one_that_does_not_work_is_rolled_back(small: Small) -> None:
    release(Path(small.origin.source), "0.2.0", FIRST, SECOND, broken=True)
    begun_s = time.monotonic()
    said = r"^rolled back to 0\.1\.0 in (\S+) s, (\S+) s after the switch: 0\.2\.0 does not work"
    with pytest.raises(ConflictError, match=said) as error:
        await update.apply(small, "0.2.0", tell)
    back_s, down_s = map(float, re.findall(r"(\S+) s[ ,]", str(error.value)))
    assert 0 < back_s <= down_s < time.monotonic() - begun_s < 60
    # The broker, which may be this process, starts anew when the other answers and it is told.
    assert small.did[-3:] == ["restart 0.1.0", "answers 0.1.0", "settle 0.1.0"]
    assert small.now == "0.1.0"
    assert await small.healthy("0.1.0") == ""
    # What it added to the database stays, and the release before does not mind.
    assert await small.store.fetch("SELECT name FROM boats") == []
    assert not (small.state / "update.json").exists()


async def test_a_release_before_that_does_not_answer_again_is_told_of(small: Small) -> None:
    """Its programs are told to start, and systemd goes on with that."""
    release(Path(small.origin.source), "0.2.0", FIRST, SECOND, broken=True)

    async def mute(version: str) -> str:
        return "the portal does not answer"

    small.answers = mute  # type: ignore[method-assign]
    said = r"^rolled back to 0\.1\.0, which does not answer yet \(the portal does not answer\): 0"
    with pytest.raises(ConflictError, match=said):
        await update.apply(small, "0.2.0", tell)
    assert (small.did[-1], small.now) == ("settle 0.1.0", "0.1.0")
    assert await update.recover(small) is None


async def test_the_loop_turns_while_a_large_release_goes(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd ends a broker that it does not hear of, and removing takes a slow disk a minute."""
    release(Path(small.origin.source), "0.2.0", FIRST, SECOND)
    remove, moments = shutil.rmtree, [time.monotonic()]

    def slowly(*given: Any, **more: Any) -> None:
        time.sleep(0.5)
        remove(*given, **more)

    async def fails(place: Path, tell: update.Tell) -> None:
        raise ConflictError("pip: no such package")

    async def turn() -> None:
        while True:
            await asyncio.sleep(0.02)
            moments.append(time.monotonic())

    monkeypatch.setattr(shutil, "rmtree", slowly)
    small.build = fails  # type: ignore[method-assign]
    turning = asyncio.create_task(turn())
    said = r"0\.2\.0 cannot be made: pip: no such package; 0\.1\.0 runs on as it did"
    with pytest.raises(ConflictError, match=said):
        await update.apply(small, "0.2.0", tell)
    turning.cancel()
    assert max(two - one for one, two in pairwise(moments)) < 0.4
    assert not (small.root / "releases" / "0.2.0").exists()


async def test_a_full_disk_is_said_in_words(small: Small) -> None:
    release(Path(small.origin.source), "0.2.0", FIRST)

    async def full(place: Path, tell: update.Tell) -> None:
        raise OSError(28, "No space left on device", str(place))

    small.build = full  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match=r"0\.2\.0 cannot be made: .*No space left"):
        await update.apply(small, "0.2.0", tell)
    assert (small.says(), small.did) == ("0.1.0", [])
    assert [path.name for path in (small.root / "releases").iterdir()] == ["0.1.0"]


async def test_killed_in_the_middle_it_is_undone_at_the_next_start(small: Small) -> None:
    release(Path(small.origin.source), "0.2.0", FIRST)
    small.dies = True
    with pytest.raises(Died):
        await update.apply(small, "0.2.0", tell)
    assert small.now == "0.2.0"
    with pytest.raises(ConflictError, match="--recover"):
        await update.apply(small, "0.2.0", tell)
    assert (small.root / update.SAFE).resolve().name == "0.1.0"  # with which recover is run
    small.dies = False
    assert await update.recover(small) == "0.2.0"
    assert small.now == "0.1.0"
    assert await small.healthy("0.1.0") == ""
    assert await update.recover(small) is None
    done = await update.apply(small, "0.2.0", tell)  # what was made whole is not made again
    assert done.version == "0.2.0"
    assert small.did.count("build") == 1


async def test_killed_while_it_is_made_nothing_is_left(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(Path(small.origin.source), "0.2.0", FIRST)

    async def die(release: Path, tell: update.Tell) -> None:
        raise Died

    # A kill runs no clean-up: the journal and the half-made release stay.
    monkeypatch.setattr(update.shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr(small, "build", die)
    journal = update._note
    with pytest.raises(Died):
        await update.apply(small, "0.2.0", tell)
    monkeypatch.undo()
    journal(small, "0.2.0", "0.1.0", "fetch")
    assert (small.root / "releases" / "0.2.0").exists()
    assert await update.recover(small) == "0.2.0"
    assert not (small.root / "releases" / "0.2.0").exists()
    assert small.did == []
    assert small.says() == "0.1.0"


async def test_a_version_that_takes_away_is_refused_before_anything_is_done(small: Small) -> None:
    folder = Path(small.origin.source)
    release(folder, "0.2.0", FIRST, "DROP TABLE boats;")
    release(folder, "0.3.0", "SELECT 1;")
    for version, said in (("0.2.0", "takes something away"), ("0.3.0", "was edited")):
        with pytest.raises(ConflictError, match=said):
            await update.apply(small, version, tell)
        assert not (small.root / "releases" / version).exists()
    with pytest.raises(NotFoundError, match=r"no version 9\.9\.9"):
        await update.apply(small, "9.9.9", tell)
    assert small.did == []
    assert small.says() == "0.1.0"


@pytest.mark.parametrize(
    ("text", "version", "fault"),
    [
        ("ALTER TABLE a ADD COLUMN b TEXT;", "0.1.0", ""),
        ("CREATE INDEX i ON a (b); -- DROP TABLE a", "0.1.0", ""),
        ("/* DROP TABLE a */ SELECT 1;", "0.1.0", ""),
        ("alter table a drop\n column b;", "0.1.0", "roll-back"),
        ("ALTER TABLE a RENAME TO b;", "0.1.0", "roll-back"),
        ("ALTER TABLE a ALTER COLUMN b TYPE BIGINT;", "0.1.0", "roll-back"),
        ("ALTER TABLE a ALTER COLUMN b SET NOT NULL;", "0.1.0", "roll-back"),
        ("-- contract: 0.4.0\nDROP TABLE a;", "0.3.9", "update to 0.4.0 first"),
        ("-- contract: 0.4.0\nDROP TABLE a;", "0.4.0", ""),
        ("-- contract: 0.4.0\nDROP TABLE a;", "0.10.0", ""),
    ],
)
def test_what_a_migration_may_do(text: str, version: str, fault: str) -> None:
    found = expansion.faults({"1": "x"}, {"1": "x", "2": text}, version)
    assert (fault in found[0]) if fault else not found


def test_our_own_migrations_are_read() -> None:
    root = Path(__file__).resolve().parents[2]
    known = expansion.read(root)
    assert len(known) >= 8
    assert expansion.faults(known, known, "0.1.0") == []
    assert expansion.faults(known, dict(list(known.items())[:-1]), "0.1.0")


# Where they come from ----------------------------------------------------------------------


async def fetched(where: str, version: str, into: Path) -> set[str]:
    await source.fetch(source.Origin(source=where), version, into)
    return {path.name for path in into.iterdir()}


def packed(folder: Path, version: str, *more: tarfile.TarInfo) -> Path:
    archive = folder / f"ai-infrastructure-{version}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(release(folder / "tree", version, FIRST), f"ai-infrastructure-{version}")
        for one in more:
            tar.addfile(one)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.with_name(f"{archive.name}.sha256").write_text(f"{digest}  {archive.name}\n")
    return archive


async def test_an_archive_is_what_its_sum_says(tmp_path: Path) -> None:
    archive = packed(tmp_path, "0.2.0")
    assert "serve.py" in await fetched(str(tmp_path), "0.2.0", tmp_path / "a")
    archive.write_bytes(archive.read_bytes() + b"x")
    with pytest.raises(InputError, match="is not what"):
        await fetched(str(tmp_path), "0.2.0", tmp_path / "b")
    archive.with_name(f"{archive.name}.sha256").unlink()
    with pytest.raises(InputError, match="is missing"):
        await fetched(str(tmp_path), "0.2.0", tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("kind", ["out", "link"])
async def test_an_archive_that_reaches_out_is_refused(tmp_path: Path, kind: str) -> None:
    bad = tarfile.TarInfo("../../out" if kind == "out" else "link")
    if kind == "link":
        bad.type, bad.linkname = tarfile.SYMTYPE, "../../../../etc"
    packed(tmp_path, "0.2.0", bad)
    with pytest.raises(InputError, match="unpacked"):
        await fetched(str(tmp_path), "0.2.0", tmp_path / "opt" / "deep" / "a")
    assert not (tmp_path / "out").exists()


async def test_git_has_a_version_as_a_tag(tmp_path: Path) -> None:
    tree = release(tmp_path, "0.2.0", FIRST)

    def git(*words: str) -> None:
        name = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(tree)]
        subprocess.run(["git", *name, *words], check=True, capture_output=True)

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "x")
    git("tag", "v0.2.0")
    git("tag", "v0.3.0")
    url = f"file://{tree}"
    names = await fetched(url, "0.2.0", tmp_path / "a")
    assert "serve.py" in names
    assert ".git" not in names
    with pytest.raises(InputError, match=r"has 0\.2\.0 where 0\.3\.0"):
        await fetched(url, "0.3.0", tmp_path / "b")
    with pytest.raises(NotFoundError, match=r"no version 0\.4\.0"):
        await fetched(url, "0.4.0", tmp_path / "c")


def test_update_toml(tmp_path: Path) -> None:
    path = tmp_path / "update.toml"
    with pytest.raises(SettingsError, match="does not say where from"):
        source.load(path)
    path.write_text('source = "ext::sh -c id"\n')
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="source"):
        source.load(path)
    path.write_text('source = "/srv/releases"\n')
    assert source.load(path).keep == 3
    os.chmod(path, 0o622)
    with pytest.raises(AIError, match="written by others"):
        source.load(path)


async def test_a_version_is_asked_for_through_the_proxy_of_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    origin = source.Origin(source="https://releases.example/ai.git")
    async with server:
        with pytest.raises(NotFoundError, match=r"no version 0\.2\.0"):
            await source.fetch(origin, "0.2.0", tmp_path / "new")
    assert asked[0].startswith(b"CONNECT releases.example:443")
