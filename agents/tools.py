"""The tools a model may call: what each takes, where it runs, and what it needs.

Tools of `sandbox` run in the hands (`agents/hands.py`), those of `bus` in the agent itself,
those of `mcp` in a configured server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from agents import tool_input
from agents.tool_files import FILES
from agents.tool_input import ARGUMENT_MAX_BYTES
from agents.tool_run import RUN
from agents.tool_shape import DEFAULT_S as SHELL_DEFAULT_S
from agents.tool_shape import MAX_S as SHELL_MAX_S
from agents.tool_shape import Need, Tool
from agents.tool_verbs import VERB
from agents.tool_world import WORLD

__all__ = [
    "ARGUMENT_MAX_BYTES",
    "SHELL_DEFAULT_S",
    "SHELL_MAX_S",
    "TOOLS",
    "Need",
    "Tool",
    "fault",
    "needs",
    "schemas",
]

_SHELL, *_RUN = RUN

#: By name, in the order in which a model sees them.
TOOLS: Mapping[str, Tool] = MappingProxyType(
    {tool.name: tool for tool in (_SHELL, *FILES, *_RUN, *WORLD, VERB)}
)


def schemas(names: Iterable[str], known: Mapping[str, Tool] = TOOLS) -> list[dict[str, Any]]:
    """The named tools as the Messages API takes them. KeyError for a name that is no tool."""
    return [
        {
            "name": known[name].name,
            "description": known[name].description,
            "input_schema": known[name].input_schema,
        }
        for name in names
    ]


def fault(name: str, input: object, known: Mapping[str, Tool] = TOOLS) -> str | None:
    """None when the call is valid; else one line that tells the model how to call it right."""
    tool = known.get(name)
    if tool is None:
        return f"no tool named {name[:80]!r}; there are: {', '.join(known)}"
    return tool_input.fault(tool, input)


def needs(name: str, input: dict[str, Any], known: Mapping[str, Tool] = TOOLS) -> Need:
    """What this call needs; pure, from a valid input. KeyError for a name that is no tool."""
    tool = known[name]
    if tool.need is not None:
        return tool.need(input)
    verb = input.get("verb")
    rank = tool.verbs.get(verb, tool.level) if isinstance(verb, str) else tool.level
    return Need(rank=rank, why=f"{name} is for level {rank} and above")
