"""What the broker is allowed: `config/broker.toml`, the owner's file laid over it.

The owner's file names who may speak and what may be touched, so it counts only when nobody but
root (or the user that the broker runs as) can write it.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from base.errors import SettingsError
from base.settings import Settings
from base.verb_words import Name
from base.verbs import VERBS
from provision.box import Box
from provision.verb import Approval, Verb

SHIPPED = Path(__file__).resolve().parent.parent / "config" / "broker.toml"
#: Beside the owner's file, which is laid over it: what the installer was told of this machine.
INSTALLED = "broker.installed.toml"
UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@-]*\.(service|target|timer|socket)")
OWN_UNIT = "ai-provision.service"
PEER = re.compile(r"@?[a-z_][a-z0-9_-]{0,30}")
#: Said by other keys of the file.
NOT_BOX = frozenset({"root", "config", "units", "containers"})
STRICT = ConfigDict(frozen=True, extra="forbid")


class Peers(BaseModel):
    """Names of users, or "@group"."""

    model_config = STRICT

    people: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()

    @field_validator("people", "agents")
    @classmethod
    def _named(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not PEER.fullmatch(name):
                raise ValueError(f'{name!r} must be the name of a user, or "@group"')
        return names


class Rule(BaseModel):
    """What the file says about one verb; None: as the verb says itself. automatic: an agent may
    get leave for it by a rule of approvals.toml, of which the agents' account tells.
    """

    model_config = STRICT

    enabled: bool = True
    approval: Approval | None = None
    automatic: bool = False
    deadline_s: float | None = Field(default=None, gt=0, le=86_400)


class _File(BaseModel):
    model_config = STRICT

    units: tuple[Name, ...] = ()
    containers: tuple[Name, ...] = ()
    peers: Peers = Peers()
    box: dict[str, Any] = Field(default_factory=dict)
    verbs: dict[str, Rule] = Field(default_factory=dict)

    @field_validator("units")
    @classmethod
    def _units(cls, units: tuple[str, ...]) -> tuple[str, ...]:
        for unit in units:
            if not UNIT.fullmatch(unit):
                raise ValueError(f"{unit!r} must be a unit with its ending, as in nginx.service")
            if unit == OWN_UNIT:
                raise ValueError(f"{unit} is the broker itself")
        return units

    @field_validator("verbs")
    @classmethod
    def _known(cls, verbs: dict[str, Rule]) -> dict[str, Rule]:
        for name in verbs:
            if name not in VERBS:
                raise ValueError(f"there is no verb {name!r}; there are: {', '.join(VERBS)}")
        return verbs


class Rules(BaseModel):
    """The whole file, read. Make it with `load`."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    peers: Peers
    box: Box
    verbs: Mapping[str, Rule]

    def of(self, verb: Verb[Any]) -> Verb[Any]:
        """The verb as the file has it. Raises SettingsError where that cannot be."""
        rule = self.verbs.get(verb.name)
        if rule is None:
            return verb
        if rule.approval == "none" and verb.alone:
            raise SettingsError(
                [f'verbs."{verb.name}".approval: it changes the machine: admin or person']
            )
        return replace(
            verb,
            approval=rule.approval or verb.approval,
            deadline_s=rule.deadline_s or verb.deadline_s,
        )

    def enabled(self, name: str) -> bool:
        """Whether the file lets anybody ask for it."""
        return name not in self.verbs or self.verbs[name].enabled

    def automatic(self, name: str) -> bool:
        """Whether a rule of approvals.toml may give an agent leave for it."""
        return name in self.verbs and self.verbs[name].automatic


def load(path: Path, box: Box = Box()) -> Rules:
    """The shipped rules, over them the installer's file beside `path`, over that the owner's file
    at `path`; `box` with what they say.

    A file that is not there says nothing. Raises SettingsError naming the file and field of
    every fault.
    """
    merged = _read(SHIPPED)
    for one in (path.with_name(INSTALLED), path):
        if one.exists() or one.is_symlink():
            if fault := exposed(one):
                raise SettingsError([f"{one}: {fault}"])
            merged = _over(merged, _read(one))
    try:
        file = _File.model_validate(merged)
    except ValidationError as error:
        raise SettingsError([f"{path}: {one}" for one in _told(error)]) from None
    given, faults = _box(file.box)
    if faults:
        raise SettingsError([f"{path}: {one}" for one in faults])
    whole = replace(box, **given, units=file.units, containers=file.containers)
    return Rules(peers=file.peers, box=whole, verbs=file.verbs)


def here(settings: Settings) -> Rules:
    """Those of this machine. Raises SettingsError."""
    return load(settings.broker_config, Box(inbox=settings.inbox))


def exposed(path: Path) -> str | None:
    """Who else could put something else in the place of `path`, in words; None: nobody but root
    and ourselves.
    """
    ours = {0, os.geteuid()}
    named, real = path.absolute(), path.resolve()
    for place in dict.fromkeys((named, *named.parents, real, *real.parents)):
        try:
            found = place.lstat()
        except FileNotFoundError:
            continue
        if found.st_uid not in ours:
            return f"{place} belongs to user {found.st_uid}, who could change what root relies on"
        loose = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if stat.S_ISLNK(found.st_mode):  # its mode says nothing
            continue
        if loose and not (place.is_dir() and found.st_mode & stat.S_ISVTX):
            return f"{place} can be written by others; run: chmod go-w {place}"
    return None


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Tables key by key, all else whole."""
    merged = dict(below)
    for key, value in above.items():
        was = merged.get(key)
        merged[key] = (
            {**was, **value} if isinstance(was, dict) and isinstance(value, dict) else value
        )
    return merged


def _box(table: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    kinds = {one.name: one.type for one in fields(Box) if one.name not in NOT_BOX}
    found: dict[str, Any] = {}
    faults = []
    types: dict[str, Any] = {
        "Path": Path,
        "Path | None": Path | None,
        "str": str,
        "str | None": str | None,
        "int": int,
        "tuple[str, ...]": tuple[str, ...],
        "tuple[Path, ...]": tuple[Path, ...],
    }
    for key, value in table.items():
        if key not in kinds:
            faults.append(f"box.{key}: unknown; there are: {', '.join(kinds)}")
            continue
        try:
            found[key] = TypeAdapter(types[str(kinds[key])]).validate_python(value)
        except ValidationError as error:
            faults += [f"box.{key}: {one['msg']}" for one in _plain(error)]
            continue
        paths = found[key] if isinstance(found[key], tuple) else (found[key],)
        if any(isinstance(one, Path) and not one.is_absolute() for one in paths):
            faults.append(f"box.{key}: must be absolute")
    return found, faults


def _told(error: ValidationError) -> list[str]:
    return [
        f"{'.'.join(str(part) for part in one['loc'])}: "
        + str(one["msg"]).removeprefix("Value error, ")
        for one in _plain(error)
    ]


def _plain(error: ValidationError) -> list[Any]:
    return list(error.errors(include_input=False, include_url=False))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError([f"{path}: {error}"]) from error
