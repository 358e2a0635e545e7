"""Many answers into one: contradictions found and put to their agents once, then one reply.

Nothing here is lost to a model that fails: then the answers are told one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from base import log, streams
from base.deadline import Deadline
from base.errors import AIError, ModelError
from base.llm import Ask, Reply
from base.messages import Status, Usage
from supervisor.prompt import quoted
from supervisor.tasks import Task

MAX_CONTRADICTIONS = 3
ANSWER_CHARS = 24_000
QUESTION_S = 60.0
MODEL_S = 900.0

logger = log.get(__name__)

TOOL: dict[str, Any] = {
    "name": "list_contradictions",
    "description": "Name what two agents say that cannot both be true. An empty list: nothing.",
    "input_schema": {
        "type": "object",
        "required": ["contradictions"],
        "properties": {
            "contradictions": {
                "type": "array",
                "maxItems": MAX_CONTRADICTIONS,
                "items": {
                    "type": "object",
                    "required": ["subject", "agents", "question"],
                    "properties": {
                        "subject": {"type": "string", "description": "What they disagree about."},
                        "agents": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "The two agents, by name.",
                        },
                        "question": {
                            "type": "string",
                            "description": "One question to both that would settle it.",
                        },
                    },
                },
            }
        },
    },
}
CONFLICT_ASK = (
    "Several agents worked on the request below. Do their answers contradict each other in a "
    "matter of fact that the person would care about? Different parts, words or levels of "
    "detail are no contradiction. Call list_contradictions."
)
JOIN_ASK = (
    "Now write the answer to the person's request below from the agents' answers: one text, in "
    "the language of the request, first line first. Where agents contradicted each other, say "
    "so and what settled it, or that it is open. Say what was not done."
)


class Model(Protocol):
    async def reply(
        self,
        ask: Ask,
        *,
        on_text: Callable[[str, int], Awaitable[None]] | None = None,
        deadline: Deadline,
    ) -> Reply: ...


class Questions(Protocol):
    async def ask(
        self, service: str, payload: dict[str, Any], *, deadline: Deadline
    ) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """`said` maps each of the two agents to its answer to the question, once asked."""

    subject: str
    agents: tuple[str, str]
    question: str
    said: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """`fault`: why the model did not join, or None."""

    answer: str
    contradictions: tuple[Contradiction, ...] = ()
    usage: Usage
    fault: str | None = None


def alone(subtask: Task) -> str:
    """The answer of a request with one subtask: its own, verbatim, or what went wrong."""
    answer = str(subtask.output.get("answer") or "")
    if subtask.status is Status.COMPLETED:
        return answer
    return "\n\n".join(part for part in (answer, undone([subtask])) if part)


def undone(subtasks: Sequence[Task]) -> str:
    """One line for each subtask that did not complete; empty when all did."""
    lines = [
        f"- {task.title or task.key} ({task.agent}): {task.status}"
        + (f", {task.error}" if task.error else "")
        for task in subtasks
        if task.status is not Status.COMPLETED
    ]
    return "\n".join(["What did not work:", *lines]) if lines else ""


def plain(subtasks: Sequence[Task], fault: str | None) -> str:
    """The answers one after the other, with the reason why they are not joined."""
    parts = [
        f"## {task.title or task.key} ({task.agent})\n\n{task.output.get('answer') or '(no text)'}"
        for task in subtasks
        if task.status is Status.COMPLETED
    ]
    if fault is not None and parts:
        parts.insert(0, f"The answers could not be joined ({fault}); here they are one by one.")
    return "\n\n".join(part for part in (*parts, undone(subtasks)) if part)


def contradictions(raw: Mapping[str, Any], agents: Sequence[str]) -> tuple[Contradiction, ...]:
    """What a `list_contradictions` input names; entries that do not name two of `agents` and
    a question are dropped, as are those beyond MAX_CONTRADICTIONS.
    """
    listed = raw.get("contradictions")
    found = []
    for item in listed if isinstance(listed, list) else []:
        if not isinstance(item, dict) or not isinstance(item.get("agents"), list):
            continue
        pair = [name for name in dict.fromkeys(map(str, item["agents"])) if name in agents]
        subject, question = str(item.get("subject") or ""), str(item.get("question") or "")
        if len(pair) == 2 and subject.strip() and question.strip():
            found.append(
                Contradiction(subject=subject, agents=(pair[0], pair[1]), question=question)
            )
    return tuple(found[:MAX_CONTRADICTIONS])


def material(subtasks: Sequence[Task]) -> str:
    """Every subtask with its answer, quoted."""
    parts = []
    for task in subtasks:
        head = f"{task.agent}, asked: {task.title or task.key} ({task.status})"
        if task.error:
            head += f"; error: {task.error}"
        parts.append(f"{head}\n{quoted(str(task.output.get('answer') or ''), ANSWER_CHARS)}")
    return "\n\n".join(parts)


def settlement(found: Sequence[Contradiction]) -> str:
    """What the agents said when asked once more."""
    parts = []
    for one in found:
        said = "\n".join(f"{agent}:\n{quoted(text, ANSWER_CHARS)}" for agent, text in one.said)
        parts.append(
            f"Contradiction about {one.subject} between {' and '.join(one.agents)}. Both were "
            f"asked: {one.question}\n{said}"
        )
    return "\n\n".join(parts)


async def join(
    root: Task,
    subtasks: Sequence[Task],
    *,
    request: str,
    asides: str = "",
    lead: str,
    models: Mapping[str, str],
    model: Model,
    questions: Questions,
    levels: Mapping[str, int],
    on_text: Callable[[str, int], Awaitable[None]],
) -> Joined:
    """One answer from ended subtasks. `models` names the model of purposes `join` and `conflict`.

    Raises nothing for a model that fails (see `Joined.fault`); BusError passes.
    """
    done = [task for task in subtasks if task.status is Status.COMPLETED]
    if not done:
        return Joined(answer=undone(subtasks), usage=Usage())
    deadline = Deadline.after(MODEL_S)
    usage = Usage()
    found: tuple[Contradiction, ...] = ()
    shown = material(subtasks)
    asked = (f"{asides}\n\n" if asides else "") + f"<request>\n{request}\n</request>"
    turns: list[dict[str, Any]] = []
    system = f"{lead.strip()}\n"
    try:
        agents = sorted({task.agent for task in done})
        if len(agents) > 1:
            first = {"role": "user", "content": f"{CONFLICT_ASK}\n\n{shown}\n\n{asked}"}
            reply = await model.reply(
                Ask(
                    agent="supervisor",
                    purpose="conflict",
                    task_id=root.id,
                    model=models["conflict"],
                    system=system,
                    messages=[first],
                    tools=[TOOL],
                    force_tool=TOOL["name"],
                    max_tokens=8192,
                ),
                deadline=deadline,
            )
            usage += reply.usage
            calls = [call for call in reply.tool_calls if call.name == TOOL["name"]]
            found = contradictions(calls[0].input, agents) if calls else ()
            if found:
                found = await _settle(found, done, root, questions, levels)
                results = [
                    {"type": "tool_result", "tool_use_id": call.id, "content": settlement(found)}
                    for call in reply.tool_calls
                ]
                text = {"type": "text", "text": JOIN_ASK}
                turns = [
                    first,
                    {"role": "assistant", "content": reply.content},
                    {"role": "user", "content": [*results, text]},
                ]
        if not turns:
            turns = [{"role": "user", "content": f"{JOIN_ASK}\n\n{shown}\n\n{asked}"}]
        reply = await model.reply(
            Ask(
                agent="supervisor",
                purpose="join",
                task_id=root.id,
                model=models["join"],
                system=system,
                messages=turns,
                tools=[TOOL] if len(turns) > 1 else [],
            ),
            on_text=on_text,
            deadline=deadline,
        )
        usage += reply.usage
        if not reply.text.strip():
            raise ModelError("the model wrote nothing")
        answer = reply.text
        if reply.stop_reason == "max_tokens":
            answer += "\n\n(The answer was cut at the model's limit.)"
    except ModelError as error:
        logger.warning("did not join", task_id=root.id, error=str(error))
        return Joined(
            answer=plain(subtasks, str(error)), contradictions=found, usage=usage, fault=str(error)
        )
    rest = undone(subtasks)
    return Joined(
        answer=f"{answer}\n\n{rest}" if rest else answer, contradictions=found, usage=usage
    )


async def _settle(
    found: Sequence[Contradiction],
    done: Sequence[Task],
    root: Task,
    questions: Questions,
    levels: Mapping[str, int],
) -> tuple[Contradiction, ...]:
    """Put each contradiction's question to its two agents, all at once."""

    async def ask(one: Contradiction, agent: str) -> tuple[str, str]:
        mine = next(task for task in done if task.agent == agent)
        other = next(name for name in one.agents if name != agent)
        theirs = next(task for task in done if task.agent == other)
        payload = {
            "from": "supervisor",
            "question": f"{one.question}\n\nYou and {other} contradict each other about "
            f"{one.subject}. You said:\n{quoted(str(mine.output.get('answer') or ''), 4000)}\n\n"
            f"{other} said:\n{quoted(str(theirs.output.get('answer') or ''), 4000)}",
            "task_id": mine.id,
            "user_id": root.user_id,
            "level": levels.get(agent, 0),
        }
        try:
            answer = await questions.ask(
                streams.peer(agent), payload, deadline=Deadline.after(QUESTION_S)
            )
        except AIError as error:
            return agent, f"(no answer: {error})"
        return agent, str(answer.get("answer") or "(no text)")

    settled = []
    for one in found:
        said = await asyncio.gather(*(ask(one, agent) for agent in one.agents))
        settled.append(
            Contradiction(
                subject=one.subject, agents=one.agents, question=one.question, said=tuple(said)
            )
        )
    return tuple(settled)
