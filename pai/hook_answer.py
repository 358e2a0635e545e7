"""What a hook's end means: its exit code and what it printed, by Claude Code's rules. Pure.

A hook can only tighten: nothing that it says lets through what would have been refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from base.messages import Aside
from pai.hooks import Event, Hook, Verdict

EXIT_BLOCK = 2
#: What of one hook's words reaches the model, or a person's window.
CONTEXT_CHARS = 10_000
NOTICE_CHARS = 500
BLOCKABLE = frozenset({Event.PRE_TOOL_USE, Event.USER_PROMPT_SUBMIT, Event.STOP, Event.PRE_COMPACT})
#: Their block undoes nothing, but the model hears it.
HEARD = frozenset({Event.POST_TOOL_USE})
#: What they print is added for the model as it is.
PRINTS = frozenset({Event.USER_PROMPT_SUBMIT, Event.SESSION_START})
ADDS = PRINTS | {Event.PRE_TOOL_USE, Event.POST_TOOL_USE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a hook ended. code None: it did not by itself, and `fault` says why; or it never ran."""

    code: int | None
    stdout: str = ""
    stderr: str = ""
    fault: str = ""


def verdict(ended: Sequence[tuple[Hook, Ran]]) -> Verdict:
    """What hooks of one event say together; each counts, in the order of the file."""
    said = [_said(hook, ran) for hook, ran in ended]
    return Verdict(
        block=tuple(one for each in said for one in each.block),
        ask=tuple(one for each in said for one in each.ask),
        context=tuple(one for each in said for one in each.context),
        notices=tuple(one for each in said for one in each.notices),
    )


def _said(hook: Hook, ran: Ran) -> Verdict:
    if ran.code is None:
        return _notice(hook, ran.fault or "did not run")
    if ran.code == EXIT_BLOCK:
        return _blocked(hook, ran.stderr.strip() or "it gave no reason")
    if ran.code != 0:
        ended = f"exit code {ran.code}" if ran.code > 0 else f"killed by signal {-ran.code}"
        words = (ran.stderr.strip() or ran.stdout.strip()).splitlines()
        return _notice(hook, f"failed ({ended})" + (f": {words[0]}" if words else ""))
    printed = ran.stdout.strip()
    if (answer := _object(printed)) is not None:
        return _obeyed(hook, answer)
    if not printed:
        return Verdict()
    if hook.event in PRINTS:
        return Verdict(context=(_aside(hook, printed),))
    return _notice(hook, printed)


def _obeyed(hook: Hook, answer: dict[str, Any]) -> Verdict:
    """What an answer in JSON asks for, as far as it makes sense here."""
    own = answer.get("hookSpecificOutput")
    own = own if isinstance(own, dict) else {}
    block: list[Aside] = []
    ask: list[Aside] = []
    notices: list[str] = []
    decision = _text(own.get("permissionDecision")) if hook.event is Event.PRE_TOOL_USE else ""
    reason = _text(answer.get("reason")) or "it gave no reason"
    if decision in {"deny", "ask"}:
        why = _text(own.get("permissionDecisionReason")) or reason
        (block if decision == "deny" else ask).append(_aside(hook, why))
    if answer.get("decision") == "block":
        block.append(_aside(hook, reason))
    if answer.get("continue") is False:
        why = _text(answer.get("stopReason")) or reason
        if hook.event is Event.STOP:  # it wants an end, which is what is about to be
            block.clear()
        elif hook.event in BLOCKABLE:
            block.append(_aside(hook, why))
        else:
            notices.append(f"wants to stop: {why} (not obeyed at {hook.event})")
    for key in ("updatedInput", "updatedToolOutput", "updatedMCPToolOutput"):
        if key in own:
            notices.append(f"{key} is not obeyed here")
    if words := _text(answer.get("systemMessage")):
        notices.append(words)
    if block and hook.event not in BLOCKABLE | HEARD:
        notices += [f"blocks, which {hook.event} cannot be: {one.text}" for one in block]
        block.clear()
    context: tuple[Aside, ...] = ()
    if (more := _text(own.get("additionalContext"))) and hook.event in ADDS:
        context = (_aside(hook, more),)
    shown = tuple(_shown(hook, one) for one in notices)
    return Verdict(block=tuple(block), ask=tuple(ask), context=context, notices=shown)


def _blocked(hook: Hook, reason: str) -> Verdict:
    if hook.event in BLOCKABLE | HEARD:
        return Verdict(block=(_aside(hook, reason),))
    return _notice(hook, reason)


def _notice(hook: Hook, text: str) -> Verdict:
    return Verdict(notices=(_shown(hook, text),))


def _shown(hook: Hook, text: str) -> str:
    name = " ".join(hook.command.split())
    name = name if len(name) <= 40 else name[:39] + "…"
    return f"hook {hook.event} `{name}`: {_cut(text, NOTICE_CHARS)}"


def _aside(hook: Hook, text: str) -> Aside:
    return Aside(text=_cut(text, CONTEXT_CHARS), trusted=hook.trusted)


def _object(printed: str) -> dict[str, Any] | None:
    """The answer in JSON, when it is one."""
    if not printed.startswith("{"):
        return None
    try:
        answer = json.loads(printed)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _cut(text: str, chars: int) -> str:
    left_out = len(text) - chars
    return text if left_out <= 0 else f"{text[:chars]} […{left_out:,} more characters]"
