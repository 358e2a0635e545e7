"""Read and change the configuration from the portal.

What is written has passed the loaders that read it at the next start; a file is replaced as a
whole, keeps its mode, and the one before stays beside it as `NAME.toml.before`. People edit the
same files: a change names the version that it was made on, and a newer one is a conflict.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from base import modes, roster, streams
from base.errors import AIError, ConflictError, FieldsError, InputError, NoAnswerError
from base.messages import Wire
from base.redact import redact
from base.settings import Settings
from portal import config_files, toml_edit
from portal.auth import Caller, admin_only
from portal.config_files import AGENTS, EVERYTHING, MEMORY, PORTAL, SUPERVISOR, WORKERS, Fault, File
from portal.desk import Desk
from portal.toml_edit import Change
from portal.trail import event

#: The version of a file that is not there.
ABSENT = "absent"
FILE_MAX_BYTES = 500_000
#: They make a line read otherwise than it is.
TURNING = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
HEAD = "# Laid over the shipped {name}: only what differs stands here.\n"
SECRET = "it holds what looks like a secret, so it is not shown; edit it on the server"


class Configured(Wire):
    """A file of the configuration. own: what the owner's file itself says; values: that over what
    is shipped, empty while it is faulty; text None: `withheld` says why. version goes with the
    next change.
    """

    file: str
    path: str
    about: str
    version: str
    modified_at: datetime | None
    text: str | None
    withheld: str
    own: dict[str, Any]
    values: dict[str, Any]
    faults: list[Fault]
    environment: list[str]


class Written(Wire):
    """changed: dotted names of the keys; restart: programs that read them only at their start."""

    configured: Configured
    changed: list[str]
    restart: list[str]


async def files(desk: Desk, caller: Caller) -> list[Configured]:
    """Every file there is or may be, an agent's each."""
    admin_only(caller)
    known = roster.load(desk.settings)
    names = [*config_files.FILES, *(f"{AGENTS}/{name}" for name in (SUPERVISOR, *known.agents))]
    return [
        await asyncio.to_thread(read_file, desk.settings, config_files.file(name)) for name in names
    ]


async def read(desk: Desk, caller: Caller, name: str) -> Configured:
    """One file. Raises ForbiddenError unless an admin asks, NotFoundError for none such."""
    admin_only(caller)
    return await asyncio.to_thread(read_file, desk.settings, config_files.file(name))


async def write(
    desk: Desk,
    caller: Caller,
    name: str,
    version: str,
    *,
    changes: Sequence[Change] = (),
    text: str | None = None,
) -> Written:
    """Make the changes, or put `text` in the place of the whole file.

    Raises FieldsError with every fault and leaves the file as it was; ConflictError when it is no
    longer that version.
    """
    admin_only(caller)
    one = config_files.file(name)
    told = event(
        "action",
        "write",
        f"config/{one.path}",
        caller=caller,
        resource_type="file",
        risk="high" if one.grave else "medium",
    )
    async with desk.written(told) as details:
        keys, before = await asyncio.to_thread(
            write_file, desk.settings, one, version, changes, text
        )
        found = await asyncio.to_thread(read_file, desk.settings, one)
        details["keys"] = [".".join(key) for key in keys][:100]
        details["sha256_before"], details["sha256_after"] = before, found.version
    restart = config_files.restarts(one, keys, desk.settings)
    return Written(configured=found, changed=[".".join(key) for key in keys], restart=list(restart))


async def restart(desk: Desk, caller: Caller, names: Sequence[str]) -> list[str]:
    """Have the watchdog restart these programs, the portal last; each ends its work first.
    `agents` means all of them.

    Raises InputError for one that cannot be restarted from here, ConflictError naming those that
    the watchdog refused; the others are restarted.
    """
    admin_only(caller)
    agents = roster.load(desk.settings).agents
    known = {SUPERVISOR, *agents, MEMORY, WORKERS, PORTAL}
    names = [*(name for name in names if name != AGENTS), *(agents if AGENTS in names else ())]
    if unknown := [name for name in names if name not in known]:
        more = "run ai-infra down, then ai-infra up" if EVERYTHING in unknown else ""
        raise InputError(
            f"cannot restart {', '.join(unknown)} from here"
            + (f": {more}" if more else f"; there are: {', '.join(sorted(known))}")
        )
    ordered = sorted(set(names), key=lambda name: (name == PORTAL, name != SUPERVISOR, name))
    failed = []
    for name in ordered:
        what = event("action", "execute", f"programs/{name}/restart", caller=caller, risk="medium")
        try:
            async with desk.written(what):
                await desk.ask(streams.SERVICE_WATCH, verb="restart", agent=name)
        except NoAnswerError:
            raise
        except AIError as error:
            failed.append(f"{name}: {error}")
    if failed:
        raise ConflictError(f"not restarted: {'; '.join(failed)}")
    return ordered


def read_file(settings: Settings, one: File) -> Configured:
    """One file as it is now. A faulty or unreadable one is told of in `faults`."""
    path = settings.config / one.path
    values, told = one.read(settings)
    found = list(config_files.faults_in(settings, one, told))
    text, withheld, own, version, modified_at = "", "", {}, ABSENT, None
    try:
        raw = _bytes(path)
        if raw is not None:
            version = _version(raw)
            modified_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            text = raw.decode()
            own = toml_edit.parsed(text)
    except (InputError, UnicodeDecodeError, OSError) as error:
        if not found:
            found = [Fault(file=one.path, field="", message=str(error))]
    if redact(text) != text or (one.name == "settings" and config_files.HIDDEN & own.keys()):
        withheld, own = SECRET, _open(own)
    return Configured(
        file=one.name,
        path=str(path),
        about=one.about,
        version=version,
        modified_at=modified_at,
        text=None if withheld else text,
        withheld=withheld,
        own=own,
        values=values,
        faults=found,
        environment=config_files.environment(values) if one.name == "settings" else [],
    )


def _open(own: dict[str, Any]) -> dict[str, Any]:
    """What may be shown of a file that holds a secret: none of its texts."""
    return {
        key: _open(value) if isinstance(value, dict) else value
        for key, value in own.items()
        if isinstance(value, dict | bool | int | float)
    }


def write_file(
    settings: Settings, one: File, version: str, changes: Sequence[Change], text: str | None
) -> tuple[list[tuple[str, ...]], str]:
    """`write` without asking who; the keys that changed and the version that was there before."""
    path = settings.config / one.path
    with _alone(settings):
        raw = _bytes(path)
        there = ABSENT if raw is None else _version(raw)
        if there != version:
            raise ConflictError(
                f"{one.path} was changed by somebody else meanwhile; look at it again, then "
                "make your change on what it is now"
            )
        before = HEAD.format(name=one.path) if raw is None else _text(raw, one)
        after = toml_edit.edited(before, changes) if text is None else text
        keys = _asked(one, "" if raw is None else before, after)
        if keys or after != before:
            _check(settings, one, after)
            _replace(path, after)
        return keys, there


def _asked(one: File, before: str, after: str) -> list[tuple[str, ...]]:
    """The keys that change. Raises for what may not be changed here."""
    if len(after.encode()) > FILE_MAX_BYTES:
        raise InputError(f"the text has more than {FILE_MAX_BYTES:,} bytes")
    try:
        now = toml_edit.parsed(after)
    except InputError as error:
        raise FieldsError([(one.path, "", str(error))]) from error
    if TURNING.search(after):
        raise FieldsError([(one.path, "", "it holds characters that turn the text around")])
    if redact(after) != after and redact(before) == before:
        said = "looks like a secret, and this file is no place for one: set it under API keys"
        raise FieldsError([(one.path, "", said)])
    try:
        keys = toml_edit.differing(toml_edit.parsed(before), now)
    except InputError:  # it was no TOML
        keys = sorted((key,) for key in now)
    if one.name == "settings" and (hidden := {key[0] for key in keys} & config_files.HIDDEN):
        raise FieldsError(
            [(one.path, name, "can be changed on the server alone") for name in sorted(hidden)]
        )
    return keys


def _check(settings: Settings, one: File, after: str) -> None:
    """Raises FieldsError for what would be wrong in the file, or newly wrong in another."""
    with tempfile.TemporaryDirectory(prefix="proposed-", dir=settings.run) as folder:
        proposed = settings.proposing(Path(folder))
        for path in sorted(settings.config.rglob("*.toml")):
            beside = proposed.config / path.relative_to(settings.config)
            beside.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                shutil.copyfile(path, beside)
        target = proposed.config / one.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(after, encoding="utf-8")
        known = set(config_files.faults(settings))
        found = [
            fault
            for fault in config_files.faults(proposed)
            if fault.file == one.path or fault not in known
        ]
    if found:
        raise FieldsError([(fault.file, fault.field, fault.message) for fault in found])


def _replace(path: Path, text: str) -> None:
    """The whole file or nothing, with the mode and owner it had; what it was stays beside it."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=modes.FOLDER, parents=True, exist_ok=True)
        was = path.lstat() if os.path.lexists(path) else None
        mode = modes.FILE if was is None else stat.S_IMODE(was.st_mode)
        number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(number, "wb") as out:
                out.write(text.encode())
                out.flush()
                os.fchmod(number, mode)
                same = was is None or (was.st_uid, was.st_gid) == (os.geteuid(), os.getegid())
                if was is not None and not (same or modes.SHARED):
                    os.fchown(number, was.st_uid, was.st_gid)
                os.fsync(number)
            if was is not None:
                _keep(path)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise ConflictError(f"cannot write {path}: {error.strerror}") from error


def _keep(path: Path) -> None:
    """The file as it is, as `NAME.toml.before`; the one that was there goes."""
    kept = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        os.link(path, kept, follow_symlinks=False)
        kept.replace(path.with_name(f"{path.name}.before"))
    finally:
        kept.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """One writer of the configuration at a time, of all that write through here."""
    with (settings.run / "configuring.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _bytes(path: Path) -> bytes | None:
    """What the file holds; None: there is none. Raises InputError for what is no file of ours."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is no plain file (a link?): change what it stands for")
    if found.st_size > FILE_MAX_BYTES:
        raise InputError(f"{path} has more than {FILE_MAX_BYTES:,} bytes")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _text(raw: bytes, one: File) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise FieldsError([(one.path, "", "it is no UTF-8 text")]) from error


def _version(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
