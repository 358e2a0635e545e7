"""The MCP servers that the owner gives to agents: `$AI_INFRA_HOME/config/mcp.toml`.

A fault names file and field. A bad server is left out and every other one still loads.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from base.levels import NETWORK, Level, Levels, path_fault
from base.redact import redact
from base.settings import Settings

SHIPPED = Path(__file__).resolve().parent.parent / "config" / "mcp.toml"
#: No underscore: in `mcp__SERVER__TOOL` it must be plain where the server's name ends.
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
#: Headers that the client writes itself.
OWN_HEADERS = frozenset({"host", "accept", "connection", "content-type", "content-length"})


class Rule(BaseModel):
    """What the owner says about one tool. level None: the server's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: int | None = Field(None, ge=0, le=3)
    enabled: bool = True


class Server(BaseModel):
    """One server: `command` starts it in a sandbox, or `url` is where it listens.

    level: rank of its tools, and the most its sandbox may have; hosts: all that a started server
    can reach; read: folders it sees beside those of the level; limit_s: the longest call;
    secrets: header → name of the secret, sent to `url` by the agent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    command: tuple[str, ...] = ()
    url: str | None = None
    agents: tuple[str, ...] = Field(min_length=1)
    level: int = Field(1, ge=0, le=3)
    limit_s: float = Field(60.0, gt=0, le=3600)
    tools: dict[str, Rule] = {}
    environment: dict[str, str] = {}
    secrets: dict[str, str] = {}
    hosts: tuple[str, ...] = ()
    read: tuple[str, ...] = ()

    @field_validator("command")
    @classmethod
    def _arguments(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if any("\0" in word for word in command) or not (command[0] if command else "x").strip():
            raise ValueError("must be a program and its arguments")
        if any(redact(word) != word for word in command):
            raise ValueError("holds a secret, which no started server is given")
        return command

    @field_validator("url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or _port(parts) is None:
            raise ValueError("must be an https:// address")
        if parts.username or parts.password or redact(url) != url:
            raise ValueError("holds a secret; name it in `secrets`")
        if parts.scheme == "http" and not _loopback(parts.hostname):
            raise ValueError("must be https, except on this machine's own loopback address")
        return url

    @field_validator("environment")
    @classmethod
    def _variables(cls, given: dict[str, str]) -> dict[str, str]:
        for name, value in given.items():
            if not VARIABLE.fullmatch(name) or "\0" in value:
                raise ValueError(f"{name!r} is no variable")
            if redact(f"{name}={value}") != f"{name}={value}":
                raise ValueError(f"{name} holds a secret, which no started server is given")
        return given

    @field_validator("secrets")
    @classmethod
    def _headers(cls, given: dict[str, str]) -> dict[str, str]:
        for header in given:
            low = header.lower()
            if not HEADER.fullmatch(header) or low in OWN_HEADERS or low.startswith("mcp-"):
                raise ValueError(f"{header!r} is no header that may be set")
        return given

    @field_validator("hosts")
    @classmethod
    def _reachable(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not NETWORK.fullmatch(host):
                raise ValueError(f'{host!r} must be "host:port"')
        return hosts

    @field_validator("read")
    @classmethod
    def _folders(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        for folder in folders:
            if fault := path_fault(folder):
                raise ValueError(f"{folder!r} {fault}")
        return folders

    @model_validator(mode="after")
    def _one_way(self) -> Server:
        if bool(self.command) is (self.url is not None):
            raise ValueError("give either `command` or `url`")
        if self.url is not None and (self.environment or self.hosts or self.read):
            raise ValueError("`environment`, `hosts` and `read` are for a server with a `command`")
        if self.command and self.secrets:
            raise ValueError("`secrets` are for a server with a `url`: a sandbox holds none")
        return self

    def rank(self, tool: str) -> int:
        """The least level at which that tool may be called unasked."""
        rule = self.tools.get(tool)
        return self.level if rule is None or rule.level is None else rule.level

    def enabled(self, tool: str) -> bool:
        rule = self.tools.get(tool)
        return rule is None or rule.enabled

    def inside(self, level: Level, levels: Levels) -> Level:
        """What the server's own sandbox allows in a task at `level`: that or the server's, which
        is lower, with the server's folders, and of the network nothing but its hosts.
        """
        lower = level if level.rank <= self.level else levels.get(self.level)
        more = {"network": self.hosts, "read": (*lower.read, *self.read)}
        return lower.model_copy(update=more)


class Servers(BaseModel):
    """The servers that loaded, by name, and what is wrong with the rest."""

    model_config = ConfigDict(frozen=True)

    known: dict[str, Server] = {}
    faults: tuple[str, ...] = ()

    def of(self, agent: str) -> tuple[Server, ...]:
        """The servers whose tools that agent has, by name."""
        return tuple(one for _, one in sorted(self.known.items()) if agent in one.agents)


def load(settings: Settings | None, agents: Iterable[str]) -> Servers:
    """The owner's servers over the shipped (empty) file; `agents` are the names there are.

    Never raises: see `faults`. A server that names an unknown agent is given to the others.
    """
    known: dict[str, Server] = {}
    faults: list[str] = []
    names = frozenset(agents)
    for path in (SHIPPED, *([settings.config / "mcp.toml"] if settings else [])):
        for name, table in _tables(path, faults).items():
            where = f"{path}: servers.{name}"
            if not NAME.fullmatch(name):
                faults.append(f"{where}: the name must match {NAME.pattern}")
                continue
            if not isinstance(table, dict) or "name" in table:
                faults.append(f"{where}: must be a table without `name`")
                continue
            try:
                server = Server(name=name, **table)
            except ValidationError as error:
                faults += [f"{where}{one}" for one in _told(error)]
                continue
            if state := _state(server, settings):
                faults.append(f"{where}.read: {state!r} is or holds the product's own state")
                continue
            known[name] = server
            faults += [
                f"{where}.agents: there is no agent named {one!r}"
                for one in server.agents
                if one not in names
            ]
    return Servers(known=known, faults=tuple(faults))


def _tables(path: Path, faults: list[str]) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        faults.append(f"{path}: {error}")
        return {}
    faults += [f"{path}: {key}: unknown; there is servers" for key in table if key != "servers"]
    servers = table.get("servers", {})
    if not isinstance(servers, dict):
        faults.append(f"{path}: servers: must be a table")
        return {}
    return servers


def _state(server: Server, settings: Settings | None) -> str | None:
    """A folder of `read` that would show the product's own state."""
    for folder in server.read if settings else ():
        home = str(settings.home) if settings else ""
        if f"{folder}/".startswith(f"{home}/") or f"{home}/".startswith(f"{folder}/"):
            return folder
    return None


def _told(error: ValidationError) -> list[str]:
    """Each fault as `.field: what is wrong`; values never appear in it."""
    return [
        "".join(f".{part}" for part in one["loc"]) + f": {one['msg'].removeprefix('Value error, ')}"
        for one in error.errors(include_input=False, include_url=False)
    ]


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
