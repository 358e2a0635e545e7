"""External programs: an argument list, an empty environment, a deadline, and what they said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from base.errors import ConflictError, NotFoundError
from base.terminal import clipped, neutral
from provision.box import Box

SAID_CHARS = 2_000
OUTPUT_MAX_BYTES = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended. said: the end of its errors, else of its output, for people."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return clipped(neutral((self.err or self.out).strip()), SAID_CHARS)


def program(name: str, box: Box) -> Path:
    """Where that program is. Raises NotFoundError."""
    path = shutil.which(name, path=os.pathsep.join(map(str, box.programs)))
    if path is None:
        raise NotFoundError(f"{name} is not installed on this machine")
    return Path(path)


async def run(argv: Sequence[str], box: Box, *, deadline_s: float) -> Ended:
    """Run `argv`; its first word is looked for in `box.programs`.

    It is ended with all that it started when the deadline passes (ConflictError) or when the
    caller is cancelled. Raises NotFoundError when there is no such program.
    """
    path = program(argv[0], box)
    process = await asyncio.create_subprocess_exec(
        str(path),
        *argv[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.pathsep.join(map(str, box.programs)), "LC_ALL": "C.UTF-8"},
        start_new_session=True,
        limit=OUTPUT_MAX_BYTES,
    )
    try:
        async with asyncio.timeout(deadline_s):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise ConflictError(f"{argv[0]} did not end within {deadline_s:.0f} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    text = (raw[-OUTPUT_MAX_BYTES:].decode("utf-8", "replace") for raw in (out, err))
    return Ended(code=process.returncode or 0, out=next(text), err=next(text))
