"""Whether a tool call's input is valid, told so that the model can mend it.

The schema of a foreign (MCP) server is foreign too: nothing is fetched for it and its regular
expressions are not run; the server checks those itself.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from agents.tool_shape import Tool

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

ARGUMENT_MAX_BYTES = 1_000_000
INPUT_MAX_BYTES = 2_000_000
DEPTH_MAX = 32
SHOWN_CHARS = 80
#: Fields that are a file's text or an answer's, in which a NUL is data.
NUL_FIELDS = frozenset({"content"})


def fault(tool: Tool, input: object) -> str | None:
    """None when the call is valid; else one line that tells the model how to call it right."""
    if not isinstance(input, dict):
        return f"{tool.name}: the input must be an object, not {_kind(input)}"
    reason = _unsound(input) or _misfit(tool, input)
    return None if reason is None else f"{tool.name}: {reason}"


def _unsound(input: dict[str, Any]) -> str | None:
    """What no tool takes: text too long or that is no text, NUL, nesting without end."""
    total = 0
    waiting: list[tuple[str, object, int]] = [(str(key), one, 1) for key, one in input.items()]
    for key in input:
        if (reason := _no_text(str(key), nul=False)) is not None:
            return f"a field's name {reason}"
    while waiting:
        field, value, depth = waiting.pop()
        if depth > DEPTH_MAX:
            return f"field {_short(field)} is nested more than {DEPTH_MAX} deep"
        if isinstance(value, str):
            if (reason := _no_text(value, nul=field in NUL_FIELDS)) is not None:
                return f"field {_short(field)} {reason}"
            total += len(value.encode())
        elif isinstance(value, dict):
            for key, one in value.items():
                if (reason := _no_text(str(key), nul=False)) is not None:
                    return f"a name in field {_short(field)} {reason}"
                total += len(str(key).encode())
                waiting.append((field, one, depth + 1))
        elif isinstance(value, list):
            waiting.extend((field, one, depth + 1) for one in value)
        total += 8
        if total > INPUT_MAX_BYTES:
            return f"the input has more than {INPUT_MAX_BYTES:,} bytes; give it in smaller pieces"
    return None


def _no_text(text: str, *, nul: bool) -> str | None:
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        return "holds half a surrogate pair, which is no text"
    if size_bytes > ARGUMENT_MAX_BYTES:
        return f"has {size_bytes:,} bytes; at most {ARGUMENT_MAX_BYTES:,} are taken"
    return "holds a NUL character" if "\0" in text and not nul else None


def _misfit(tool: Tool, input: dict[str, Any]) -> str | None:
    """Where the input does not fit the schema."""
    properties = tool.input_schema.get("properties")
    takes = ", ".join(properties) if isinstance(properties, dict) else ""
    try:
        errors = sorted(
            _validator(json.dumps(tool.input_schema)).iter_errors(input),
            key=lambda error: (error.validator != "required", len(error.absolute_path)),
        )
    except Exception as error:  # a foreign schema can be anything
        if tool.where != "mcp":
            raise
        return f"its schema cannot be checked: {type(error).__name__}"
    return _told(errors[0], takes) if errors else None


def _told(error: ValidationError, takes: str) -> str:
    path = ".".join(str(part) for part in error.absolute_path)
    field = f"field {_short(path)}" if path else "the input"
    value, wanted = error.instance, error.validator_value
    match error.validator:
        case "required":
            missing = next(name for name in wanted if name not in value)
            where = "" if not path else f" in {field}"
            return f"field {_short(missing)} is missing{where}; it takes: {takes}"
        case "additionalProperties":
            known = error.schema.get("properties", {})
            more = next((name for name in value if name not in known), "?")
            where = "" if not path else f" in {field}"
            return f"there is no field {_short(str(more))}{where}; it takes: {', '.join(known)}"
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else list(wanted)
            return f"{field} must be {' or '.join(map(_article, kinds))}, not {_kind(value)}"
        case "enum":
            listed = ", ".join(str(one) for one in wanted[:20])
            return f"{field} must be one of {listed}, not {_short(str(value))}"
        case "minimum" | "maximum":
            low, high = error.schema.get("minimum"), error.schema.get("maximum")
            if low is not None and high is not None:
                return f"{field} must be from {low} to {high}, not {str(value)[:20]}"
        case "minLength" | "minItems" if wanted == 1:
            return f"{field} must not be empty"
        case "maxItems":
            return f"{field} has {len(value)} entries; at most {wanted} are taken"
    return f"{field}: {' '.join(error.message.split())[:160]}"


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    """Loaded at the first call: an agent that waits has no use for it."""
    import referencing
    from jsonschema import Draft202012Validator, validators

    def skipped(*_: object) -> None:
        return None

    checker = validators.extend(
        Draft202012Validator, {"pattern": skipped, "patternProperties": skipped}
    )
    return checker(json.loads(schema), registry=referencing.Registry())


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


def _short(text: str) -> str:
    return repr(text[:SHOWN_CHARS])
