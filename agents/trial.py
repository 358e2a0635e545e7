"""Hands are opened only where the canary held since this machine started.

The proof is a file in the run folder. It names what it was about: the machine's start, the
sandbox's programs and our own code; when one of them changes, the canary is sent in again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from agents import runtime_install, sandbox
from agents.canary import canary
from base import log
from base.errors import SandboxError
from base.settings import Settings

BOOT = Path("/proc/sys/kernel/random/boot_id")

logger = log.get("trial")


def held(settings: Settings) -> bool:
    """Whether the proof is there and about this machine as it is now. Never raises."""
    try:
        return _proof(settings).read_text(encoding="utf-8") == about(settings.hands_user)
    except (OSError, SandboxError):
        return False


async def proved(settings: Settings) -> None:
    """Raises SandboxError unless the canary holds, or held. Many at once try it once."""
    if held(settings):
        return
    lock = await asyncio.to_thread(_lock, settings, fcntl.LOCK_EX)
    try:
        if not held(settings):
            await canary(settings.hands_user)
            keep(settings)
    finally:
        os.close(lock)


def keep(settings: Settings) -> None:
    """Write the proof. Call it when the canary has held, and only then."""
    new = _proof(settings).with_name(f"canary.{os.getpid()}")
    new.write_text(about(settings.hands_user), encoding="utf-8")
    new.replace(_proof(settings))


async def ahead(settings: Settings, tell: Callable[[str], None]) -> None:
    """Try it in a process of its own while nothing waits for it, unless another agent does.

    `tell` gets the reason when it does not hold: tools will refuse with the same.
    """
    if held(settings):
        return
    try:
        lock = _lock(settings, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agents", "--canary"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, said = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if process.returncode:
            lines = said.decode("utf-8", "replace").strip().splitlines()
            tell(f"no tool that executes will run: {lines[-1] if lines else 'the canary died'}")
        else:
            keep(settings)
    finally:
        os.close(lock)


@cache
def about(user: str | None) -> str:
    """What a proof is about, for hands that run as `user`, as this process found it first.

    SandboxError when there can be no sandbox.
    """
    runtime = runtime_install.find(sandbox.account(user))
    digest = hashlib.sha256(BOOT.read_bytes() if BOOT.exists() else b"")
    for path in sandbox.programs().values():
        status = os.stat(path)
        digest.update(f"{path} {status.st_mtime_ns} {status.st_size}\0".encode())
    digest.update(f"{runtime.tree} {runtime.code} {user}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _proof(settings: Settings) -> Path:
    return settings.run / "canary"


def _lock(settings: Settings, how: int) -> int:
    settings.run.mkdir(parents=True, exist_ok=True)
    lock = os.open(settings.run / "canary.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, how)
    except BlockingIOError:
        os.close(lock)
        raise
    return lock
