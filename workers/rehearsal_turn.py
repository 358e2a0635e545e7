"""Choosing what the rehearsal model says to a request: by its script, else the simplest thing.

Pure: the same request always gets the same turn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from workers import rehearsal_plain as plain
from workers import rehearsal_script as script
from workers import rehearsal_wire as wire
from workers.rehearsal_script import Call, Caller, Cue, Script, ScriptError

#: Beside the JSON of its input, what a tool call counts for.
CALL_TOKENS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The turn, the cue it came from, and the script that gave the cue."""

    turn: wire.Turn
    cue: Cue
    script: Script


def choose(body: dict[str, Any], caller: Caller, counts: dict[str, int]) -> Choice:
    """What to say to this request, and what to act out before; `counts` is its input's usage."""
    holders = [
        (number, block["text"])
        for number, turn in enumerate(body["messages"])
        if turn["role"] == "user"
        for block in wire.blocks(turn)
        if block.get("type") == "text"
    ]
    texts = [text for _, text in holders]
    forced, cue, found = _forced(body), Cue(), Script()
    say: str = ""
    calls: tuple[Call, ...] = ()
    step = _step(body["messages"], caller.lane)
    try:
        index, written = script.find(texts)
        after = holders[index][0] if written else _last_asked(body["messages"])
        step = _step(body["messages"][after:], caller.lane)
        if written:
            found = written
            cue = found.cue(caller, step, "\n".join(map(script.strip, texts)))
        say, calls = _act(body, caller, cue, step, texts)
    except ScriptError as error:
        say = f"The rehearsal script cannot be acted out: {error}."
    if forced and not calls:
        hints = _hints(body, caller, found, texts, step)
        calls = (Call(tool=forced["name"], input=plain.simplest(forced["input_schema"], hints)),)
    line = cue.line
    usage = dict(counts)
    usage["output_tokens"] = wire.tokens(say) + sum(
        wire.tokens(call.input) + CALL_TOKENS for call in calls
    )
    if line and isinstance(line.usage, dict):
        usage |= line.usage
    turn = wire.Turn(
        model=body["model"],
        lane=caller.lane,
        say=say,
        calls=calls,
        stop_reason=(line and line.stop_reason) or ("tool_use" if calls else "end_turn"),
        usage=None if line and line.usage == "missing" else usage,
    )
    return Choice(turn=turn, cue=cue, script=found)


def _act(
    body: dict[str, Any], caller: Caller, cue: Cue, step: int, texts: list[str]
) -> tuple[str, tuple[Call, ...]]:
    """The line's text and calls; without a line what the rehearsal does by itself."""
    line, forced = cue.line, _forced(body)
    if line is None:
        if cue.over:
            return f"The rehearsal script has no further line for {caller.name}.", ()
        if forced:
            return "", ()
        given = plain.given(wire.files(body))
        if caller.purpose not in {"", "execute"}:
            return plain.NOTICE + given, ()
        tools = {tool["name"]: tool.get("input_schema") or {} for tool in body.get("tools") or []}
        say, calls = plain.turn(tools, step, plain.request(texts), _results(body))
        return (say if calls else say + given), calls
    if line.obey:
        return _obey(body, cue.past, texts)
    if caller.lane == script.PLAIN:
        return line.say or "", line.calls
    given = getattr(line, caller.lane)
    if forced and isinstance(given, dict):
        return line.say or "", (Call(tool=forced["name"], input=given),)
    return given if isinstance(given, str) else json.dumps(given), ()


def _obey(body: dict[str, Any], past: int, texts: list[str]) -> tuple[str, tuple[Call, ...]]:
    """A misled model: it does what the text that it read tells it to, and nothing else."""
    told = script.orders([*map(script.strip, texts), *_results(body)])
    if past < len(told):
        return told[past].say or "", told[past].calls
    return f"I did the {len(told)} things that the text told me to do.", ()


def _hints(
    body: dict[str, Any], caller: Caller, found: Script, texts: list[str], step: int
) -> dict[str, Any]:
    callers = [line.caller for line in found.lines.values() if line.caller]
    agents = [name for name in callers if name not in script.CALLERS.values()]
    if caller.lane == "plan":
        return plain.plan_hints(wire.system_text(body), texts, agents)
    if caller.lane == "frame":
        return plain.frame_hints(texts, bool(found.lines), step > 0)
    return {}


def who(user_id: str, body: dict[str, Any]) -> Caller:
    """Who asks, by `metadata.user_id` = task/agent/purpose; else by the forced tool's name."""
    task, _, rest = user_id.rpartition("/")[0].rpartition("/")
    agent, purpose = rest, user_id.rpartition("/")[2] if user_id.count("/") >= 2 else ""
    lane = script.LANES.get(purpose, script.PLAIN)
    forced = _forced(body)
    if not purpose and forced:
        own = set(script.LANES.values())
        lane = next((word for word in own if forced["name"].endswith(word)), script.PLAIN)
    name = script.CALLERS.get(purpose, agent)
    return Caller(name=name, lane=lane, purpose=purpose, task=task)


def _forced(body: dict[str, Any]) -> dict[str, Any] | None:
    """The tool that the request forces, or that a call of its purpose is asked for in words."""
    choice = body.get("tool_choice") or {}
    purpose = str((body.get("metadata") or {}).get("user_id") or "").rpartition("/")[2]
    name = choice.get("name") or script.ASKED.get(purpose)
    named = [tool for tool in body.get("tools") or [] if tool["name"] == name]
    return named[0] if named else None


def _step(turns: list[dict[str, Any]], lane: str) -> int:
    """How many of the assistant's turns belong to `lane`, by the ids that were given out."""
    own = set(script.LANES.values())
    lanes = []
    for turn in turns:
        if turn["role"] == "assistant":
            ids = [str(b.get("id")) for b in wire.blocks(turn) if b.get("type") == "tool_use"]
            marked = [id_.split("_")[1] for id_ in ids if id_.count("_") >= 2]
            lanes.append(next((one for one in marked if one in own), script.PLAIN))
    return lanes.count(lane)


def _last_asked(turns: list[dict[str, Any]]) -> int:
    """The last user's turn that is no answer to a tool call."""
    return max(
        number
        for number, turn in enumerate(turns)
        if number == 0 or all(block.get("type") == "text" for block in wire.blocks(turn))
        if number == 0 or turn["role"] == "user"
    )


def _results(body: dict[str, Any]) -> list[str]:
    """The text of every tool result so far."""
    found = []
    for turn in body["messages"]:
        for block in wire.blocks(turn):
            if block.get("type") == "tool_result":
                parts = wire.blocks(block)
                found.append("\n".join(part.get("text", "") for part in parts))
    return found
