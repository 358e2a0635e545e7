"""Files for a site: what a person sends is laid into the broker's inbox as one archive.

Nothing of it is unpacked here, and no name that was sent becomes a path of this machine: the
names stand in the archive alone, and what leads out of it is refused.
"""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import uuid
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from base.errors import InputError, SettingsError
from base.messages import Wire
from base.settings import Settings
from base.verbs import Previous, SiteDeploy, Upload
from portal import broker, domains
from portal.auth import Caller
from portal.broker import DO_S, Tell
from portal.desk import Desk

#: What is taken as it is, when it comes alone.
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
FILES_MAX = 900
COPY_BYTES = 1_000_000


class Sent(Protocol):
    """A file of a form, as the web framework keeps it."""

    filename: str | None
    file: BinaryIO


class Deployed(Wire):
    """files: how many files were sent (an archive is one); release: what the site serves now."""

    files: int
    release: str | None = None


async def deploy(
    desk: Desk, caller: Caller, domain_id: str, files: Sequence[Sent], *, tell: Tell | None = None
) -> Deployed:
    """A new release of a static site, of these files. Raises InputError for their names."""
    found = await domains.domain(desk, caller, domain_id)
    laid = await asyncio.to_thread(lay, desk.settings, files)
    try:
        wanted = SiteDeploy(domain=found.domain_name, source=Upload(name=laid.name))
        said = await broker.ask(desk, caller, "site.deploy", wanted, tell=tell, limit_s=DO_S)
    finally:
        laid.unlink(missing_ok=True)
    await domains.domains(desk, caller)
    return Deployed(files=len(files), release=_release(said.result))


async def rollback(desk: Desk, caller: Caller, domain_id: str) -> Deployed:
    """The release before the present one."""
    found = await domains.domain(desk, caller, domain_id)
    wanted = SiteDeploy(domain=found.domain_name, source=Previous())
    said = await broker.ask(desk, caller, "site.deploy", wanted, limit_s=DO_S)
    await domains.domains(desk, caller)
    return Deployed(files=0, release=_release(said.result))


def lay(settings: Settings, files: Sequence[Sent]) -> Path:
    """One archive in the inbox, under a name of our own. Raises InputError, SettingsError."""
    names = [_safe(one.filename or "") for one in files]
    if not files:
        raise InputError("send at least one file")
    if len(files) > FILES_MAX:
        raise InputError(f"send at most {FILES_MAX} files; more of them as one archive")
    if len(set(names)) < len(names):
        raise InputError("two files have the same name")
    alone = files[0] if len(files) == 1 else None
    ending = None if alone is None else _ending(names[0])
    path = settings.inbox / f"{uuid.uuid4().hex}{ending or '.tar.gz'}"
    try:
        settings.inbox.mkdir(mode=0o700, exist_ok=True)
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(number, "wb") as out:
            if alone is not None and ending is not None:
                while piece := alone.file.read(COPY_BYTES):
                    out.write(piece)
            else:
                _pack(out, names, files)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise SettingsError([f"the inbox cannot be written: {error.strerror}"]) from error
    return path


def _pack(out: BinaryIO, names: Sequence[str], files: Sequence[Sent]) -> None:
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, one in zip(names, files, strict=True):
            entry = tarfile.TarInfo(name)
            entry.size = one.file.seek(0, io.SEEK_END)
            entry.mode = 0o644
            one.file.seek(0)
            archive.addfile(entry, one.file)


def _safe(name: str) -> str:
    """The name inside the archive. Raises InputError for one that leads anywhere else."""
    path = PurePosixPath(name.replace("\\", "/"))
    odd = any(ord(char) < 32 or ord(char) == 127 for char in name)
    if odd or path.is_absolute() or not path.parts or ".." in path.parts or len(name) > 1_000:
        raise InputError(f"{name[:80]!r} cannot be the name of a file of a site")
    return str(path)


def _ending(name: str) -> str | None:
    return next((one for one in ARCHIVES if name.lower().endswith(one)), None)


def _release(result: dict[str, object]) -> str | None:
    found = result.get("release")
    return found if isinstance(found, str) else None
