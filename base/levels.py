"""Permission levels: what each lets an agent read, write, run and reach. `config/levels.toml`.

The owner's `$AI_INFRA_HOME/config/levels.toml` is laid over the shipped file key by key, and may
add named levels: each says which shipped level it stands `above` and what it changes of it.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from base.errors import SettingsError
from base.settings import Settings

SHIPPED = Path(__file__).resolve().parent.parent / "config" / "levels.toml"
RESTRICTED, STANDARD, ELEVATED, PRIVILEGED = 0, 1, 2, 3
#: The shipped levels by rank.
NAMES = ("restricted", "standard", "elevated", "privileged")
NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
#: Stands in `network` for the package indexes that pip and npm are configured to use.
PACKAGE_INDEXES = "package-indexes"
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
NETWORK = re.compile(rf"(?:\*|(?:\*\.)?{_LABEL}(?:\.{_LABEL})*):([1-9][0-9]{{0,4}})")
PORT_MAX = 65_535
#: Never part of a level: the kernel's own trees, and where sockets and processes are found.
CLOSED = ("/proc", "/sys", "/dev", "/run", "/var/run", "/boot", "/root")


class Limits(BaseModel):
    """What one task may use: of the machine in all, and `wall_s` for a single call.

    file_bytes: the largest file it can write; scratch_bytes: its private /tmp.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_bytes: int = Field(ge=64_000_000)
    processes: int = Field(ge=8)
    cpu_s: int = Field(ge=1)
    file_bytes: int = Field(ge=0)
    open_files: int = Field(ge=32)
    scratch_bytes: int = Field(ge=1_000_000)
    wall_s: int = Field(ge=1)


class Level(BaseModel):
    """What one permission level means, beside the workspace and the system's own programs.

    read, write: absolute folders; network: "host:port", "*.suffix:port", "*:port", or
    "package-indexes". Rank 0 neither writes nor executes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rank: int = Field(ge=RESTRICTED, le=PRIVILEGED)
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    workspace: Literal["read", "write"] = "read"
    execute: bool = False
    network: tuple[str, ...] = ()
    limits: Limits

    @field_validator("read", "write")
    @classmethod
    def _folders(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if fault := path_fault(path):
                raise ValueError(f"{path!r} {fault}")
        return paths

    @field_validator("network")
    @classmethod
    def _addresses(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        for rule in rules:
            match = NETWORK.fullmatch(rule)
            if rule != PACKAGE_INDEXES and (match is None or int(match[1]) > PORT_MAX):
                raise ValueError(
                    f'{rule!r} must be "host:port", "*.suffix:port", "*:port" '
                    f'or "{PACKAGE_INDEXES}", in lower case'
                )
        return rules

    @model_validator(mode="after")
    def _lowest(self) -> Level:
        if self.rank == RESTRICTED and (self.execute or self.write or self.workspace == "write"):
            raise ValueError("a level of rank 0 neither writes nor executes")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Every level by name, and the highest rank of each user role. Build it with `load`."""

    known: Mapping[str, Level]
    users: Mapping[str, int]

    @classmethod
    def load(cls, settings: Settings | None = None) -> Levels:
        """The shipped levels with the owner's laid over; None reads the shipped ones alone.

        Raises SettingsError naming the file and field of every fault.
        """
        faults: list[str] = []
        tables = _sections(SHIPPED, _read(SHIPPED, required=True), faults)
        users = dict(tables["users"])
        shipped = {name: {**table, "name": name} for name, table in tables["levels"].items()}
        merged = dict(shipped)
        path = SHIPPED
        if settings is not None:
            path = settings.config / "levels.toml"
            own = _sections(path, _read(path), faults)
            users |= own["users"]
            changed = sorted(own["levels"].items(), key=lambda pair: pair[0] not in shipped)
            for name, table in changed:  # shipped ones first: what stands above has the change
                given = _laid(merged, name, table)
                if isinstance(given, str):
                    faults.append(f"{path}: levels.{name}: {given}")
                else:
                    merged[name] = given
        known: dict[str, Level] = {}
        for name, table in merged.items():
            try:
                known[name] = Level.model_validate(table)
            except ValidationError as error:
                faults += [f"{path}: levels.{name}{one}" for one in _told(error)]
        faults += [
            f"{path}: users.{role}: {rank!r} must be a rank, {RESTRICTED} to {PRIVILEGED}"
            for role, rank in users.items()
            if type(rank) is not int or not RESTRICTED <= rank <= PRIVILEGED
        ]
        if settings is not None:
            faults += _state_faults(path, own["levels"], str(settings.home))
        if faults:
            raise SettingsError(faults)
        return cls(known=known, users=users)

    def get(self, name_or_rank: str | int) -> Level:
        """The level of that name, or the shipped one of that rank. Raises SettingsError."""
        name = name_or_rank
        if isinstance(name, int):
            name = NAMES[name] if 0 <= name < len(NAMES) else str(name)
        if name not in self.known:
            known = ", ".join(self.known)
            raise SettingsError([f"no permission level {name_or_rank!r}; there are: {known}"])
        return self.known[name]

    def user(self, role: str | None) -> int:
        """The highest rank of a user of that role; one that is not configured has none."""
        return self.users.get(role or "", RESTRICTED)

    def least(self, *ranks: int) -> int:
        """The lowest of those ranks; without any, the lowest there is."""
        return min(ranks, default=RESTRICTED)

    def working(self, own: str | int, rank: int) -> Level:
        """The level an agent works at: its `own` when an order's `rank` covers it, else the
        shipped one of that rank.
        """
        level = self.get(own)
        return level if rank >= level.rank else self.get(rank)


def _laid(known: Mapping[str, dict[str, Any]], name: str, table: Any) -> dict[str, Any] | str:
    """The owner's `table` over the level it changes or stands above; a text is its fault.

    `known`: the levels so far, the shipped ones with what the owner changed of them.
    """
    if not NAME.fullmatch(name):
        return f"the name must match {NAME.pattern}"
    if not isinstance(table, dict):
        return "must be a table"
    table = dict(table)
    if "rank" in table or "name" in table:
        return 'rank and name cannot be set; a new level says `above = "<shipped level>"`'
    if name in NAMES:
        if "above" in table:
            return "a shipped level stands above none; leave `above` out"
        below = known[name]
    else:
        above = table.pop("above", None)
        if above not in NAMES:
            return f"above: {above!r} must be one of {', '.join(NAMES)}"
        below = known[above]
    limits = table.get("limits", {})
    if not isinstance(limits, dict):
        return "limits: must be a table"
    return {**below, **table, "name": name, "limits": {**below["limits"], **limits}}


def _state_faults(path: Path, tables: Mapping[str, Any], home: str) -> list[str]:
    """Folders the owner names that hold, or lie in, the product's own state. A shipped folder
    that happens to hold it is no fault: the hands leave that state out at every level.
    """
    return [
        f"{path}: levels.{name}.{field}: {folder!r} is or holds the product's own state"
        for name, table in tables.items()
        if isinstance(table, dict)
        for field in ("read", "write")
        for folder in (table[field] if isinstance(table.get(field), list) else ())
        if isinstance(folder, str) and (_within(folder, home) or _within(home, folder))
    ]


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def path_fault(path: str) -> str | None:
    """Why a folder cannot be part of a level; None when it can."""
    if not path.startswith("/") or "\0" in path or posixpath.normpath(path) != path:
        return "must be an absolute path in its plainest form"
    if path == "/" or any(_within(path, closed) for closed in CLOSED):
        return "cannot be part of a level"
    return None


def _sections(path: Path, table: dict[str, Any], faults: list[str]) -> dict[str, dict[str, Any]]:
    sections: dict[str, dict[str, Any]] = {"users": {}, "levels": {}}
    for key, value in table.items():
        if key not in sections:
            faults.append(f"{path}: {key}: unknown; there are users and levels")
        elif not isinstance(value, dict):
            faults.append(f"{path}: {key}: must be a table")
        else:
            sections[key] = value
    return sections


def _told(error: ValidationError) -> list[str]:
    return [
        "".join(f".{part}" for part in one["loc"]) + f": {one['msg']}"
        for one in error.errors(include_input=False, include_url=False)
    ]


def _read(path: Path, *, required: bool = False) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if required:
            raise SettingsError([f"{path} is missing; the checkout is incomplete"]) from error
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError([f"{path}: {error}"]) from error
