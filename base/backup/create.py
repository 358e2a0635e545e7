"""Making a backup, and checking what is there. One at a time; a try that fails changes nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from base.backup import record, rules, sites, staging
from base.backup.database import answering
from base.backup.restic import Restic, Snapshot
from base.backup.rules import Rules
from base.backup.staging import Say
from base.errors import AIError, BackupError, ConflictError
from base.settings import Settings

#: Of the home, as they lie; the stage is beside them. What is missing is left out.
FOLDERS = ("MEMORY", "TELOS", "attachments", "config", "hooks", "secrets")
STAGE = "data/stage"
LOCK = "data/backup.lock"
ETC, CERTIFICATES = Path("/etc/ai-infra"), Path("/etc/letsencrypt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """first: the repository and its key are new, so the key wants a copy elsewhere."""

    snapshot: str
    place: str
    took_s: float
    first: bool
    key: Path
    manifest: staging.Manifest


async def create(settings: Settings, say: Say) -> Made:
    """A snapshot of all of it. Raises BackupError, ConflictError while another works here."""
    found = rules.load(settings)
    restic = Restic.of(settings, found)
    with alone(settings):
        begun_s = time.monotonic()
        try:
            first = await restic.open()
            async with (
                answering(settings) as database,
                staging.staged(settings, database, say) as manifest,
            ):
                await say(f"writing to {restic.place}")

                async def tell(percent: int) -> None:
                    await say(f"writing to {restic.place}: {percent} %")

                written = await restic.backup(
                    settings.home,
                    _paths(settings, found, manifest),
                    version=manifest.version,
                    counts=manifest.counts,
                    without=_without(settings, found, restic),
                    tell=tell,
                )
            await say("letting old snapshots go")
            keep = found.keep
            await restic.forget(daily=keep.daily, weekly=keep.weekly, monthly=keep.monthly)
        except AIError as error:
            record.failed(settings, str(error))
            raise
        took_s = round(time.monotonic() - begun_s, 1)
        last = record.Last(
            at=datetime.now(UTC),
            snapshot=written.id,
            place=restic.place,
            took_s=took_s,
            sizes=record.sized(settings, written.id, written.size_bytes),
        )
        with _told(record.path(settings)):
            record.write(settings, last)
    return Made(
        snapshot=written.id,
        place=restic.place,
        took_s=took_s,
        first=first,
        key=restic.key,
        manifest=manifest,
    )


async def snapshots(settings: Settings) -> list[Snapshot]:
    """Oldest first. Raises BackupError, NotFoundError without any."""
    found = await Restic.of(settings, rules.load(settings)).snapshots()
    last = record.last(settings)
    sizes = last.sizes if last else {}
    return [
        one if one.size_bytes is not None else replace(one, size_bytes=sizes.get(one.id))
        for one in found
    ]


async def verify(settings: Settings, *, whole: bool) -> str:
    """The snapshot that was read last, once the repository is known to be sound; `whole`: every
    byte of it is read. Raises BackupError naming what is damaged.
    """
    restic = Restic.of(settings, rules.load(settings))
    found = await restic.find("latest")
    begun_s = time.monotonic()

    def proved(problem: str | None) -> None:
        proof = record.Proof(
            at=datetime.now(UTC),
            snapshot=found.id,
            took_s=round(time.monotonic() - begun_s, 1),
            whole=whole,
            problem=problem,
        )
        record.proved(settings, "verified", proof)

    try:
        await restic.check(whole=whole)
    except BackupError as error:
        proved(str(error))
        raise
    proved(None)
    return found.id


def busy(settings: Settings) -> bool:
    """Whether a backup or restore is at work here, without taking its lock for a moment."""
    with contextlib.suppress(OSError):
        inode = f":{(settings.home / LOCK).stat().st_ino}"
        held = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        return any(" FLOCK " in line and line.split()[5].endswith(inode) for line in held)
    return False


@contextlib.contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """One backup or restore of a home at a time. Raises ConflictError."""
    place = settings.home / LOCK
    with _told(place):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError("another backup or restore is at work here") from error
        yield
    finally:
        os.close(number)


def _paths(settings: Settings, found: Rules, manifest: staging.Manifest) -> list[str]:
    names = [name for name in FOLDERS if (settings.home / name).exists()]
    if found.workspaces:
        outside = manifest.outside.get("workspaces")
        names += [outside or "workspaces"] if settings.workspaces.is_dir() else []
    more = [ETC, CERTIFICATES, *sites.places()] if settings.broker else []
    return [STAGE, *names, *(str(path) for path in more if path.is_dir())]


def _without(settings: Settings, found: Rules, restic: Restic) -> list[str]:
    """The keys that open the backup itself, and what the stage has a copy of."""
    left = [str(found.key(settings)), str(found.s3(settings)), restic.place]
    if (settings.home / STAGE / staging.ARCHIVE).is_dir():
        left.append(str(settings.memory / "Work" / "archive"))
    left += [f"{place}/.before-*" for place in (ETC, CERTIFICATES, sites.NGINX, sites.RECORD)]
    left += sites.without()
    return [path for path in left if path.startswith("/")]


@contextlib.contextmanager
def _told(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackupError(f"{error.filename or place}: {error.strerror}") from error
