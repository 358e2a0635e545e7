"""Rehearsal scripts: finding one in a request, reading it, and choosing the line to act out.

Pure; the format is written down in docs/rehearsal.md. Which line is next follows from the
request alone, so a caller that repeats a call after a crash gets the same line again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FENCE = re.compile(r"^[ \t]*```rehearsal[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
ORDER = re.compile(r"OBEY: *\{")
STATUS = {
    "400": "invalid_request_error",
    "401": "authentication_error",
    "402": "billing_error",
    "413": "request_too_large",
    "429": "rate_limit_error",
    "500": "api_error",
    "502": "api_error",
    "503": "api_error",
    "504": "timeout_error",
    "529": "overloaded_error",
}
STREAM_FAULTS = ("cut", "truncated", "silence", "malformed", "overloaded")
#: Purposes with lines of their own, and the key of such a line; all else walks the plain lines.
LANES = {
    "plan": "plan",
    "frame": "frame",
    "trace": "trace",
    "conflict": "conflict",
    "judge": "verdict",
    "reflect": "reflect",
    "peer": "peer",
}
#: The tool that a call of this purpose is asked for, where the model cannot be forced.
ASKED = {
    "plan": "make_plan",
    "frame": "frame",
    "trace": "trace",
    "conflict": "list_contradictions",
    "judge": "judge",
    "reflect": "reflect",
}
CALLERS = {"plan": "planner", "join": "join", "conflict": "join", "judge": "judge"}
PLAIN = "turn"


class Call(BaseModel):
    """One tool call of a line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str = Field(min_length=1)
    input: dict[str, Any] = {}


class Line(BaseModel):
    """One line of a script, as docs/rehearsal.md tells."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    caller: str | None = Field(None, alias="for")
    match: str | None = None
    say: str | None = None
    tool: str | None = Field(None, min_length=1)
    input: dict[str, Any] | None = None
    tools: tuple[Call, ...] = ()
    plan: dict[str, Any] | None = None
    frame: dict[str, Any] | str | None = None
    trace: dict[str, Any] | str | None = None
    conflict: dict[str, Any] | None = None
    verdict: dict[str, Any] | str | None = None
    reflect: dict[str, Any] | str | None = None
    peer: dict[str, Any] | str | None = None
    obey: Literal[True] | None = None
    stop_reason: Literal["end_turn", "max_tokens", "refusal"] | None = None
    usage: dict[str, int] | Literal["missing"] | None = None
    fault: str | None = None
    times: int = Field(1, ge=1, le=1000)
    retry_after_s: float | None = Field(None, ge=0)
    seconds_s: float = Field(5.0, ge=0, le=3600)
    delay_ms: float = Field(0, ge=0, le=600_000)
    chunk_ms: float = Field(0, ge=0, le=60_000)

    @model_validator(mode="after")
    def _sensible(self) -> Line:
        given = self.model_fields_set
        faults = [*STATUS, "spend_limit", *STREAM_FAULTS]
        if self.fault is not None and self.fault not in faults:
            raise ValueError(f"no fault {self.fault!r}; there are: {', '.join(faults)}")
        if "input" in given and self.tool is None:
            raise ValueError("input needs a tool")
        if self.fault is None and given & {"times", "retry_after_s", "seconds_s"}:
            raise ValueError("times, retry_after_s and seconds_s belong to a fault")
        acts = (given & {"tool", "tools", "obey"}) or given & {"say"}
        if len(given & set(LANES.values())) + bool(acts) + (self.fault is not None) > 1:
            raise ValueError("one line does one thing: split it")
        if not given - {"caller", "match"}:
            raise ValueError("the line does nothing")
        return self

    @property
    def lane(self) -> str | None:
        """Which kind of call the line answers; None for faults and pacing."""
        own = self.model_fields_set & set(LANES.values())
        if own:
            return own.pop()
        does = self.say is not None or self.tool or self.tools or self.obey
        return PLAIN if does else None

    @property
    def calls(self) -> tuple[Call, ...]:
        return (Call(tool=self.tool, input=self.input or {}),) if self.tool else self.tools


class ScriptError(Exception):
    """A line that cannot be acted out; the text names it by its number in the block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: `name` as scripts call it, `lane` the kind of call, `task` its task id."""

    name: str
    lane: str
    purpose: str
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """What to act out now. `line` None: the script holds none for this call; `over`: it held
    some, and they are used up. `faults` come first, each with its number in the script.
    `past`: how many calls ago `line` was reached, which only one that obeys outlasts."""

    line: Line | None = None
    past: int = 0
    over: bool = False
    faults: tuple[tuple[int, Line], ...] = ()
    delay_ms: float = 0
    chunk_ms: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The lines by their number in the block, and the text they came from."""

    text: str = ""
    lines: dict[int, Line] = field(default_factory=dict)

    def cue(self, caller: Caller, step: int, said: str) -> Cue:
        """What `caller` gets at its `step` (0-based) of this lane; `said` is matched against."""
        mine = [
            (number, line)
            for number, line in self.lines.items()
            if (line.caller or "") in _names(caller) and (line.match or "") in said
        ]
        total = sum(line.lane == caller.lane for _, line in mine)
        wanted = min(step, total - 1) if caller.lane != PLAIN and total else step
        faults: list[tuple[int, Line]] = []
        pace, seen = Cue(), 0
        for number, line in mine:
            if line.fault is not None:
                faults.append((number, line))
            elif line.lane is None:
                pace = Cue(delay_ms=line.delay_ms, chunk_ms=line.chunk_ms)
            elif line.lane == caller.lane and (seen == wanted or line.obey):
                return Cue(
                    line=line,
                    past=wanted - seen,
                    faults=tuple(faults),
                    delay_ms=line.delay_ms or pace.delay_ms,
                    chunk_ms=line.chunk_ms or pace.chunk_ms,
                )
            else:
                seen += line.lane == caller.lane
                faults.clear()
        return Cue(
            over=total > 0, faults=tuple(faults), delay_ms=pace.delay_ms, chunk_ms=pace.chunk_ms
        )


def find(texts: list[str]) -> tuple[int, Script | None]:
    """The last script in `texts` and the index of the text that holds it; (-1, None) when there
    is none. Raises ScriptError naming the first line that is wrong."""
    for index in range(len(texts) - 1, -1, -1):
        blocks = FENCE.findall(texts[index])
        if blocks:
            return index, _read(blocks[-1])
    return -1, None


def orders(texts: list[str]) -> list[Line]:
    """What foreign text orders a misled model to do: each `OBEY: {...}`, once, in order. What
    cannot be read as a line is passed over."""
    found: dict[str, Line] = {}
    for text in texts:
        for match in ORDER.finditer(text):
            try:
                order, _ = json.JSONDecoder().raw_decode(text, match.end() - 1)
                found.setdefault(json.dumps(order), Line.model_validate(order))
            except ValueError:  # ValidationError is one
                continue
    return [line for line in found.values() if line.lane == PLAIN and not line.obey]


def strip(text: str) -> str:
    """`text` without its script blocks."""
    return FENCE.sub("", text).strip()


def _names(caller: Caller) -> set[str]:
    """The `for` values that mean this caller; "" is a line without one: any agent."""
    return {caller.name} if caller.name in CALLERS.values() else {caller.name, ""}


def _read(block: str) -> Script:
    lines: dict[int, Line] = {}
    for number, text in enumerate(block.splitlines(), start=1):
        if not text.strip():
            continue
        try:
            lines[number] = Line.model_validate(json.loads(text))
        except json.JSONDecodeError as error:
            raise ScriptError(f"line {number} is not JSON: {error.msg}") from error
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            known = ", ".join(name.alias or key for key, name in Line.model_fields.items())
            told = fault["msg"].removeprefix("Value error, ")
            if fault["type"] == "extra_forbidden":
                told = f"unknown key; known are: {known}"
            raise ScriptError(f"line {number}: {where + ': ' if where else ''}{told}") from error
    return Script(text=block, lines=lines)
