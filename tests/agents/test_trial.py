"""No hands without a canary that held: tried once a start of the machine, and again on change."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agents import canary, trial
from agents.grip import Grip
from base.errors import SandboxError
from base.levels import Levels
from base.settings import Settings, load

pytest_plugins = ["boxed"]


@pytest.fixture
def settings(ground: Path, hands_user: str | None) -> Settings:
    found = load()
    found.run.mkdir(parents=True, exist_ok=True)
    return found


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Who the canary was sent in as, each time."""
    sent: list[str | None] = []

    async def _canary(user: str | None) -> None:
        sent.append(user)
        await asyncio.sleep(0.05)
        await canary.canary(user)

    monkeypatch.setattr(trial, "canary", _canary)
    return sent


async def test_it_is_tried_once_for_all_and_again_when_something_changed(
    settings: Settings, tries: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not trial.held(settings)
    await asyncio.gather(*(trial.proved(settings) for _ in range(4)))
    assert len(tries) == 1
    assert trial.held(settings)
    monkeypatch.setattr(trial, "about", lambda user: "another start of the machine")
    assert not trial.held(settings)


async def test_hands_are_refused_where_the_sandbox_does_not_hold(
    settings: Settings, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def _fails(user: str | None) -> None:
        raise SandboxError("the sandbox does not hold: a file outside could be read")

    monkeypatch.setattr(trial, "canary", _fails)
    parts: Any = SimpleNamespace(settings=settings)
    level = Levels.load().get(1)
    task: Any = SimpleNamespace(workspace=workspace, level=level, granted=())
    grip = Grip(parts, task)
    for _ in range(2):
        with pytest.raises(SandboxError, match="does not hold"):
            await grip.hold()
    assert not trial.held(settings)


async def test_ahead_tries_it_in_a_process_of_its_own(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    await trial.ahead(settings, told.append)
    assert told == []
    assert trial.held(settings)
    (settings.run / "canary").unlink()
    lock = os.open(settings.run / "canary.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    await trial.ahead(settings, told.append)  # another agent is at it
    assert not trial.held(settings)
    os.close(lock)
    monkeypatch.setenv("PATH", str(settings.home))
    await trial.ahead(settings, told.append)
    assert "apt-get install" in told[0]
