"""Ideal State Criteria: what they must look like, and whether their probes can fail.

Pure functions. A *fault* makes a criterion unusable; *advice* is told to the model and no more.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from base.messages import Criterion, Probe

TEXT_MAX_CHARS = 400
WORDS = range(8, 13)
JOINS = re.compile(r"\b(and|with|including)\b", re.IGNORECASE)
SWEEPS = re.compile(r"\b(all|every|complete)\b", re.IGNORECASE)
ID = re.compile(r"ISC-(A-)?(\d+)")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: Commands whose exit status says nothing about the workspace.
CANNOT_FAIL = frozenset({"true", ":", "echo", "printf", "pwd", "sleep", "date", "whoami"})
SEPARATORS = frozenset({";", "&&", "||", "|", "&", "|&", ";;"})
#: A probe as models are asked for it: in plans, and in framing.
PROBE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["kind"],
    "properties": {
        "kind": {"type": "string", "enum": ["command", "pattern", "file", "http", "judge"]},
        "command": {"type": "string", "description": "command: passes on exit 0."},
        "path": {"type": "string", "description": "file, pattern: relative to the workspace."},
        "pattern": {
            "type": "string",
            "description": "Regular expression: in the file, or in the command's output.",
        },
        "url": {"type": "string", "description": "http: loopback only."},
        "expect_status": {"type": "integer"},
        "question": {"type": "string", "description": "judge: when nothing else can measure it."},
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Criteria that are usable, and one line for each that is not."""

    criteria: tuple[Criterion, ...]
    faults: tuple[str, ...]


def gate(
    ordered: Sequence[Criterion],
    own: Sequence[Criterion],
    raw: Iterable[object],
    *,
    floor: int,
    workspace: Path,
) -> Gate:
    """`ordered` and `own` with the model's `raw` ones: a known id refines, otherwise it adds.

    What was ordered stays as it is, unless its own probe is unsound. Fewer than `floor` in the
    end is a fault.
    """
    kept = {criterion.id: criterion for criterion in (*ordered, *own)}
    fixed = {criterion.id for criterion in ordered if probe_fault(criterion.probe) is None}
    faults: list[str] = []
    for number, item in enumerate(raw, 1):
        try:
            criterion = _read(item, kept, workspace)
        except ValueError as error:
            faults.append(f"criterion {number}: {error}")
            continue
        if (fault := probe_fault(criterion.probe)) is not None:
            faults.append(f"criterion {number} ({criterion.text[:60]}): {fault}")
        elif criterion.id not in fixed:
            kept[criterion.id] = criterion
    usable = []
    for criterion in kept.values():
        if (fault := probe_fault(criterion.probe)) is None:
            usable.append(criterion)
        else:
            faults.append(f"{criterion.id} ({criterion.text[:60]}): {fault}")
    if len(usable) < floor:
        faults.append(f"{len(usable)} usable criteria, this effort needs at least {floor}")
    return Gate(criteria=tuple(usable), faults=tuple(faults))


def advice(criterion: Criterion) -> tuple[str, ...]:
    """How the wording could be better: 8 to 12 words, one state, nothing sweeping."""
    words = len(criterion.text.split())
    found = []
    if words not in WORDS:
        found.append(f"{criterion.id} has {words} words; 8 to 12 read best")
    if match := JOINS.search(criterion.text):
        found.append(f"{criterion.id} joins two states with {match[0]!r}; split it")
    if match := SWEEPS.search(criterion.text):
        found.append(f"{criterion.id} says {match[0]!r}; name what exactly")
    return tuple(found)


def probe_fault(probe: Probe) -> str | None:
    """Why the probe cannot measure anything; None when it can."""
    match probe.kind:
        case "command":
            return _command_fault(probe.command, probe.pattern)
        case "file":
            return _path_fault(probe.path)
        case "pattern":
            return _path_fault(probe.path) or _pattern_fault(probe.pattern)
        case "http":
            return _url_fault(probe.url)
        case "judge":
            return None if (probe.question or "").strip() else "a judge probe needs a question"


def _read(item: object, kept: Mapping[str, Criterion], workspace: Path) -> Criterion:
    """One criterion of the model's. Raises ValueError that says what is wrong."""
    if not isinstance(item, dict):
        raise ValueError("must be an object with text and probe")  # noqa: TRY004
    text = " ".join(str(item.get("text") or "").split())
    if not text:
        raise ValueError("text is missing")
    if len(text) > TEXT_MAX_CHARS:
        raise ValueError(f"text has {len(text)} characters, at most {TEXT_MAX_CHARS}")
    probe = item.get("probe")
    if not isinstance(probe, dict):
        raise ValueError("probe is missing; give an object with its kind")  # noqa: TRY004
    try:
        made = Probe.model_validate(_inside(probe, workspace))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"probe.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    given = str(item.get("id") or "")
    anti = bool(item.get("anti")) or given.startswith("ISC-A-")
    known = given if given in kept else None
    return Criterion(id=known or _next_id(kept, anti=anti), text=text, probe=made)


def _inside(probe: Mapping[str, Any], workspace: Path) -> dict[str, Any]:
    """The probe with an absolute path inside the workspace made relative to it."""
    path = probe.get("path")
    if isinstance(path, str) and path.startswith("/"):
        absolute = PurePosixPath(path)
        if absolute.is_relative_to(workspace):
            return {**probe, "path": str(absolute.relative_to(workspace))}
    return dict(probe)


def _next_id(kept: Mapping[str, Criterion], *, anti: bool) -> str:
    prefix = "ISC-A-" if anti else "ISC-"
    used = [
        int(match[2]) for name in kept if (match := ID.fullmatch(name)) and bool(match[1]) == anti
    ]
    return f"{prefix}{max(used, default=0) + 1}"


def _command_fault(command: str | None, pattern: str | None) -> str | None:
    if not (command or "").strip():
        return "a command probe needs a command"
    if pattern is not None and (fault := _pattern_fault(pattern)):
        return fault
    if _cannot_fail(command or "", output_counts=pattern is not None):
        return f"the command {command!r} cannot fail, so it proves nothing"
    return None


def _cannot_fail(command: str, *, output_counts: bool) -> bool:
    """Whether the shell command ends well whatever the workspace looks like."""
    try:
        lexer = shlex.shlex(command.replace("\n", " ; "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        tokens = list(lexer)
    except ValueError:
        return False
    parts: list[tuple[str, list[str]]] = [(";", [])]
    for token in tokens:
        if token in SEPARATORS:
            parts.append((token, []))
        else:
            parts[-1][1].append(token)
    parts = [part for part in parts if part[1]]
    if not parts:
        return True
    if output_counts:
        return "$" not in command and "`" not in command and all(_idle(w) for _, w in parts)
    separator, last = parts[-1]
    if separator == "&&":
        return all(_idle(words) for _, words in parts)
    return _idle(last)


def _idle(words: Sequence[str]) -> bool:
    words = list(words)
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words.pop(0)
    if not words:
        return True
    if words[0] in {"exit", "return"}:
        return words[1:] == ["0"]
    return words[0].rsplit("/", 1)[-1] in CANNOT_FAIL and not {">", ">>", "<"} & set(words)


def _path_fault(path: str | None) -> str | None:
    if not (path or "").strip():
        return "the probe needs a path in the workspace"
    pure = PurePosixPath(path or "")
    if pure.is_absolute() or ".." in pure.parts:
        return f"the path {path!r} is outside the workspace; give it relative to the workspace"
    return None


def _pattern_fault(pattern: str | None) -> str | None:
    if not pattern:
        return "the probe needs a pattern"
    try:
        found = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"the pattern {pattern!r} is no regular expression: {error}"
    anything = found.search("") and found.search("\0")
    return f"the pattern {pattern!r} matches anything" if anything else None


def _url_fault(url: str | None) -> str | None:
    try:
        parts = urlsplit(url or "")
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f"{url!r} is no URL"
    if parts.scheme != "http" or host not in LOOPBACK:
        return f"{url!r}: only http://127.0.0.1 or localhost can be probed"
    return None
