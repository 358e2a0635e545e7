"""OBSERVE asks memory, once a task: what is known about the order, and which lessons fit it.

Only what no text from outside stands on comes this way. What was found is in the journal, so
that a task which goes on in another process was told the same. Without a keeper there is nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from agents.budget import CHARS_PER_TOKEN
from agents.parts import Parts
from agents.prompt import memory_entry
from agents.task import Task
from base import log
from base.deadline import Deadline
from base.errors import AIError, NotRunningError
from base.messages import Effort, WorkOrder
from base.terminal import clipped, short
from pai import suppliers
from pai.client import MemoryClient
from pai.shapes import QUERY_CHARS, SHARED, Found, Item, Memory, Query
from pai.tiers import Rules

logger = log.get("recollect")

ANSWER_S = 3.0
#: A question waits for one look only.
MINIMAL_S = 1.0
ITEMS = 8
#: Places for learnings; of so many one task or agent may fill a fifth (`pai/learn.py`).
LEARNINGS = 10
NEIGHBOURS = 1
#: Of the tokens, what learnings may take.
LEARNINGS_SHARE = 0.4
ITEM_CHARS = 1_500
WHY_PARTS = 4
#: What is in fences is material that the request came with; it says little about what is wanted.
FENCED = re.compile(r"^[ \t]*```.*?^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)

Entry = dict[str, Any]


async def recollect(parts: Parts, task: Task) -> None:
    """Ask, cut to the budget and write down; the second time nothing happens."""
    if task.recalled is not None:
        return
    order = task.order
    items: Sequence[Entry] = ()
    lessons: Sequence[Entry] = ()
    note = ""
    try:
        budget_tokens = Rules.load(parts.settings).recall.tokens(order.effort)
        if not budget_tokens:
            return
        found, learned = await _ask(MemoryClient(parts.bus), order, budget_tokens)
        note = "" if found.dense else "found by words alone: the embedding worker did not answer"
        items, lessons = entries(order, found.items, learned, budget_tokens)
    except AIError as error:
        note = f"going on without memory: {error}"
        logger.warning("not recalled", task_id=order.task_id, reason=str(error))
    task.add("recalled", items=items, learnings=lessons, note=note)
    parts.transcript.recalled([*items, *lessons], note)


async def _ask(
    client: MemoryClient, order: WorkOrder, budget_tokens: int
) -> tuple[Found, tuple[Item, ...]]:
    """Both looks at once. A question asks for no lessons: nothing is planned or built for it."""
    if not await client.running():
        raise NotRunningError("the keeper does not run")
    question = order.effort is Effort.MINIMAL
    deadline = Deadline.after(MINIMAL_S if question else ANSWER_S)
    query = Query(
        text=situation(order),
        user_id=order.user_id,
        limit=ITEMS,
        budget_tokens=budget_tokens,
        trusted=True,
        neighbours=NEIGHBOURS,
        task_id=order.task_id,
    )
    if question:
        return await client.search(query, deadline), ()
    about = query.model_copy(update={"limit": LEARNINGS, "neighbours": 0, "agent": order.agent})
    learned = asyncio.create_task(_learnings(client, about, deadline), name="learnings")
    try:
        return await client.search(query, deadline), await learned
    finally:
        learned.cancel()


async def _learnings(client: MemoryClient, query: Query, deadline: Deadline) -> tuple[Item, ...]:
    """The search alone is worth having when the lessons cannot be had."""
    try:
        return await client.learnings(query, deadline)
    except AIError as error:
        logger.warning("no learnings", task_id=query.task_id, reason=str(error))
        return ()


def situation(order: WorkOrder) -> str:
    """What the task is about, in words to search by."""
    asked = [order.instruction, order.request]
    if order.instruction.strip() in order.request:
        asked = [order.request]
    text = "\n".join(FENCED.sub("", one).strip() or one for one in asked).strip()
    return clipped(text or order.instruction or "task", QUERY_CHARS - 100)


def entries(
    order: WorkOrder, items: Sequence[Item], learned: Sequence[Item], budget_tokens: int
) -> tuple[list[Entry], list[Entry]]:
    """Memories and learnings as the prompt tells them, best first, together below the budget.

    What is not this person's, what is tainted, and what the prompt says anyway is left out, even
    if the keeper should have sent it.
    """
    said = {order.request.strip(), order.instruction.strip()}
    said |= {turn.content.strip() for turn in order.history}
    left = budget_tokens * CHARS_PER_TOKEN
    mine = [one for one in learned if _allowed(order, one.memory)]
    lessons = _fitting([_lesson(one) for one in mine], left * LEARNINGS_SHARE)
    fits = {one["id"] for one in lessons}
    kept = [one for one in mine if one.memory.id in fits]
    shared = {one.memory.id for one in suppliers.guarded(kept, len(kept))}
    lessons = [one for one in lessons if one["id"] in shared]
    left -= sum(_chars(one) for one in lessons)
    known = (
        one for one in items if _allowed(order, one.memory) and one.memory.text.strip() not in said
    )
    return _fitting([_memory(one) for one in _once(order, known)], left), lessons


def _once(order: WorkOrder, items: Iterable[Item]) -> Iterator[Item]:
    """Each memory once, whether it was found itself or stands beside one that was."""
    told: set[str] = set()
    for item in items:
        if item.memory.id in told:
            continue
        near = [one for one in item.around if _allowed(order, one) and one.id not in told]
        told.update(one.id for one in (item.memory, *near))
        yield item.model_copy(update={"around": tuple(near)})


def _allowed(order: WorkOrder, memory: Memory) -> bool:
    return not memory.tainted and memory.user_id in {order.user_id, SHARED}


def _fitting(found: list[Entry], chars: float) -> list[Entry]:
    """The first ones that fit, one that does not leaving its room to the next."""
    kept = []
    for one in found:
        if (size := _chars(one)) <= chars:
            kept.append(one)
            chars -= size
    return kept


def _chars(entry: Entry) -> int:
    return len(memory_entry(entry)) + 1


def _memory(item: Item) -> Entry:
    told = sorted([item.memory, *item.around], key=lambda one: one.seq or 0)
    named = len(told) > 1
    text = "\n".join(f"{_who(one)}: {one.text}" if named else one.text for one in told)
    return {
        "id": item.memory.id,
        "text": clipped(text, ITEM_CHARS),
        "about": about(item.memory, who=not named),
        "why": [short(part) for part in item.why[:WHY_PARTS]],
        "score": round(item.score, 3),
    }


def _lesson(item: Item) -> Entry:
    memory = item.memory
    proved = f"{memory.text}\n(evidence: {memory.evidence})" if memory.evidence else memory.text
    about_it = f"lesson of {memory.phase or 'ALGORITHM'}, {memory.outcome or 'outcome not known'}"
    return {
        "id": memory.id,
        "text": clipped(proved, ITEM_CHARS),
        "about": f"{about_it}, {about(memory)}",
        "applies_when": short(memory.applies_when, 300),
        "why": [short(part) for part in item.why[:WHY_PARTS]],
        "score": round(item.score, 3),
    }


def about(memory: Memory, *, who: bool = True) -> str:
    """Where a memory is from: who, when, which task, which file. One line."""
    parts = [_who(memory)] if who else []
    parts.append(f"{memory.created_at:%Y-%m-%d}")
    if memory.task_id:
        parts.append(f"task {memory.task_id[:8]}")
    if memory.file or memory.source:
        parts.append(memory.file or memory.source)
    return ", ".join(short(part, 120) for part in parts)


def _who(memory: Memory) -> str:
    return short(memory.speaker or memory.agent or memory.kind, 60)
