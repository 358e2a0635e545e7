"""A program of the machine: an argv, its own environment, a deadline, and what it said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from base.errors import BackupError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
END_S = 5.0
LINE_MAX_BYTES = 1_000_000

Heard = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """code: the exit code, negative for a signal."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """The last line that it said, of its errors first; of PostgreSQL's, which says more below
        each, the error itself.
        """
        lines = self.err.strip().splitlines() or self.out.strip().splitlines()
        faults = [line for line in lines if "ERROR:  " in line or "FATAL:  " in line]
        return (faults or lines)[-1].strip() if lines else f"exit code {self.code}"


async def run(
    argv: Sequence[str],
    *,
    deadline_s: float,
    environment: Mapping[str, str] | None = None,
    cwd: Path = Path("/"),
    given: bytes | BinaryIO | None = None,
    heard: Heard | None = None,
) -> Done:
    """given: its standard input, bytes or an open file; heard: gets each line that it says, when it
    says it. Ended with whoever waits for it.

    Raises BackupError when it is not there or takes too long.
    """
    stdin = asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE
    data = given if isinstance(given, bytes) else None
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=cwd,
            env={"PATH": PATH, "LANG": "C.UTF-8", **(environment or {})},
            stdin=stdin if given is None or isinstance(given, bytes) else given,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=LINE_MAX_BYTES,
        )
    except OSError as error:
        raise BackupError(f"{argv[0]} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(deadline_s):
            out, err = await _said(process, data, heard)
    except TimeoutError as error:
        raise BackupError(f"{Path(argv[0]).name} took longer than {deadline_s:g} s") from error
    finally:
        if process.returncode is None:
            await end(process)
    code = process.returncode or 0
    return Done(code=code, out=out.decode(errors="replace"), err=err.decode(errors="replace"))


async def _said(
    process: asyncio.subprocess.Process, data: bytes | None, heard: Heard | None
) -> tuple[bytes, bytes]:
    if heard is None:
        return await process.communicate(data)
    assert data is None
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.TaskGroup() as reading:
        both = [
            reading.create_task(_lines(stream, heard), name="lines")
            for stream in (process.stdout, process.stderr)
        ]
    await process.wait()
    return both[0].result(), both[1].result()


async def _lines(stream: asyncio.StreamReader, heard: Heard) -> bytes:
    found = b""
    async for line in stream:
        found += line
        await heard(line.decode(errors="replace").rstrip())
    return found


async def end(
    process: asyncio.subprocess.Process, number: int = signal.SIGTERM, limit_s: float = END_S
) -> None:
    """Ask it and what it started to end, then kill them."""
    for told in (number, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, told)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await process.wait()
                return
