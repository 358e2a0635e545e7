"""A workspace and open hands, judged from outside the sandbox."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from homes import spare
from present import need

from agents.hands import Hands, ToolResult
from base.deadline import Deadline
from base.levels import Levels
from base.settings import HANDS_USER, hands_account, load

STANDARD = Levels.load().get("standard")
Call = Callable[..., ToolResult]


@pytest.fixture(scope="session")
def hands_user() -> str | None:
    """Who the hands run as here: the unprivileged account when the tests are root."""
    need("bwrap")
    if os.geteuid() != 0:
        return None
    if hands_account() is None:
        pytest.fail(f"the account {HANDS_USER} is missing; tests/run.sh makes it")
    return HANDS_USER


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that everybody can read, with the product's home in `home`."""
    path = Path(tempfile.mkdtemp(prefix="ai-h-", dir="/var/tmp"))
    path.chmod(0o755)
    (path / "home").mkdir()
    monkeypatch.setenv("AI_INFRA_HOME", str(path / "home"))
    spare(load())
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def workspace(ground: Path, hands_user: str | None) -> Path:
    """An empty workspace that belongs to the hands."""
    path = ground / "workspace"
    path.mkdir()
    if hands_user is not None:
        shutil.chown(path, hands_user)
    return path


@pytest.fixture
async def hands(workspace: Path, hands_user: str | None) -> AsyncIterator[Hands]:
    opened = await Hands.open(workspace=workspace, user=hands_user, level=STANDARD)
    yield opened
    await opened.close()


@pytest.fixture
def call(hands: Hands) -> Callable[..., object]:
    """`await call("read", path="a")`, with 20 s to do it."""

    async def _call(name: str, within_s: float = 20.0, **given: object) -> ToolResult:
        return await hands.call(name, given, deadline=Deadline.after(within_s))

    return _call


@pytest.fixture
def unboxed(hands_user: str | None) -> Callable[[str], str]:
    """Run a command as the hands' user but outside: the control of an escape test."""

    def _run(command: str) -> str:
        become = {"user": hands_user, "extra_groups": []} if hands_user else {}
        ran = subprocess.run(  # type: ignore[call-overload]
            ["/bin/bash", "-c", command],
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            **become,
        )
        return str(ran.stdout + ran.stderr)

    return _run
