"""One model call of a task: the budget is looked at before, the journal written after."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from agents import budget, prompt
from agents.parts import Parts
from agents.task import Task
from base import attachments
from base.deadline import Deadline
from base.llm import Ask
from base.messages import Kind
from pai.record import Record

#: Longest reply by purpose, the model's thinking included; EXECUTE writes files inside calls.
MAX_TOKENS = {
    "minimal": 8_192,
    "frame": 16_384,
    "execute": 32_768,
    "trace": 8_192,
    "reflect": 8_192,
    "judge": 4_096,
    "peer": 8_192,
}
#: How many timeouts of one attempt a call may take with all its retries.
TRIES = 3
#: History above these shares of the context or of what is left of the budget is shortened.
CONTEXT_SHARE = 0.75
BUDGET_SHARE = 0.6
KEEP_RESULTS = 4
SHORT_CHARS = 400
#: Streams the user's answer is made of.
ANSWERING = frozenset({"minimal", "execute"})


async def ask(parts: Parts, task: Task, purpose: str, *, force: str | None = None) -> Record:
    """The model's reply to the conversation so far, as the journal holds it.

    Raises BudgetError before the call when the budget does not cover it, ModelError after it.
    """
    await parts.reins.safe_point(task)
    order = task.order
    question = await _fitting(parts, task, purpose, force)
    model = parts.models.price(question.model)
    allowed = budget.output_tokens(question, model, order.budget, task.spent)
    stream = _Stream(parts, task, purpose)
    reply = await parts.llm.reply(
        replace(question, max_tokens=allowed), on_text=stream.take, deadline=_deadline(parts)
    )
    if reply.text:
        parts.transcript.text("\n")
    return task.add(
        "reply",
        sync=True,
        purpose=purpose,
        content=reply.content,
        stop_reason=reply.stop_reason,
        model=reply.model,
    )


async def judge(parts: Parts, task: Task, evidence: str) -> tuple[bool | None, str]:
    """A verdict of the judge model on `evidence`; None: it could not tell."""
    order = task.order
    question = Ask(
        agent=order.agent,
        purpose="judge",
        task_id=order.task_id,
        model=parts.model(order.effort, "judge"),
        system=prompt.JUDGE_SYSTEM,
        messages=[{"role": "user", "content": evidence}],
        tools=[prompt.JUDGE],
        force_tool="judge",
        max_tokens=MAX_TOKENS["judge"],
    )
    model = parts.models.price(question.model)
    allowed = budget.output_tokens(question, model, order.budget, task.spent)
    reply = await parts.llm.reply(replace(question, max_tokens=allowed), deadline=_deadline(parts))
    given = reply.tool_calls[0].input if reply.tool_calls else {}
    verdict = {"passed": True, "failed": False}.get(str(given.get("verdict")))
    return verdict, str(given.get("reason") or reply.text or "the judge gave no reason")


def _deadline(parts: Parts) -> Deadline:
    return Deadline.after(TRIES * parts.settings.model_timeout_s)


async def _fitting(parts: Parts, task: Task, purpose: str, force: str | None) -> Ask:
    """The question, its old tool results shortened when it has grown too long."""
    question = _question(parts, task, purpose, force)
    context_tokens = parts.models.price(question.model).context_tokens
    left_tokens = task.order.budget.tokens - task.spent.charged_tokens
    limit_tokens = min(CONTEXT_SHARE * context_tokens, BUDGET_SHARE * left_tokens)
    if budget.input_tokens(question) <= limit_tokens:
        return question
    gone = {name for r in task.records if r["kind"] == "shortened" for name in r["ids"]}
    results = [r for r in task.records if r["kind"] == "result"][:-KEEP_RESULTS]
    ids = [
        r["call_id"] for r in results if r["call_id"] not in gone and len(r["text"]) > SHORT_CHARS
    ]
    if not ids or not await parts.hooked.compacts(task):
        return question
    task.add("shortened", ids=ids)
    parts.transcript.line(f"({len(ids)} old tool results shortened to save room)", "2")
    return _question(parts, task, purpose, force)


def _question(parts: Parts, task: Task, purpose: str, force: str | None) -> Ask:
    order = task.order
    return Ask(
        agent=order.agent,
        purpose=purpose,
        task_id=order.task_id,
        model=parts.model(order.effort, purpose),
        system=prompt.system(task.spec, task.level, task.goals),
        messages=prompt.conversation(
            task.records, partial(attachments.blocks, parts.settings.attachments)
        ),
        tools=[] if purpose == "minimal" else prompt.schemas(task.offered, task.known, task.level),
        force_tool=force,
        max_tokens=MAX_TOKENS[purpose],
    )


class _Stream:
    """Shows text as it comes; sends it on as the user's answer where it is one.

    A message's attempts must rise over retries, replies and restarts: the last one counts.
    """

    def __init__(self, parts: Parts, task: Task, purpose: str) -> None:
        self._parts = parts
        self._message_id = task.order.answer_message_id if purpose in ANSWERING else None
        self._shown = purpose != "minimal"
        self._attempt = 0
        resumes = sum(record["kind"] == "resumed" for record in task.records)
        self._base = task.order.epoch * 1_000_000 + resumes * 10_000 + task.replies() * 10

    async def take(self, piece: str, attempt: int) -> None:
        if self._attempt and attempt != self._attempt:
            self._parts.transcript.line("(the stream broke; asked again)", "33")
        self._attempt = attempt
        piece = piece.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
        self._parts.transcript.text(piece)
        if self._shown or self._message_id is None:
            self._parts.emit(Kind.TEXT, content=piece)
        if self._message_id is not None:
            self._parts.emit(
                Kind.CHUNK,
                message_id=self._message_id,
                attempt=self._base + attempt,
                content=piece,
            )
