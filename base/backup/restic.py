"""The restic program: the one place that runs it and knows what its errors mean."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shlex
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from base import secrets_files
from base.backup.command import Done, Heard, run
from base.backup.rules import Rules
from base.errors import BackupError, NotFoundError, SettingsError
from base.settings import Settings

TAG = "ai-infra"
COUNT = "count-"
STEP_PERCENT = 5
#: A first backup over a slow line may take a night.
LONG_S, SHORT_S = 6 * 3600.0, 300.0
NONE = ("unable to open config file", "Is there a repository at", "does not exist")
SSH = "subprocess ssh: "
TELLING = (
    (("wrong password or no key found",), "the key {key} is not the repository's"),
    (("repository is already locked",), "another backup works on {place}"),
    (("no space left on device", "disk quota exceeded"), "no space is left at {place}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """id: restic's, short; version: of the product that made it. size_bytes: what it holds, None:
    this restic does not say. counts: rows of its database, by name; empty: an older version's.
    """

    id: str
    at: datetime
    host: str
    version: str
    size_bytes: int | None
    counts: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A new snapshot: its id, and how many bytes it holds."""

    id: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Restic:
    """A repository and what opens it."""

    program: str
    place: str
    key: Path
    cache: Path
    credentials: dict[str, str]

    @classmethod
    def of(cls, settings: Settings, rules: Rules) -> Restic:
        """Raises SettingsError: restic is not installed, or S3 credentials are missing."""
        program = shutil.which("restic")
        if program is None:
            raise SettingsError(["restic is not installed; run: apt-get install restic"])
        place, found = rules.place(settings), {}
        if place.startswith("s3:"):
            found = _credentials(rules.s3(settings))
        return cls(
            program=program,
            place=place,
            key=rules.key(settings),
            cache=settings.home / "data" / "restic-cache",
            credentials=found,
        )

    async def open(self) -> bool:
        """Make the repository and its key when there is neither; whether it was made.

        Raises BackupError: a repository without its key, or that cannot be reached.
        """
        there = self.key.is_file()
        if there:
            self._check_key()
            done = await self._run(["cat", "config"], SHORT_S)
            if done.code == 0:
                return False
            if not any(word in done.err for word in NONE):
                raise self._error(done)
        elif self._begun():
            raise BackupError(
                f"there are backups in {self.place} and their key is not in {self.key}: bring it "
                "back from where you kept it, or name another repository in backup.toml"
            )
        else:
            _new_key(self.key)
        done = await self._run(["init"], SHORT_S)
        if done.code:
            if not there:
                self.key.unlink(missing_ok=True)
            raise self._error(done)
        return True

    async def backup(
        self,
        cwd: Path,
        paths: Sequence[str],
        *,
        version: str,
        counts: Mapping[str, int],
        without: Sequence[str],
        tell: Callable[[int], Awaitable[None]],
    ) -> Written:
        """A snapshot of `paths`, those of `cwd` by relative names. counts: are said in the list of
        snapshots; tell: gets how many per cent are done. Raises BackupError.
        """
        line = ["backup", "--json", "--tag", TAG, "--tag", f"version={version}", "--exclude-caches"]
        for name, number in counts.items():
            line += ["--tag", f"{COUNT}{name}={number}"]
        for path in without:
            line += ["--exclude", path]
        percent = 0

        async def heard(said: str) -> None:
            nonlocal percent
            found = _row(said)
            if found.get("message_type") != "status":
                return
            now = int(100 * float(found.get("percent_done", 0)))
            if now >= percent + STEP_PERCENT:
                percent = now
                await tell(now)

        done = await self._free([*line, "--", *paths], LONG_S, cwd, heard)
        rows = [row for row in map(_row, done.out.splitlines()) if row]
        found = [row for row in rows if row.get("message_type") == "summary"]
        if done.code not in {0, 3} or not found:
            raise self._error(done)
        # 3: a file went away while it was read, which is what workspaces do.
        return Written(
            id=str(found[-1]["snapshot_id"])[:8],
            size_bytes=int(found[-1].get("total_bytes_processed", 0)),
        )

    async def snapshots(self) -> list[Snapshot]:
        """Oldest first. Raises BackupError, NotFoundError without a repository."""
        self._check_key()
        done = await self._run(["snapshots", "--json", "--tag", TAG, "--no-lock"], SHORT_S)
        if done.code:
            raise self._error(done)
        return sorted(map(_snapshot, json.loads(done.out) or []), key=lambda one: one.at)

    async def find(self, wanted: str) -> Snapshot:
        """The snapshot of that id, or the `latest`. Raises NotFoundError."""
        known = await self.snapshots()
        found = [one for one in known if wanted == "latest" or one.id == wanted[:8]]
        if not found:
            raise NotFoundError(f"no snapshot {wanted} in {self.place}; see: ai-infra backup list")
        return found[-1]

    async def restore(self, snapshot: str, target: Path, include: Sequence[str]) -> None:
        """Raises BackupError: damaged, no space, or a file that could not be written."""
        line = ["restore", snapshot, "--target", str(target), "--no-lock"]
        for path in include:
            line += ["--include", path]
        done = await self._run(line, LONG_S)
        if done.code or "ignoring error for" in done.err:
            raise self._error(done)

    async def read(self, snapshot: str, path: str) -> bytes:
        """A small file of a snapshot. Raises BackupError."""
        done = await self._run(["dump", "--no-lock", snapshot, path], SHORT_S)
        if done.code:
            raise self._error(done)
        return done.out.encode()

    async def check(self, *, whole: bool) -> None:
        """That the repository is sound; `whole`: every byte is read. Raises BackupError."""
        self._check_key()
        done = await self._free(["check", *(["--read-data"] if whole else [])], LONG_S)
        if done.code:
            faults = [line for line in done.err.splitlines() if "error" in line.casefold()]
            told = self._error(done)
            said = "; ".join(line.strip() for line in faults[:3]) or str(told)
            raise BackupError(f"the repository {self.place} is damaged: {said}") from told

    async def forget(self, *, daily: int, weekly: int, monthly: int) -> None:
        """Let old snapshots go and give their room back. All of the last day stay: one made by
        hand does not cost that of the night before. Raises BackupError.
        """
        line = ["forget", "--prune", "--tag", TAG, "--group-by", "host", "--keep-within", "1d"]
        for name, number in (("daily", daily), ("weekly", weekly), ("monthly", monthly)):
            if number:
                line += [f"--keep-{name}", str(number)]
        done = await self._free(line, LONG_S)
        if done.code:
            raise self._error(done)

    # Inside --------------------------------------------------------------------------------

    async def _free(
        self,
        line: Sequence[str],
        deadline_s: float,
        cwd: Path = Path("/"),
        heard: Heard | None = None,
    ) -> Done:
        """`_run`, once more after removing the locks of programs that ended."""
        done = await self._run(line, deadline_s, cwd, heard)
        if done.code and "already locked" in done.err:
            await self._run(["unlock"], SHORT_S)
            done = await self._run(line, deadline_s, cwd, heard)
        return done

    async def _run(
        self,
        line: Sequence[str],
        deadline_s: float,
        cwd: Path = Path("/"),
        heard: Heard | None = None,
    ) -> Done:
        self.cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place, options = _address(self.place)
        environment = {
            "HOME": os.environ.get("HOME", "/root"),
            "RESTIC_REPOSITORY": place,
            "RESTIC_PASSWORD_FILE": str(self.key),
            "RESTIC_CACHE_DIR": str(self.cache),
            "GOMAXPROCS": "2",
            "RESTIC_PROGRESS_FPS": "0.5",  # else it says sixty times a second how far it is
            **self.credentials,
        }
        argv = [self.program, *options, *line]
        return await run(argv, deadline_s=deadline_s, environment=environment, cwd=cwd, heard=heard)

    def _begun(self) -> bool:
        return self.place.startswith("/") and (Path(self.place) / "config").exists()

    def _check_key(self) -> None:
        if not self.key.is_file():
            if self._begun():
                raise BackupError(f"the key of the backups is not in {self.key}: bring it back")
            raise NotFoundError(f"no backup yet in {self.place}; make one: ai-infra backup create")
        if self.key.stat().st_mode & 0o077:
            raise SettingsError([f"{self.key} may be read by others; run: chmod 600 {self.key}"])

    def _error(self, done: Done) -> BackupError | NotFoundError:
        said = done.err.casefold()
        if any(word.casefold() in said for word in NONE) and "config" in said:
            return NotFoundError(f"no repository at {self.place}; make one: ai-infra backup create")
        for marks, told in TELLING:
            if any(mark in said for mark in marks):
                return BackupError(told.format(key=self.key, place=self.place))
        if ssh := [line for line in done.err.splitlines() if line.startswith(SSH)]:
            told = ssh[-1].removeprefix(SSH).strip().rstrip(".")
            return BackupError(f"{self.place}: ssh says: {told}; {_try(self.place)}")
        if "unable to start the sftp session" in said:  # restic may end before it hands that on
            return BackupError(f"{self.place}: ssh ended without a word; {_try(self.place)}")
        faults = [line for line in done.err.splitlines() if "ignoring error for" in line]
        return BackupError(f"restic: {faults[0].strip() if faults else done.words}")


def _address(place: str) -> tuple[str, list[str]]:
    """As restic takes it; SFTP never asks for a password at a terminal that is not there."""
    if not place.startswith("sftp://"):
        return place, []
    to, port = _reached(place)
    line = ["ssh", "-o", "BatchMode=yes", *port, to, "-s", "sftp"]
    return f"sftp:{to}:{urlsplit(place).path}", ["-o", f"sftp.command={shlex.join(line)}"]


def _reached(place: str) -> tuple[str, list[str]]:
    """USER@HOST of an SFTP place, and its port as ssh takes it."""
    parts = urlsplit(place)
    user = f"{parts.username}@" if parts.username else ""
    return f"{user}{parts.hostname}", ["-p", str(parts.port)] if parts.port else []


def _try(place: str) -> str:
    """How its owner finds out."""
    to, port = _reached(place)
    who = pwd.getpwuid(os.geteuid()).pw_name
    return f"as {who}, `{shlex.join(['ssh', *port, to])}` must work without a question"


def _credentials(path: Path) -> dict[str, str]:
    names = ("aws_access_key_id", "aws_secret_access_key")
    found = secrets_files.from_file(path.parent, path.name)
    try:
        given = json.loads(found.value.get_secret_value()) if found else {}
        return {name.upper(): str(given[name]) for name in names}
    except (ValueError, KeyError, TypeError) as error:
        told = '{"aws_access_key_id": "…", "aws_secret_access_key": "…"}'
        raise SettingsError([f"{path} must hold {told}: the repository is in S3"]) from error


def _new_key(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(number, "w") as out:
            out.write(secrets.token_urlsafe(32) + "\n")
            out.flush()
            os.fsync(number)
    except OSError as error:
        raise SettingsError([f"cannot write {path}: {error.strerror}"]) from error


def _row(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _snapshot(row: dict[str, Any]) -> Snapshot:
    tags = row.get("tags") or []
    told = dict(tag.partition("=")[::2] for tag in tags)
    size_bytes = (row.get("summary") or {}).get("total_bytes_processed")
    return Snapshot(
        id=str(row["short_id"]),
        at=datetime.fromisoformat(row["time"][:19] + _zone(row["time"])),
        host=str(row.get("hostname", "")),
        version=told.get("version", ""),
        size_bytes=None if size_bytes is None else int(size_bytes),
        counts={
            name.removeprefix(COUNT): int(number)
            for name, number in told.items()
            if name.startswith(COUNT) and number.isdecimal()
        },
    )


def _zone(stamp: str) -> str:
    """The zone of Go's RFC 3339, whose nanoseconds Python does not read."""
    if stamp.endswith("Z"):
        return "+00:00"
    return stamp[-6:]
