"""Other people's programs: an argv, a deadline, an empty environment, and what they said kept."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PLAIN = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/nonexistent",
}
KEPT_BYTES = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """code None: it was stopped at its deadline. said: both its outputs, the end of them."""

    code: int | None
    said: str

    @property
    def well(self) -> bool:
        return self.code == 0


async def command(
    argv: Sequence[str],
    *,
    deadline_s: float,
    env: Mapping[str, str] | None = None,
    folder: Path = Path("/"),
    stdin: int = asyncio.subprocess.DEVNULL,
    uid: int | None = None,
    inherit: Sequence[int] = (),
) -> Ended:
    """Runs `argv` to its end. At the deadline, or when the caller is cancelled, it is killed
    with everything it started. uid: whom it runs as, without any group (root alone can ask).
    inherit: descriptors that it holds open while it lives.

    Raises OSError when there is no such program.
    """
    other = uid is not None and os.geteuid() == 0
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=PLAIN | dict(env or {}),
        cwd=folder,
        pass_fds=tuple(inherit),
        start_new_session=True,
        user=uid if other else None,
        group=uid if other else None,
        extra_groups=[] if other else None,
    )
    try:
        async with asyncio.timeout(deadline_s):
            said, _ = await process.communicate()
    except TimeoutError:
        return Ended(code=None, said=f"{argv[0]} did not end within {deadline_s:.0f} s")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.returncode is None:
            await process.wait()
    return Ended(code=process.returncode, said=said[-KEPT_BYTES:].decode(errors="replace"))
