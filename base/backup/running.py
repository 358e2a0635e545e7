"""Stopping and starting the installation around a restore: by the supervisor's own `up` and
`down`, on the appliance by systemd.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from base.backup.command import Done, run
from base.errors import BackupError
from base.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
#: All but Redis, and the root broker, which may be doing this very thing.
UNITS = ("ai-supervisor", "ai-agents", "ai-api", "ai-memory", "ai-rehearsal", "ai-workers@*")
WATCHED = UNITS[:4]
TARGET = "ai-infrastructure.target"
LIMIT_S, ASK_S = 240.0, 60.0
NOT_RUNNING = 3


async def runs(settings: Settings) -> bool:
    """Whether any of it runs. Raises BackupError when that cannot be told."""
    if settings.broker:
        done = await run(["systemctl", "is-active", "--quiet", *WATCHED], deadline_s=ASK_S)
        return done.code == 0
    done = await _word(settings, "status")
    return '"state": "down"' not in done.out


async def stop(settings: Settings) -> None:
    """All that opens the stores. Raises BackupError."""
    if settings.broker:
        done = await run(["systemctl", "stop", *UNITS], deadline_s=LIMIT_S)
    else:
        done = await _word(settings, "down")
    if done.code:
        raise BackupError(f"the installation could not be stopped: {done.words}")


async def start(settings: Settings, environment: Mapping[str, str] | None = None) -> None:
    """And wait until it is ready. Raises BackupError."""
    if settings.broker:
        done = await run(["systemctl", "start", TARGET], deadline_s=LIMIT_S)
    else:
        done = await _word(settings, "up", environment)
    if done.code:
        raise BackupError(f"the installation did not start: {done.words}")


async def serve(settings: Settings) -> list[str]:
    """nginx reads the sites as they lie now, each tried before; those that it refuses, with its
    words. Raises BackupError when it cannot be told.
    """
    own = {**os.environ, "AI_INFRA_HOME": str(settings.home)}
    line = [sys.executable, "-m", "provision.front", "--again"]
    done = await run(line, deadline_s=LIMIT_S, environment=own, cwd=ROOT)
    try:
        notes: list[str] = json.loads(done.out)["notes"]
    except (ValueError, KeyError, TypeError) as error:
        raise BackupError(done.words) from error
    return notes


async def _word(
    settings: Settings, word: str, environment: Mapping[str, str] | None = None
) -> Done:
    own = {**os.environ, **(environment or {}), "AI_INFRA_HOME": str(settings.home)}
    line = [sys.executable, "-m", "supervisor", word, "--json"]
    return await run(line, deadline_s=LIMIT_S, environment=own, cwd=ROOT)
