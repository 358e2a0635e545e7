"""Secrets that a program of ours makes for itself, in a file each."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from base import modes
from base.errors import SettingsError

#: Of a file that nobody but who made it may read, nor have put there.
PRIVATE = 0o600


def kept(path: Path, mode: int) -> bytes:
    """The secret in `path`, made at the first call with that mode; the first of two racers wins.

    Raises SettingsError for one that is none; on the appliance also for a private one that another
    account could have put there, or can read.
    """
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        fresh.touch(mode=mode)
        fresh.write_bytes(secrets.token_hex(32).encode())
        _link_once(fresh, path)
    never = os.O_NOFOLLOW if modes.SHARED else 0
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | never), "rb") as file:
        found, key = os.fstat(file.fileno()), file.read().strip()
    if len(key) < 32:
        raise SettingsError([f"{path} is too short to be a secret; delete it to get a new one"])
    alone = os.geteuid() in {0, found.st_uid} and not found.st_mode & 0o077
    if modes.SHARED and mode == PRIVATE and not alone:
        raise SettingsError([f"{path} is not the portal's alone; delete it to get a new one"])
    return key


def _link_once(fresh: Path, path: Path) -> None:
    try:
        os.link(fresh, path)
    except FileExistsError:
        return
    finally:
        fresh.unlink()
