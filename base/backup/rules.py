"""Where backups go and how long they stay: `config/backup.toml`, the owner's over the shipped.

On the appliance the owner's file and the key are root's, in /etc/ai-infra: who edits the portal's
settings cannot point root's programs elsewhere, and no agent's account can read the key.
"""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from base.errors import SettingsError
from base.settings import Settings

SHIPPED = Path(__file__).resolve().parent.parent.parent / "config" / "backup.toml"
APPLIANCE = Path("/etc/ai-infra")
KEY, S3 = "backup-key", "backup-s3"
#: What the installer makes there, root's alone.
APPLIANCE_KEY, APPLIANCE_PLACE = "backup.key", "/var/backups/ai-infra"


class Keep(BaseModel):
    """How many snapshots stay: the newest of so many days, weeks and months."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    daily: int = Field(ge=1, le=1_000)
    weekly: int = Field(ge=0, le=1_000)
    monthly: int = Field(ge=0, le=1_000)


class Rules(BaseModel):
    """repository: a folder, `sftp://USER@HOST[:PORT]/FOLDER`, or `s3:https://HOST/BUCKET[/PATH]`;
    "": the folder `backups` of the home. key_file, s3_file "": `secrets/backup-key` and
    `secrets/backup-s3` of the home. On the appliance: /var/backups/ai-infra, and `backup.key` and
    `backup-s3` of /etc/ai-infra.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str
    workspaces: bool
    keep: Keep
    key_file: str = ""
    s3_file: str = ""

    @field_validator("repository")
    @classmethod
    def _known(cls, value: str) -> str:
        if value and not value.startswith(("/", "sftp://", "s3:http://", "s3:https://")):
            raise ValueError("a folder (/…), sftp://USER@HOST/FOLDER, or s3:https://HOST/BUCKET")
        if "\0" in value or "\n" in value:
            raise ValueError("not one line")
        return value

    def place(self, settings: Settings) -> str:
        """The repository as restic takes it."""
        own = APPLIANCE_PLACE if settings.broker else str(settings.home / "backups")
        return self.repository or own

    def key(self, settings: Settings) -> Path:
        name = APPLIANCE_KEY if settings.broker else KEY
        return Path(self.key_file) if self.key_file else _folder(settings) / name

    def s3(self, settings: Settings) -> Path:
        return Path(self.s3_file) if self.s3_file else _folder(settings) / S3


def path(settings: Settings) -> Path:
    """The owner's file."""
    return (APPLIANCE if settings.broker else settings.config) / "backup.toml"


def load(settings: Settings) -> Rules:
    """Raises SettingsError: what is wrong in it, or that others may write it."""
    merged = _read(SHIPPED)
    own = path(settings)
    if own.is_file():
        found = own.stat()
        if found.st_uid not in {0, os.geteuid()} or stat.S_IMODE(found.st_mode) & 0o022:
            raise SettingsError([f"{own} may be written by others; run: chmod 600 {own}"])
        theirs = _read(own)
        keep = {**merged["keep"], **theirs.get("keep", {})}
        merged = {**merged, **theirs, "keep": keep}
    try:
        return Rules.model_validate(merged)
    except ValidationError as error:
        raise SettingsError(
            [
                f"backup.toml: {'.'.join(str(part) for part in fault['loc'])}: "
                + str(fault["msg"]).removeprefix("Value error, ")
                for fault in error.errors(include_input=False, include_url=False)
            ]
        ) from None


def _folder(settings: Settings) -> Path:
    return APPLIANCE if settings.broker else settings.secrets


def _read(place: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(place.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{place}: {error}"]) from error
    except OSError as error:
        raise SettingsError([f"{place}: {error.strerror}"]) from error
