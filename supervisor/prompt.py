"""What the supervisor tells the model: the stable part first, so that it is cached.

Pure. Earlier messages and agents' answers are quoted with `> `, so that nothing in them reads
as ours or as the request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from base.messages import Effort, Turn
from base.roster import AgentSpec
from supervisor.plan import MAX_SUBTASKS

CHARS_PER_TOKEN = 4
HISTORY_TOKENS = 6_000

RULES = f"""
# Rules of a plan
- Call make_plan once. At most {MAX_SUBTASKS} subtasks; one is often right.
- `agent` is a name of the team below; `*` gives the same instruction to every one of them.
- `depends_on` lists keys whose answers a subtask needs. Subtasks without such a need run at the \
same time. No circles.
- Every instruction stands alone: the agent sees it, the request and the answers it depends on.
- `criteria` are end states, each with a probe that the system runs itself in the workspace and \
that fails when the work is not done: `command` (exit 0), `file` (exists), `pattern` (found in the \
file), `http` (this machine only), `judge` (a question, only when nothing else can tell). Ids are \
ISC-1, ISC-2; what must not be is ISC-A-1. Leave them out where there is nothing to check.
- `effort`: minimal is one reply without tools; standard is ordinary work; extended and deep cost \
much more and are for large or risky work.
- `budget_share` is the part of the whole budget that a subtask may use; the sum is at most 1.
"""


def system(lead: str, agents: Mapping[str, AgentSpec]) -> str:
    """The planner's stable prefix: role (`lead`, the supervisor's own prompt), rules, team."""
    team = "\n".join(
        f"- {agent.name}: {agent.title} (level {agent.level}). {', '.join(agent.capabilities)}"
        for agent in agents.values()
    )
    return f"{lead.strip()}\n{RULES}\n# The team\n{team}\n"


def planning(request: str, history: Sequence[Turn], effort: Effort | None, asides: str = "") -> str:
    """The user turn of the planner. `asides`: what hooks add to the request."""
    parts = []
    if history:
        parts.append("Earlier in this conversation:\n\n" + told(history))
    if effort is not None:
        parts.append(f"The person chose the effort: {effort}.")
    if asides:
        parts.append(asides)
    parts.append(f"<request>\n{request}\n</request>")
    return "\n\n".join(parts)


def again(faults: Sequence[str]) -> str:
    """What the planner is told about a plan that cannot be run."""
    listed = "\n".join(f"- {fault}" for fault in faults)
    return f"This plan cannot be run:\n{listed}\nCall make_plan once more with every fault mended."


def told(history: Sequence[Turn]) -> str:
    """The turns as quoted text."""
    return "\n\n".join(f"{turn.role}:\n{quoted(turn.content)}" for turn in history)


def recent(history: Sequence[Turn], budget_tokens: int = HISTORY_TOKENS) -> tuple[Turn, ...]:
    """The last turns that fit `budget_tokens` (4 characters each); the first kept may be cut."""
    left = budget_tokens * CHARS_PER_TOKEN
    kept: list[Turn] = []
    for turn in reversed(history):
        if left <= 0:
            break
        content = turn.content
        if len(content) > left:
            content = "…" + content[-left:]
        kept.append(Turn(role=turn.role, content=content))
        left -= len(content)
    return tuple(reversed(kept))


def quoted(text: str, limit_chars: int | None = None) -> str:
    """Every line marked; cut in the middle when longer than `limit_chars`."""
    if limit_chars is not None and len(text) > limit_chars:
        half = limit_chars // 2
        text = f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"
    return "\n".join("> " + line for line in text.splitlines())
