"""The files that the owner configures the system with: what each is for, what it says together
with the shipped one, what is wrong with it, and which programs read it only when they start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from base import budgets, mcp, policy, roster, search
from base import settings as settings_file
from base.errors import NotFoundError, SettingsError
from base.levels import Levels
from base.limit import Rates
from base.messages import Wire
from base.prices import Models
from base.settings import Settings
from pai.tiers import Rules

AGENTS = "agents"
SUPERVISOR, MEMORY, WORKERS, PORTAL = "supervisor", "memory", "workers", "portal"
#: Stands for all of it, with the stores: only `ai-infra down` and `up` do that.
EVERYTHING = "everything"
#: Keys of settings.toml that hold a password or say where this very file is.
HIDDEN = frozenset({"home", "redis_url", "postgres_dsn"})
#: Who reads a key of settings.toml at its start; the first pattern that fits counts.
READERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"whisper_\w+", (EVERYTHING,)),  # the window that listens comes and goes with it
    (r"speech_\w+|text_to_speech|transcription_\w+|voice_\w+|piper_\w+|espeak_\w+", (PORTAL,)),
    (r"embed_\w+|rerank_model|sentiment_model", (WORKERS, MEMORY)),
    (r"anthropic_base_url|model_\w+", (SUPERVISOR, AGENTS, PORTAL)),
    (r"hook_s", (AGENTS, SUPERVISOR)),
    (r"public_url|\w+_client_id|oauth_\w+", (PORTAL,)),
)
FIELD = re.compile(r"[A-Za-z0-9_-]+(?:\.[^:\s]+)*")

Reading = tuple[dict[str, Any], Sequence[str]]
Keys = Sequence[tuple[str, ...]]


class Fault(Wire):
    """What is wrong: in which file, at which key ("" for the whole file)."""

    file: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field}: {self.message}" if self.field else self._whole()

    def _whole(self) -> str:
        return f"{self.file}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One of them. path: in the folder of the configuration; read: what it says, with the shipped
    one below it, and its faults; restarts: who reads it only at the start; grave: it says what
    agents may do.
    """

    name: str
    path: str
    about: str
    read: Callable[[Settings], Reading]
    restarts: tuple[str, ...] = ()
    grave: bool = False


def _whole(load: Callable[[Settings], Any]) -> Callable[[Settings], Reading]:
    def read(settings: Settings) -> Reading:
        try:
            found = load(settings)
        except SettingsError as error:
            return {}, error.faults
        dumped: dict[str, Any] = found if isinstance(found, dict) else found.model_dump(mode="json")
        return dumped, ()

    return read


def _settings(settings: Settings) -> dict[str, Any]:
    path = settings.config / "settings.toml"
    return settings_file.check(path).model_dump(mode="json", exclude=set(HIDDEN))


def _models(settings: Settings) -> dict[str, Any]:
    found = Models.load(settings)
    known = {name: model.model_dump(mode="json") for name, model in found.known.items()}
    voices = {name: voice.model_dump(mode="json") for name, voice in found.voices.items()}
    return {"models": known, "voices": voices, "use": found.use.model_dump(mode="json")}


def _levels(settings: Settings) -> dict[str, Any]:
    found = Levels.load(settings)
    known = {name: level.model_dump(mode="json") for name, level in found.known.items()}
    return {"users": dict(found.users), "levels": known}


def _mcp(settings: Settings) -> Reading:
    found = mcp.load(settings, roster.load(settings).agents)
    known = {name: server.model_dump(mode="json") for name, server in found.known.items()}
    return {"servers": known}, found.faults


FILES = {
    file.name: file
    for file in (
        File(
            name="models",
            path="models.toml",
            about="Which model does what, and what each costs",
            read=_whole(_models),
            restarts=(SUPERVISOR, AGENTS),
        ),
        File(
            name="budgets",
            path="budgets.toml",
            about="What a task and a day may cost",
            read=_whole(budgets.load),
            restarts=(SUPERVISOR,),
        ),
        File(
            name="levels",
            path="levels.toml",
            about="What agents may read, write, run and reach at each level",
            read=_whole(_levels),
            restarts=(SUPERVISOR, AGENTS),
            grave=True,
        ),
        File(
            name="approvals",
            path="approvals.toml",
            about="What is approved without a person, and how long a request waits for one",
            read=_whole(policy.load),
            restarts=(SUPERVISOR,),
            grave=True,
        ),
        File(
            name="limits",
            path="limits.toml",
            about="How often users and agents may ask",
            read=_whole(Rates.load),
            restarts=(AGENTS, PORTAL),
            grave=True,
        ),
        File(
            name="memory",
            path="memory.toml",
            about="How much each tier of memory keeps, and how much a task is told",
            read=_whole(Rules.load),
            restarts=(MEMORY,),
        ),
        File(
            name="search",
            path="search.toml",
            about="Where the agents' web search asks",
            read=_whole(search.endpoint),
        ),
        File(
            name="mcp",
            path="mcp.toml",
            about="MCP servers whose tools agents get",
            read=_mcp,
            restarts=(AGENTS,),
            grave=True,
        ),
        File(
            name="settings",
            path="settings.toml",
            about="Voice, memory's models, addresses and timing",
            read=_whole(_settings),
        ),
    )
}


def file(name: str) -> File:
    """The file of that name, `agents/NAME` for an agent's. Raises NotFoundError."""
    folder, _, agent = name.partition("/")
    if folder == AGENTS and roster.NAME.fullmatch(agent):
        return File(
            name=name,
            path=f"{name}.toml",
            about=f"The agent {agent}: its task, tools, level, model and daily budget",
            read=lambda settings: _agent(settings, agent),
            restarts=(agent,) if agent == SUPERVISOR else (agent, SUPERVISOR),
            grave=True,
        )
    if name not in FILES:
        known = ", ".join([*FILES, f"{AGENTS}/NAME"])
        raise NotFoundError(f"no file {name!r} of the configuration; there are: {known}")
    return FILES[name]


def _agent(settings: Settings, name: str) -> Reading:
    found = roster.load(settings)
    spec = found.supervisor if name == SUPERVISOR else found.agents.get(name)
    mine = f"{AGENTS}/{name}.toml"
    faults = [fault for fault in found.faults if mine in fault.split(": ")[0]]
    return (spec.model_dump(mode="json") if spec else {}), faults


def shipped(name: str) -> str | None:
    """The text of the shipped file of that name; None: none is shipped."""
    path = Path(budgets.SHIPPED).parent / file(name).path
    return path.read_text(encoding="utf-8") if path.is_file() else None


def faults(settings: Settings) -> tuple[Fault, ...]:
    """Everything that is wrong with the configuration, each fault once."""
    found: dict[Fault, None] = {}
    for one in FILES.values():
        found |= dict.fromkeys(faults_in(settings, one, one.read(settings)[1]))
    for told in roster.load(settings).faults:
        found[_fault(settings.config, told, f"{AGENTS}/")] = None
    return tuple(found)


def faults_in(settings: Settings, one: File, told: Sequence[str]) -> Iterator[Fault]:
    """A loader's words, taken apart."""
    for text in told:
        yield _fault(settings.config, text, one.path)


def _fault(folder: Path, told: str, path: str) -> Fault:
    text = told.removeprefix(f"{folder}/")
    head, found, rest = text.partition(": ")
    if found and head.endswith(".toml"):
        path, text = head, rest
    field, found, message = text.partition(": ")
    if not found or not FIELD.fullmatch(field):
        field, message = "", text
    return Fault(file=path, field=field, message=message.removeprefix("Value error, "))


def environment(names: Mapping[str, Any]) -> list[str]:
    """Those keys of settings.toml that this process's environment decides instead of the file."""
    return [name for name in names if f"AI_INFRA_{name.upper()}" in os.environ]


def restarts(one: File, keys: Keys, settings: Settings) -> tuple[str, ...]:
    """The programs that read these keys only when they start, by name; `EVERYTHING` for all."""
    wanted: list[str] = []
    for key in keys:
        if one.name == "settings":
            fits = (readers for pattern, readers in READERS if re.fullmatch(pattern, key[0]))
            wanted += next(fits, (EVERYTHING,))
        elif one.name == "models" and key[:2] == ("use", "agents") and len(key) > 2:
            wanted.append(key[2])
        elif one.name == "mcp" and len(key) > 1:
            wanted += _users(key[1], settings)
        else:
            wanted += one.restarts
    if EVERYTHING in wanted:
        return (EVERYTHING,)
    if AGENTS in wanted:
        wanted = [name for name in wanted if name != AGENTS] + list(roster.load(settings).agents)
    return tuple(sorted(set(wanted), key=lambda name: (name == PORTAL, name != SUPERVISOR, name)))


def _users(server: str, settings: Settings) -> tuple[str, ...]:
    """Whose tools an MCP server's are; all agents when it is gone, for they had it before."""
    found = mcp.load(settings, roster.load(settings).agents).known.get(server)
    return found.agents if found else (AGENTS,)
