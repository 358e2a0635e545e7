"""Real services for the tests: a private Redis and a private PostgreSQL a session.

A tool that is absent skips at home and fails in CI.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from present import POSTGRES_BIN, database, need, postgres, wait_for
from xdist.scheduler import LoadGroupScheduling  # type: ignore[import-untyped]

from base.store import Store

#: No worker of a test compiles for a minute; those that try it say so.
os.environ.setdefault("AI_INFRA_EMBED_COMPILE", "off")

#: PostgreSQL refuses root, and wants an account that exists: a fresh server has no user 1000.
NOBODY = pwd.getpwnam("nobody").pw_uid
AS_USER = (
    ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
    if os.geteuid() == 0
    else []
)


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """A folder with a path short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="ai-t-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_server(short_tmp: Path) -> Iterator[str]:
    """URL of a private Redis without persistence; shared by the session's tests."""
    folder = Path(tempfile.mkdtemp(dir=short_tmp))
    place = folder / "redis.sock"
    server = subprocess.Popen(
        [need("redis-server"), "--port", "0", "--unixsocket", str(place), "--save", ""],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    wait_for("redis-server's socket", place.exists)
    yield f"unix://{place}"
    server.terminate()
    server.wait(10)


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The same Redis, emptied before each test."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(redis_server.removeprefix("unix://"))
        line.sendall(b"FLUSHALL\r\n")
        assert line.recv(16) == b"+OK\r\n"
    return redis_server


@pytest.fixture(scope="session")
def postgres_server(short_tmp: Path) -> Iterator[Path]:
    """The socket folder of a private PostgreSQL, user ai_infra, trust."""
    with serving_postgres(short_tmp) as folder:
        yield folder


@contextlib.contextmanager
def serving_postgres(beside: Path) -> Iterator[Path]:
    """One in a folder of its own there, for who changes what all databases of a server share."""
    folder = Path(tempfile.mkdtemp(dir=beside))
    data = folder / "data"
    init = ["initdb", "-D", str(data), "-U", "ai_infra", "-A", "trust", "--no-sync"]
    subprocess.run(
        [*AS_USER, str(POSTGRES_BIN / init[0]), *init[1:], "-E", "UTF8", "--locale=C"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    options = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200"]
    server = subprocess.Popen(
        [*AS_USER, str(POSTGRES_BIN / "postgres"), "-D", str(data), "-k", str(folder), *options],
        stderr=(folder / "log").open("w"),
    )
    ready = [str(POSTGRES_BIN / "pg_isready"), "-h", str(folder), "-q"]
    wait_for("PostgreSQL", lambda: subprocess.run(ready, check=False).returncode == 0)
    yield folder
    server.terminate()
    server.wait(10)


@pytest.fixture(scope="session")
def migrated(postgres_server: Path) -> str:
    """Name of a database of that server with the whole schema, to copy."""
    postgres(postgres_server, "CREATE DATABASE migrated")

    async def migrate() -> None:
        store = await Store.open(f"postgresql://ai_infra@/migrated?host={postgres_server}")
        await store.migrate()
        await store.close()

    asyncio.run(migrate())
    return "migrated"


@pytest.fixture
def postgres_dsn(postgres_server: Path, migrated: str) -> Iterator[str]:
    """DSN of a fresh database with the schema and no rows, dropped after the test."""
    with database(postgres_server, migrated) as dsn:
        yield dsn


@pytest.fixture
def empty_dsn(postgres_server: Path) -> Iterator[str]:
    """The same without a schema."""
    with database(postgres_server) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def rehearsal_url(short_tmp: Path) -> Iterator[str]:
    """Base URL of a rehearsal model, a real process; shared by the session's tests."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = Path(tempfile.mkdtemp(dir=short_tmp))
    ours = {"AI_INFRA_HOME": str(home), "AI_INFRA_REHEARSAL_PORT": str(port)}
    server = subprocess.Popen(
        [sys.executable, "-m", "workers", "rehearsal"], env={**os.environ, **ours}
    )
    url = f"http://127.0.0.1:{port}"

    def healthy() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    wait_for("the rehearsal model", healthy, 30)
    yield url
    server.terminate()
    assert server.wait(10) == 0


#: Seconds that a test gets beyond its time, which ends it once only: what hangs in its teardown
#: after that is not ended by it.
GRACE_S = 90
SAID_CHARS = 3_000
STDERR = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """A run that is cut off has still said what failed, and where."""
    config.stash[STDERR] = os.dup(2)
    if reporter := config.pluginmanager.get_plugin("terminalreporter"):
        config.pluginmanager.register(Told(reporter), "told")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test that does not end even so is ended with its process, which says where it stood. In a
    worker alone: elsewhere somebody looks, maybe in a debugger.
    """
    if not hasattr(item.config, "workerinput"):
        return (yield)
    mark = item.get_closest_marker("timeout")
    given = item.config.getoption("timeout", None) or item.config.getini("timeout")
    limit_s = float(mark.args[0] if mark and mark.args else given)
    tries = 1 + (item.config.getoption("reruns", None) or 0)
    faulthandler.dump_traceback_later(
        limit_s * tries + GRACE_S, exit=True, file=item.config.stash[STDERR]
    )
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


class Groups(LoadGroupScheduling):  # type: ignore[misc]
    """pytest-xdist's own, where a worker that dies is made up for: its test is in the queue again
    by then, and the worker in its place, which waits until it knows two, is given two.
    """

    def mark_test_pending(self, item: str) -> None: ...

    def schedule(self) -> None:
        again = self.collection is not None
        super().schedule()
        if again:
            super().schedule()


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Groups:
    return Groups(config, log)


class Told:
    """Names a failed test at once; pytest's own reports come when all have run."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self.reporter = reporter

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        again = str(report.outcome) == "rerun"
        if not report.failed and not again:
            return
        crash = getattr(report.longrepr, "reprcrash", None)
        where = f"{Path(crash.path).name}:{crash.lineno}: {crash.message[:300]}" if crash else ""
        what = "TRIED AGAIN after" if again else "FAILED at"
        self.reporter.write_line(f"{what} {report.when}: {report.nodeid} {where}", red=True)
        for title, text in report.sections if again else ():  # told nowhere else
            self.reporter.write_line(f"{title}: {text[-SAID_CHARS:]}")


#: What part of the other tests is spread between the groups.
SPREAD = 0.6


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What one worker must do alone is spread over the first part of the run: it mostly waits, so
    others have the cores meanwhile, and it is not what all wait for in the end.

    pytest-xdist 3.8 names a group in an attribute that pytest 9.2 does not read any more, so it is
    named here too, or the tests of a group are spread over the workers.
    """
    groups: dict[str, list[pytest.Item]] = {}
    rest: list[pytest.Item] = []
    for item in items:
        mark = item.get_closest_marker("xdist_group")
        (groups.setdefault(mark.args[0], []) if mark else rest).append(item)
        if mark and getattr(config.option, "loadgroup", False) and "@" not in item.nodeid[-30:]:
            item._id = type(item.id).parse(f"{item.nodeid}@{mark.args[0]}")
    others = iter(rest)
    items.clear()
    for group in groups.values():
        items += [*group, *islice(others, int(len(rest) * SPREAD / len(groups)))]
    items += others
