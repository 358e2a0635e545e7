"""Secrets on this machine: systemd credentials, and files of ours with mode 0600."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from base import modes
from base.errors import InputError, SettingsError

MAX_BYTES = 65_536
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
Source = Literal["aws", "credential", "file", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A secret and where it is. `since`: when this value was put there, None when unknown."""

    value: SecretStr
    source: Source
    since: datetime | None = None


def named(name: str) -> str:
    """`name` itself. Raises InputError for one that is no name of a secret."""
    if not NAME.fullmatch(name):
        raise InputError(
            "the name of a secret is lower-case letters, digits and hyphens, such as github-pat"
        )
    return name


def from_credential(name: str) -> Found | None:
    """The systemd credential of that name; None when there is none, or it is empty."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not folder.startswith("/"):
        return None
    path = Path(folder) / named(name)
    with _opened(path) as number:
        return None if number is None else _read(path, number, "credential")


def from_file(folder: Path, name: str) -> Found | None:
    """The secret in `folder/name`; None when there is none, or it is empty.

    Raises SettingsError with the line that mends it for a file that others own or may read.
    """
    path = folder / named(name)
    with _opened(path) as number:
        if number is None:
            return None
        if fault := _fault(path, os.fstat(number)):
            raise SettingsError([fault])
        return _read(path, number, "file")


def faults(folder: Path) -> list[str]:
    """What is wrong with the folder of secrets and each file in it, with the line that mends it."""
    found = []
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    if paths and stat.S_IMODE(folder.stat().st_mode) & modes.OPEN_FOLDER:
        found.append(f"{folder} is open to other users; run: chmod 700 {shlex.quote(str(folder))}")
    for path in paths:
        if NAME.fullmatch(path.name) and (fault := _fault(path, path.lstat())):
            found.append(fault)
    return found


def put(folder: Path, name: str, value: str) -> Path:
    """Keep `value` in `folder/name`, mode 0600, whole or not at all. Twice is safe.

    Raises InputError for an empty or oversized value, SettingsError when it cannot be written.
    """
    path = folder / named(name)
    data = value.strip().encode(errors="surrogateescape") + b"\n"
    if len(data) == 1 or len(data) > MAX_BYTES:
        raise InputError(f"a secret has 1 to {MAX_BYTES - 1} bytes")
    beside = folder / f".{name}.{secrets.token_hex(8)}"
    try:
        folder.mkdir(mode=modes.FOLDER, parents=True, exist_ok=True)
        number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, modes.FILE)
        try:
            with os.fdopen(number, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(number)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError([f"cannot write {path}: {error.strerror}"]) from error
    return path


def remove(folder: Path, name: str) -> bool:
    """Delete the file; whether there was one. Raises SettingsError when it cannot be deleted."""
    path = folder / named(name)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SettingsError([f"cannot remove {path}: {error.strerror}"]) from error
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """A descriptor of the file itself, never of what a link points to; None: no such file."""
    number = None
    try:
        # A named pipe in its place must not hold us up.
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        pass
    except OSError as error:
        fault = _fault(path, path.lstat()) if os.path.lexists(path) else None
        # On the appliance an account without the folder is one that has no need of a secret.
        if not modes.SHARED or os.access(path.parent, os.X_OK):
            raise SettingsError([fault or f"cannot read {path}: {error.strerror}"]) from error
    try:
        yield number
    finally:
        if number is not None:
            os.close(number)


def _fault(path: Path, found: os.stat_result) -> str | None:
    quoted = shlex.quote(str(path))
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is no plain file; remove it and run: ai-infra secrets set {path.name}"
    if not _own(found):
        return f"{path} belongs to another user; run: chown {_me()} {quoted}"
    if stat.S_IMODE(found.st_mode) & modes.OPEN_FILE:
        mode = stat.S_IMODE(found.st_mode)
        return f"{path} has mode {mode:04o}, others may use it; run: chmod {modes.FILE:o} {quoted}"
    return None


def _own(found: os.stat_result) -> bool:
    """On the appliance the portal writes what the agents read."""
    return found.st_uid == os.geteuid() or (modes.SHARED and found.st_uid in modes.owners())


def _read(path: Path, number: int, source: Source) -> Found | None:
    try:
        data = os.read(number, MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError([f"cannot read {path}: {error.strerror}"]) from error
    if len(data) > MAX_BYTES:
        raise SettingsError([f"{path} is larger than {MAX_BYTES} bytes: no secret"])
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        raise SettingsError([f"{path} is no UTF-8 text"]) from None
    since = datetime.fromtimestamp(os.fstat(number).st_mtime, UTC)
    return Found(value=SecretStr(text), source=source, since=since) if text else None


def _me() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
