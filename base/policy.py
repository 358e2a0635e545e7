"""Which requests are approved without a person: `config/approvals.toml`, the owner's laid over."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from base.errors import SettingsError
from base.levels import ELEVATED, PRIVILEGED
from base.settings import Settings

SHIPPED = Path(__file__).resolve().parent.parent / "config" / "approvals.toml"
#: A wildcard stands before two labels at least: `*.tld` would be half of the world.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
HOST = re.compile(rf"(?:\*(?:\.{_LABEL}){{2,}}|{_LABEL}(?:\.{_LABEL})*):[1-9][0-9]{{0,4}}")


class Rule(BaseModel):
    """One kind of request that is approved by itself. None: any; empty: as the field says.

    hosts: a request that names a host needs one here. verbs: see `gate.verb`. tools: a command of
    the shell needs to be named here, so that a verb of the broker is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tool", "domain", "command"]
    enabled: bool = True
    agents: tuple[str, ...] | None = None
    level_max: int = Field(default=0, ge=0, le=ELEVATED)
    hosts: tuple[str, ...] = ()
    tools: tuple[str, ...] | None = None
    verbs: tuple[str, ...] | None = None
    destructive: bool = False

    @field_validator("hosts")
    @classmethod
    def _exact(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not HOST.fullmatch(host):
                raise ValueError(f'{host!r} must be "host:port" or "*.name.tld:port"')
        return hosts

    @model_validator(mode="after")
    def _narrow(self) -> Rule:
        if self.kind == "domain" and not self.hosts:
            raise ValueError("a rule for domains names its hosts")
        if self.kind == "tool" and not self.tools:
            raise ValueError("a rule for tools names them")
        if self.kind == "command" and not self.verbs:
            raise ValueError("a rule for commands names their verbs")
        return self


class Policy(BaseModel):
    """The whole file. Build it with `load`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expires_s: float = Field(default=600.0, gt=0, le=86_400)
    open_max: int = Field(default=5, ge=1)
    per_minute: int = Field(default=5, ge=1)
    denials_max: int = Field(default=2, ge=1)
    level_max: int = Field(default=PRIVILEGED, ge=0, le=PRIVILEGED)
    auto: dict[str, Rule] = Field(default_factory=dict)


def load(settings: Settings | None = None) -> Policy:
    """The shipped policy with the owner's laid over, rule by rule and key by key.

    Raises SettingsError naming the file and field of every fault.
    """
    path, table = SHIPPED, _read(SHIPPED)
    if settings is not None and (settings.config / "approvals.toml").exists():
        path = settings.config / "approvals.toml"
        own = _read(path)
        rules = dict(table.get("auto", {}))
        own_rules = own.get("auto", {})
        if not isinstance(own_rules, dict):
            raise SettingsError([f"{path}: auto: must be tables, [auto.<name>]"])
        for name, rule in own_rules.items():
            below = rules.get(name, {})
            rules[name] = {**below, **rule} if isinstance(rule, dict) else rule
        table = {**table, **own, "auto": rules}
    try:
        return Policy.model_validate(table)
    except ValidationError as error:
        raise SettingsError(
            [
                f"{path}: {'.'.join(str(part) for part in one['loc'])}: "
                + str(one["msg"]).removeprefix("Value error, ")
                for one in error.errors(include_input=False, include_url=False)
            ]
        ) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError([f"{path}: {error}"]) from error
