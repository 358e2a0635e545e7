"""The end of a program's log file, filtered and redacted, for admins."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from base.errors import NotFoundError
from base.messages import Wire
from base.redact import redact
from base.terminal import neutral
from portal.auth import Caller, admin_only
from portal.desk import Desk

#: So much of the end is looked through.
LOOK_BYTES = 1_000_000
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,60}")
LEVELS = ("debug", "info", "warning", "error")
_LEVEL = re.compile(r"\blevel=(\w+)")


class Log(Wire):
    """Oldest first. `more`: the file holds older lines that were not looked at."""

    name: str
    lines: list[str]
    more: bool


async def tail(
    desk: Desk,
    caller: Caller,
    name: str,
    *,
    lines: int = 200,
    words: str = "",
    level: str = "debug",
) -> Log:
    """The newest lines that hold all of `words`, at `level` or above (admin).

    Raises NotFoundError when no program of that name writes a log.
    """
    admin_only(caller)
    path = desk.settings.logs / f"{name}.log"
    if not NAME.fullmatch(name) or not path.is_file():
        known = sorted(one.stem for one in desk.settings.logs.glob("*.log"))
        raise NotFoundError(f"no log of {name!r}; there are: {', '.join(known) or 'none'}")
    found, more = await asyncio.to_thread(_read, path)
    least = LEVELS.index(level) if level in LEVELS else 0
    wanted = words.casefold().split()
    fits = [
        line
        for line in found
        if _rank(line) >= least and all(word in line.casefold() for word in wanted)
    ]
    shown = [neutral(redact(line)) for line in fits[-lines:]]
    return Log(name=name, lines=shown, more=more or len(fits) > len(shown))


def _read(path: Path) -> tuple[list[str], bool]:
    with path.open("rb") as file:
        whole_bytes = file.seek(0, 2)
        file.seek(max(0, whole_bytes - LOOK_BYTES))
        lines = file.read(LOOK_BYTES).decode(errors="backslashreplace").splitlines()
    cut = whole_bytes > LOOK_BYTES
    return (lines[1:] if cut else lines), cut


def _rank(line: str) -> int:
    """A line without a level belongs to the one before, such as a traceback: always shown."""
    said = _LEVEL.search(line)
    return LEVELS.index(said[1]) if said and said[1] in LEVELS else len(LEVELS)
