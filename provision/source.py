"""Where new versions come from: `update.toml` of /etc/ai-infra, root's alone.

source = "/srv/releases"                # folders <version>/, or ai-infrastructure-<version>.tar.gz
source = "https://host/path.git"        # its tag v<version> or <version>
keep = 3                                # how many releases stay
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import stat
import tarfile
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from base.backup.command import run
from base.errors import BackupError, InputError, NotFoundError, SettingsError

NAME = "ai-infrastructure"
GIT_S = 600.0
#: All accounts read a release, whatever the broker's umask is.
OPEN = ("/bin/sh", "-c", 'umask 022; exec "$@"', "sh")
#: How this machine reaches others, as its owner told the broker's unit.
WAY_OUT = {
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
}  # fmt: skip
#: What of a checkout is no part of a release.
LEFT = (".git", ".venv", "__pycache__", "*.egg-info", ".pytest_cache", ".ruff_cache", ".mypy_cache")


class Origin(BaseModel):
    """source: an absolute folder, or an address that git takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        min_length=1, max_length=1_000, pattern=r"^(/|https://|file:///|ssh://)\S*$"
    )
    keep: int = Field(default=3, ge=2, le=50)


def load(path: Path) -> Origin:
    """Raises SettingsError: not there, not root's alone, or wrong."""
    try:
        found = path.stat()
        if found.st_uid not in {0, os.geteuid()} or stat.S_IMODE(found.st_mode) & 0o022:
            raise SettingsError([f"{path} may be written by others; run: chmod 600 {path}"])
        return Origin.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        told = f'{path} does not say where from; write into it: source = "/a/folder/of/releases"'
        raise SettingsError([told]) from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path}: {error}"]) from error
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise SettingsError([f"{path}: {where}: {fault['msg']}"]) from None


def way_out() -> dict[str, str]:
    """Of this process's environment, for a program that fetches something."""
    return {key: value for key, value in os.environ.items() if key.upper() in WAY_OUT}


async def fetch(origin: Origin, version: str, into: Path) -> None:
    """The product's files of that version into the new folder `into`.

    Raises NotFoundError: the source has no such version; InputError: what it has is another one,
    or an archive that reaches out of its folder or is not what its `.sha256` says.
    """
    if origin.source.startswith("/"):
        await asyncio.to_thread(_from_folder, Path(origin.source), version, into)
    else:
        await _from_git(origin.source, version, into)
    found = version_of(into)
    if found != version:
        raise InputError(f"{origin.source} has {found or 'no product'} where {version} should be")


def version_of(folder: Path) -> str | None:
    """What its pyproject.toml says; None: there is none."""
    try:
        told = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        return str(told["project"]["version"])
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, UnicodeDecodeError):
        return None


def _from_folder(source: Path, version: str, into: Path) -> None:
    folder, archive = source / version, source / f"{NAME}-{version}.tar.gz"
    if folder.is_dir():
        shutil.copytree(folder, into, symlinks=True, ignore=shutil.ignore_patterns(*LEFT))
    elif archive.is_file():
        _unpack(archive, into)
    else:
        raise NotFoundError(
            f"no version {version} in {source}: neither {folder.name}/ nor an archive"
        )


def _unpack(archive: Path, into: Path) -> None:
    said = archive.with_name(f"{archive.name}.sha256")
    if not said.is_file():
        raise InputError(f"{said} is missing: sha256sum {archive.name} > {said.name}")
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if said.read_text(encoding="utf-8").split()[:1] != [digest]:
        raise InputError(f"{archive} is not what {said.name} says")
    beside = into.with_name(f"{into.name}.unpacked")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(beside, filter="data")
        inside = [path for path in beside.iterdir() if (path / "pyproject.toml").is_file()]
        (inside[0] if inside else beside).rename(into)
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{archive} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


async def _from_git(url: str, version: str, into: Path) -> None:
    for tag in (f"v{version}", version):
        line = [*OPEN, "git", "-c", "advice.detachedHead=false", "clone", "--quiet", "--depth", "1"]
        line += ["--branch", tag, "--", url, str(into)]
        environment = {"GIT_TERMINAL_PROMPT": "0", "HOME": "/root", **way_out()}
        try:
            done = await run(line, deadline_s=GIT_S, environment=environment)
        except BackupError as error:
            raise NotFoundError(str(error)) from error
        if done.code == 0:
            shutil.rmtree(into / ".git", ignore_errors=True)
            return
        shutil.rmtree(into, ignore_errors=True)
    raise NotFoundError(f"no version {version} at {url}: {done.words}")
