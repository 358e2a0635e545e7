"""How the last backup went, in `backup.json` of the home: for doctor and the portal."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pydantic import AwareDatetime, ValidationError

from base.messages import Wire
from base.settings import Settings


class Last(Wire):
    """The last good snapshot; problem: why the try after it failed."""

    at: AwareDatetime
    snapshot: str
    place: str
    took_s: float
    problem: str | None = None


def path(settings: Settings) -> Path:
    return settings.home / "backup.json"


def last(settings: Settings) -> Last | None:
    """None: none was ever made, or it cannot be read."""
    with contextlib.suppress(OSError, ValidationError):
        return Last.model_validate_json(path(settings).read_bytes())
    return None


def write(settings: Settings, found: Last) -> None:
    """Whole or not at all. Raises OSError."""
    new = path(settings).with_name(f"backup.json.{os.getpid()}")
    try:
        new.write_text(found.model_dump_json(), encoding="utf-8")
        new.chmod(0o644)
        new.replace(path(settings))
    finally:
        new.unlink(missing_ok=True)


def failed(settings: Settings, problem: str) -> None:
    """Keep what went wrong beside the last good one; a full disk keeps it out, and that is told
    by the error itself.
    """
    if (before := last(settings)) is not None:
        with contextlib.suppress(OSError):
            write(settings, before.model_copy(update={"problem": problem}))
