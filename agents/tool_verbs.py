"""The tool for what only root can do: the broker's typed verbs, and how each is asked."""

from __future__ import annotations

from functools import cache
from typing import Any

from agents.tool_shape import Need, boolean, choice, tool
from base.levels import ELEVATED
from base.verbs import TOOL, VERBS, Ask

#: What cannot be had back.
DESTROYS = frozenset({"domain.remove", "cert.revoke", "backup.restore"})


def asked(name: str, shape: type[Ask]) -> str:
    """What a verb is asked with, in a line: `cert.renew {domain?, force?: boolean}`."""
    schema = shape.model_json_schema()
    required = set(schema.get("required", ()))
    fields = (
        f"{field}{'' if field in required else '?'}{_kind(about, schema)}"
        for field, about in schema.get("properties", {}).items()
    )
    return f"{name} {{{', '.join(fields)}}}"


def _kind(about: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a field holds, where its name does not say it."""
    if "const" in about:
        return f": {about['const']!r}".replace("'", '"')
    if "enum" in about:
        return ": " + "|".join(f'"{one}"' for one in about["enum"])
    if about.get("type") in {"boolean", "integer"}:
        return f": {about['type']}"
    if about.get("type") == "array":
        return ": [" + (_kind(about.get("items", {}), schema).removeprefix(": ") or "text") + "]"
    several = [one for one in about.get("oneOf", ()) if "$ref" in one]
    if several:
        shapes = (schema["$defs"][one["$ref"].rpartition("/")[2]] for one in several)
        return ": " + " | ".join(_object(one, schema) for one in shapes)
    return ""


def _object(shape: dict[str, Any], schema: dict[str, Any]) -> str:
    required = {*shape.get("required", ()), "kind"}
    fields = (
        f"{field}{'' if field in required else '?'}{_kind(about, schema)}"
        for field, about in shape.get("properties", {}).items()
    )
    return "{" + ", ".join(fields) + "}"


def verb_need(given: dict[str, Any]) -> Need:
    """Before the broker was asked: level 2, the typed verbs' own."""
    name = str(given.get("verb"))
    return Need(
        rank=ELEVATED,
        why=f"{name} is a verb of the broker",
        destructive=name in DESTROYS and not given.get("dry_run"),
    )


@cache
def _told() -> str:
    verbs = "\n".join(asked(name, shape) for name, shape in VERBS.items())
    return (
        "Have the server itself looked at or changed, by fixed verbs that run as root: sites and "
        "certificates, units, containers, backups. `dry_run` answers the plan and changes nothing: "
        "look at it first. What changes something waits for an approval by itself; do not ask for "
        "it by another tool. broker.verbs tells what is allowed here. The verbs and their "
        f"`request` (? may be left out):\n{verbs}"
    )


VERB = tool(
    TOOL,
    "bus",
    ELEVATED,
    _told,
    {"verb": choice("What to do.", VERBS)},
    {
        "request": {"type": "object", "description": "The verb's own fields, as listed above."},
        "dry_run": boolean("Only say what would be done."),
    },
    need=verb_need,
)
