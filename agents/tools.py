"""The tools a model may call: what each takes, where it runs, and whether a call is valid.

Tools of `sandbox` run in the hands (`agents/hands.py`), those of `bus` in the agent itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

ARGUMENT_MAX_BYTES = 1_000_000
SHELL_DEFAULT_S = 120
SHELL_MAX_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """`input_schema` uses object, string, integer, boolean, minimum, maximum and minLength."""

    name: str
    description: str
    input_schema: dict[str, Any]
    where: Literal["sandbox", "bus"]


def _tool(
    name: str,
    where: Literal["sandbox", "bus"],
    description: str,
    required: dict[str, Any],
    optional: dict[str, Any] | None = None,
) -> Tool:
    schema = {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }
    return Tool(name=name, description=description, input_schema=schema, where=where)


def _string(description: str, *, empty: bool = False) -> dict[str, Any]:
    return {"type": "string", "description": description} | ({} if empty else {"minLength": 1})


def _integer(description: str, minimum: int, maximum: int) -> dict[str, Any]:
    return {
        "type": "integer",
        "description": description,
        "minimum": minimum,
        "maximum": maximum,
    }


_FILE = _string("File, relative to the workspace.")
_FOLDER = _string("Folder or file to search, relative to the workspace; default: all of it.")
_AGENT = _string("Name of the other agent.")

TOOLS: Mapping[str, Tool] = MappingProxyType(
    {
        tool.name: tool
        for tool in (
            _tool(
                "shell",
                "sandbox",
                "Run a bash command in the workspace; answers its exit code and output (stdout "
                "and stderr together). The current folder and exported variables are kept for "
                "the next call. There is no network and no terminal; only the workspace and "
                "/tmp can be written. Processes left in the background (&) run on until the "
                "task ends.",
                {"command": _string("What bash shall run; may have many lines.")},
                {
                    "limit_s": _integer(
                        f"Seconds until the command is killed; default {SHELL_DEFAULT_S}.",
                        1,
                        SHELL_MAX_S,
                    )
                },
            ),
            _tool(
                "read",
                "sandbox",
                "Read a text file with line numbers.",
                {"path": _FILE},
                {
                    "offset": _integer("First line to show, from 1; default 1.", 1, 1_000_000_000),
                    "limit": _integer("How many lines to show; default 2000.", 1, 100_000),
                },
            ),
            _tool(
                "write",
                "sandbox",
                "Write a text file whole; makes missing folders and replaces an existing file.",
                {"path": _FILE, "content": _string("The file's whole text.", empty=True)},
            ),
            _tool(
                "edit",
                "sandbox",
                "Replace text in a file. `old` must be found exactly once, byte for byte and "
                "without line numbers, unless `replace_all` is true.",
                {
                    "path": _FILE,
                    "old": _string("The text that is there now."),
                    "new": _string("The text to put in its place.", empty=True),
                },
                {"replace_all": {"type": "boolean", "description": "Replace every place."}},
            ),
            _tool(
                "glob",
                "sandbox",
                "List files by name pattern such as `src/**/*.{ts,tsx}`, newest first; a pattern "
                "without a slash, such as `*.py`, matches in every folder.",
                {"pattern": _string("Pattern of paths; ** matches any folders.")},
                {"path": _FOLDER},
            ),
            _tool(
                "grep",
                "sandbox",
                "Search file contents by regular expression; answers path:line:text.",
                {"pattern": _string("Regular expression.")},
                {
                    "path": _FOLDER,
                    "glob": _string("Only files whose name matches, such as `*.py`."),
                    "ignore_case": {"type": "boolean", "description": "Ignore upper and lower."},
                },
            ),
            _tool(
                "ask_peer",
                "bus",
                "Ask another agent one question and wait for the answer. It does not see your "
                "conversation: say all that it must know.",
                {"agent": _AGENT, "question": _string("The question, complete in itself.")},
            ),
            _tool(
                "handoff",
                "bus",
                "Give the whole task to another agent that suits it better. Ends your work on it.",
                {"agent": _AGENT, "notes": _string("What is done, what is left, what you found.")},
            ),
            _tool(
                "broadcast",
                "bus",
                "Tell all other agents a fact that they need now. Nobody answers.",
                {"text": _string("The fact, in a sentence or two.")},
            ),
        )
    }
)


def schemas(names: Iterable[str]) -> list[dict[str, Any]]:
    """The named tools as the Messages API takes them. KeyError for a name that is no tool."""
    return [
        {
            "name": TOOLS[name].name,
            "description": TOOLS[name].description,
            "input_schema": TOOLS[name].input_schema,
        }
        for name in names
    ]


def fault(name: str, input: object) -> str | None:
    """None when the call is valid; else one line that tells the model how to call it right."""
    tool = TOOLS.get(name)
    if tool is None:
        return f"no tool named {name!r}; there are: {', '.join(TOOLS)}"
    if not isinstance(input, dict):
        return f"{name}: the input must be an object, not {_kind(input)}"
    fields: dict[str, dict[str, Any]] = tool.input_schema["properties"]
    for field in tool.input_schema["required"]:
        if field not in input:
            return f"{name}: field {field!r} is missing; it takes: {', '.join(fields)}"
    for field, value in input.items():
        if field not in fields:
            return f"{name}: there is no field {str(field)[:80]!r}; it takes: {', '.join(fields)}"
        if reason := _wrong(fields[field], value, nul=field != "content"):
            return f"{name}: field {field!r} {reason}"
    return None


def _wrong(schema: dict[str, Any], value: object, *, nul: bool) -> str | None:
    """Why `value` does not fit `schema`; `nul`: whether a NUL byte is a fault."""
    wanted = schema["type"]
    if _kind(value) != wanted:
        return f"must be {_article(wanted)}, not {_kind(value)}"
    if isinstance(value, str):
        try:
            size_bytes = len(value.encode())
        except UnicodeEncodeError:
            return "holds half a surrogate pair, which is no text"
        if size_bytes > ARGUMENT_MAX_BYTES:
            return f"has {size_bytes:,} bytes; at most {ARGUMENT_MAX_BYTES:,} are taken"
        if len(value) < schema.get("minLength", 0):
            return "must not be empty"
        if nul and "\0" in value:
            return "holds a NUL character"
    elif isinstance(value, int) and wanted == "integer":
        low, high = schema["minimum"], schema["maximum"]
        if not low <= value <= high:
            return f"must be from {low} to {high}, not {str(value)[:20]}"
    return None


def _kind(value: object) -> str:
    """The JSON name of a value's type."""
    if isinstance(value, bool):
        return "boolean"
    if value is None:
        return "null"
    kinds = {str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return kinds.get(type(value), type(value).__name__)


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
