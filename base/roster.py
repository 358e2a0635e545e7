"""The roster: every agent is a TOML file, shipped in `config/agents/` or dropped by the owner
into `$AI_INFRA_HOME/config/agents/`.

A file of the owner's with the name of a shipped one is laid over it key by key. A bad file is
one fault that names the file and the field; every other agent still loads.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, field_validator

from base.errors import SettingsError, UnknownAgentError
from base.levels import Levels
from base.settings import Settings

SHIPPED = Path(__file__).resolve().parent.parent / "config" / "agents"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
#: Names that windows or services of ours already have.
RESERVED = frozenset({"supervisor", "monitor", "logs", "watch"})
SUPERVISOR = "supervisor"
#: Window order of the shipped agents; others follow by name.
SHIPPED_ORDER = ("code", "data", "infra", "research", "qa")


class AgentSpec(BaseModel):
    """One agent as data. `name` is the file's stem.

    capabilities: lower-case words that routing matches against a subtask; level: the highest
    permission level the agent may work at, a rank (0-3) or a name of levels.toml; model: None
    leaves the choice to models.toml; daily_usd: what it may spend a day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str = Field(min_length=1, max_length=80)
    capabilities: tuple[str, ...] = Field(min_length=1)
    level: StrictInt | str = 0
    tools: tuple[str, ...] = ()
    model: str | None = None
    prompt: str = Field(min_length=1)
    daily_usd: float = Field(20.0, gt=0)

    @field_validator("capabilities")
    @classmethod
    def _lower(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(word.strip().lower() for word in words if word.strip()))


class Roster(BaseModel):
    """The agents that loaded, the supervisor's own entry, and what is wrong with the rest."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    agents: Mapping[str, AgentSpec]
    supervisor: AgentSpec
    faults: tuple[str, ...] = ()

    def get(self, name: str) -> AgentSpec:
        """The agent of that name. Raises UnknownAgentError, which lists those there are."""
        try:
            return self.agents[name]
        except KeyError:
            raise UnknownAgentError(name, tuple(self.agents)) from None


def load(settings: Settings | None = None) -> Roster:
    """Shipped agents with the owner's laid over; None reads the shipped ones alone.

    Never raises for a bad file of the owner's: see `faults`. `agents` is in window order.
    """
    faults: list[str] = []
    levels = _levels(settings, faults)
    raw: dict[str, dict[str, Any]] = {}
    folders = [SHIPPED, *([settings.config / "agents"] if settings else [])]
    for folder in folders:
        for path in sorted(folder.glob("*.toml")):
            name = path.stem
            if fault := _name_fault(name):
                faults.append(f"{path}: name: {fault}")
                continue
            try:
                table = tomllib.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                faults.append(f"{path}: {error}")
                continue
            if table.pop("name", name) != name:
                faults.append(f"{path}: name: must be the file's own name, {name!r}")
                continue
            candidate = {**raw.get(name, {}), **table}
            if fault := _spec_fault(name, candidate, levels):
                faults.append(f"{path}: {fault}")
                continue
            raw[name] = candidate
    specs = {name: AgentSpec(name=name, **table) for name, table in raw.items()}
    supervisor = specs.pop(SUPERVISOR)
    order = [name for name in SHIPPED_ORDER if name in specs]
    order += sorted(specs.keys() - set(order))
    return Roster(
        agents=MappingProxyType({name: specs[name] for name in order}),
        supervisor=supervisor,
        faults=tuple(faults),
    )


def _name_fault(name: str) -> str | None:
    if not NAME.fullmatch(name):
        return f"{name!r} must match {NAME.pattern}"
    if name in RESERVED and name != SUPERVISOR:  # its prompt may be edited like any other
        return f"{name!r} is reserved"
    return None


def _levels(settings: Settings | None, faults: list[str]) -> Levels:
    """The levels that agents may name: the shipped ones alone when the owner's are faulty."""
    try:
        return Levels.load(settings)
    except SettingsError as error:
        faults += error.faults
        return Levels.load()


def _spec_fault(name: str, table: dict[str, Any], levels: Levels) -> str | None:
    try:
        levels.get(AgentSpec(name=name, **table).level)
    except SettingsError as error:
        return f"level: {'; '.join(error.faults)}"
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return None
