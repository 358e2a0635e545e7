"""What a tool is, and the pieces that its input schema is written with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Where = Literal["sandbox", "bus", "mcp"]

FILE = "File, relative to the workspace."
#: How long a call may take when the model says nothing, and at most.
DEFAULT_S = 120
MAX_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one call needs. `rank`: the least level at which nobody is asked; `why`: in words.

    host: the "host:port" it goes to, when the input says so; destructive: work may be lost by it;
    person: a hook wants a person to decide about it, whatever its rank; leave: it is asked for
    at every level.
    """

    rank: int
    why: str
    host: str | None = None
    destructive: bool = False
    person: bool = False
    leave: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """`level`: least rank that may call it unasked; `verbs`: the rank of each verb, if it has any.

    told: what a model reads of it, or what makes that when it is first wanted.
    where: `sandbox` the hands, `bus` the agent itself, `mcp` a configured server.
    need: what a valid input needs beyond `level`; None: nothing.
    """

    name: str
    told: str | Callable[[], str]
    input_schema: dict[str, Any]
    where: Where
    level: int = 0
    verbs: Mapping[str, int] = field(default_factory=dict)
    need: Callable[[dict[str, Any]], Need] | None = None

    @property
    def description(self) -> str:
        """What a model reads of it."""
        return self.told if isinstance(self.told, str) else self.told()


def tool(
    name: str,
    where: Where,
    level: int,
    description: str | Callable[[], str],
    required: dict[str, Any],
    optional: dict[str, Any] | None = None,
    *,
    verbs: Mapping[str, int] | None = None,
    need: Callable[[dict[str, Any]], Need] | None = None,
) -> Tool:
    """A tool of ours: no field beyond the named ones."""
    schema = {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }
    return Tool(
        name=name,
        told=description,
        input_schema=schema,
        where=where,
        level=level,
        verbs=verbs or {},
        need=need,
    )


def string(description: str, *, empty: bool = False) -> dict[str, Any]:
    return {"type": "string", "description": description} | ({} if empty else {"minLength": 1})


def integer(description: str, minimum: int, maximum: int) -> dict[str, Any]:
    return {
        "type": "integer",
        "description": description,
        "minimum": minimum,
        "maximum": maximum,
    }


def boolean(description: str) -> dict[str, Any]:
    return {"type": "boolean", "description": description}


def choice(description: str, words: Iterable[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(words), "description": description}


def strings(description: str, most: int) -> dict[str, Any]:
    one = {"type": "string", "minLength": 1}
    return {"type": "array", "items": one, "maxItems": most, "description": description}


def limit_s(default: int = DEFAULT_S, most: int = MAX_S) -> dict[str, Any]:
    return integer(f"Seconds until it is killed; default {default}.", 1, most)
