"""What the rehearsal model does where no script tells it: the simplest thing, and say so.

Pure. No intelligence and no claim to any: it looks at the workspace, writes down what it found,
and answers a forced tool with the smallest input that its schema allows.
"""

from __future__ import annotations

import re
from typing import Any

from base.terminal import short
from workers.rehearsal_script import Call, strip

NOTICE = "This is a rehearsal: no model has thought about this request."
NOTES_PATH = "REHEARSAL.md"
LOOK = ("glob", "shell")
WRITE = "write"
EFFORT = re.compile(r"effort\W{1,4}(minimal|standard|extended|deep)\b", re.IGNORECASE)
REQUEST = re.compile(r"<request>(.*?)</request>", re.DOTALL)
ROSTER_LINE = re.compile(r"^[ \t]*[-*][ \t]+([a-z][a-z0-9_-]*)[ \t]*[:(]", re.MULTILINE)
TITLE_CHARS = 60
FOUND_CHARS = 4000
NOTES_CRITERION = {
    "criteria": True,
    "id": "ISC-1",
    "text": f"The file {NOTES_PATH} exists in the workspace folder",
    "probe": True,
    "kind": "file",
    "path": NOTES_PATH,
}
#: What an honest answer picks from an enumeration, if it is there.
HONEST = ("unmeasured", "file", "EXECUTE", "standard")
#: Candidates for a text that must match a pattern.
CANDIDATES = ("ISC-1", "s1", "a", "rehearsal", "Rehearsal", "1", NOTES_PATH)


def request(texts: list[str]) -> str:
    """What was asked, out of the user's texts, without scripts."""
    for text in reversed(texts):
        marked = REQUEST.findall(text)
        if marked:
            return strip(marked[-1])
    return strip(texts[-1]) if texts else ""


def plan_hints(system: str, texts: list[str], agents: list[str]) -> dict[str, Any]:
    """Values for a plan of one subtask. `agents`: those that a script speaks of; then what they
    will do is the script's, and nothing is promised about it."""
    asked = request(texts)
    effort = EFFORT.search("\n".join(texts))
    roster = ROSTER_LINE.findall(system)
    words = re.findall(r"[a-z0-9_-]+", asked.lower())
    named = [name for name in roster if name in words] if roster else words
    return {
        "subtasks": True,
        "agent": [*agents, *named, *roster],
        "key": "s1",
        "title": short(asked, TITLE_CHARS) or "Rehearsal",
        "summary": NOTICE,
        "instruction": asked or "Look at the workspace.",
        "effort": effort.group(1).lower() if effort else "standard",
        "budget_share": 1.0,
        **({} if agents else NOTES_CRITERION),
    }


def frame_hints(texts: list[str], scripted: bool, again: bool) -> dict[str, Any]:
    """Values for framing a task: one criterion where there is none and no script leads."""
    bare = not (scripted or again or "ISC-" in "\n".join(texts))
    return {key: value for key, value in NOTES_CRITERION.items() if bare and key != "id"}


def turn(
    tools: dict[str, dict[str, Any]], step: int, asked: str, results: list[str]
) -> tuple[str, tuple[Call, ...]]:
    """What an agent says and calls at its `step`: look, write down, end."""
    look = next((name for name in LOOK if name in tools), None)
    steps = [name for name in (look, WRITE if WRITE in tools else None) if name]
    if step >= len(steps):
        done = f" What I found is in {NOTES_PATH}." if WRITE in steps and results else ""
        return NOTICE + done, ()
    name = steps[step]
    if name == WRITE:
        found = results[-1][:FOUND_CHARS] if results else "Nothing was looked at."
        content = f"# Rehearsal\n\n{NOTICE}\n\nThe request: {asked}\n\nFound:\n\n{found}\n"
        hints = {"path": NOTES_PATH, "file_path": NOTES_PATH, "content": content, "text": content}
    else:
        hints = {"pattern": "**/*", "command": "ls -la"}
    return "", (Call(tool=name, input=simplest(tools[name], hints)),)


def given(files: list[dict[str, Any]]) -> str:
    """What came with the request, by the bytes that arrived; "" for nothing."""
    lines = [
        f"- {one['name'] or one['type']}, {one['media_type']}, {one['size_bytes']:,} bytes, "
        f"sha256 {one['sha256'][:16]}"
        for one in files
    ]
    return "\n\nI was given:\n\n" + "\n".join(lines) if lines else ""


def simplest(schema: dict[str, Any], hints: dict[str, Any]) -> Any:
    """The smallest value valid under `schema`, with `hints` by property name where they fit.

    An optional property is given, and a list of objects filled, only when it has a hint.
    A list as hint: the first that fits.
    """
    return _value(schema, hints, "", schema.get("$defs") or schema.get("definitions") or {})


def _value(schema: dict[str, Any], hints: dict[str, Any], name: str, defs: dict[str, Any]) -> Any:
    schema = _resolve(schema, defs)
    hint = hints.get(name)
    offers = hint if isinstance(hint, list) else [] if hint is None else [hint]
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        options = schema["enum"]
        return next((one for one in [*offers, *HONEST] if one in options), options[0])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = next((one for one in kind if one != "null"), "null") if isinstance(kind, list) else kind
    if kind == "object":
        return {
            key: _value(below, hints, key, defs)
            for key, below in schema.get("properties", {}).items()
            if key in schema.get("required", ()) or key in hints
        }
    if kind == "array":
        items = _resolve(schema.get("items") or {}, defs)
        least = max(schema.get("minItems", 0), int("properties" in items and name in hints))
        return [_value(items, hints, name, defs) for _ in range(least)]
    if kind in {"integer", "number"}:
        fit = [one for one in offers if isinstance(one, int | float)]
        return fit[0] if fit else schema.get("minimum", schema.get("default", 1))
    if kind == "boolean":
        return False
    return None if kind == "null" else _text(schema, [one for one in offers if one is not True])


def _text(schema: dict[str, Any], offers: list[Any]) -> str:
    pattern, least = schema.get("pattern", ""), schema.get("minLength", 0)
    for one in [*map(str, offers), NOTICE, *CANDIDATES]:
        if re.search(pattern, one):
            return one[: schema.get("maxLength")].ljust(least, ".")
    return NOTICE


def _resolve(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """`schema` with its reference followed and its first non-null alternative taken."""
    while True:
        if "$ref" in schema:
            schema = defs[str(schema["$ref"]).rpartition("/")[2]]
        elif options := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
            schema = next((one for one in options if one.get("type") != "null"), options[0])
        else:
            return schema
