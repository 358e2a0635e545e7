"""What the next message of a conversation says about the answer before it. Mild on purpose.

Follow up: within ten minutes of the answer, near in meaning to it or to its question (it was not
enough). Context switch: within half a minute, before it can have been read, and about nothing of
either; meaning alone cannot tell it from a next task, so it counts half. All else, and everything
without vectors, says nothing. A request that failed or was cancelled is judged by that already.
"""

from __future__ import annotations

from pai import cards, words
from pai.meaning import QUERY_S
from pai.shapes import Memory, Signal, SignalKind
from pai.shapes import memory_id as id_of
from pai.stores import Stores

FOLLOW_UP_S = 600.0
SWITCH_S = 30.0
SWITCH_WEIGHT = 0.5
#: Similarities, chosen on tests/pai/hearing_cases.py with the shipped model.
NEAR = 0.50
FAR = 0.12
#: Shorter messages (thanks, ok, go on) are about nothing by themselves.
SWITCH_STEMS = 3


def kind(gap_s: float, similarity: float, stems: int) -> SignalKind | None:
    """What a message `gap_s` after the answer before it means; None: nothing.

    similarity: the larger of those to that question and to its answer; stems: its words.
    """
    if not 0 <= gap_s <= FOLLOW_UP_S:
        return None
    if similarity >= NEAR:
        return SignalKind.FOLLOW_UP
    if gap_s <= SWITCH_S and similarity <= FAR and stems >= SWITCH_STEMS:
        return SignalKind.CONTEXT_SWITCH
    return None


async def turn(stores: Stores, message: Memory) -> Signal | None:
    """The signal about the request before `message` in its conversation, if there is one. The
    same message gives the same signal.
    """
    if message.conversation_id is None or message.seq is None:
        return None
    rows = await stores.store.fetch(
        "SELECT text, kind, task_id, created_at FROM memory WHERE series = $1"
        " AND conversation_id = $1 AND user_id = $2 AND collection = 'conversations'"
        " AND seq < $3 AND NOT leaving AND text IS NOT NULL"
        " AND kind IN ('message', 'answer') ORDER BY seq DESC LIMIT 2",
        *(message.conversation_id, message.user_id, message.seq),
    )
    asked = next((row for row in rows if row["kind"] == "message"), None)
    answers = [row for row in rows if row["kind"] == "answer"]
    if asked is None or not answers or asked["task_id"] in {None, message.task_id}:
        return None
    gap_s = (message.created_at - answers[0]["created_at"]).total_seconds()
    if not 0 <= gap_s <= FOLLOW_UP_S or not await _completed(stores, asked["task_id"]):
        return None
    texts = [message.text, asked["text"], answers[0]["text"]]
    vectors = await stores.meaning.of(texts, "query", QUERY_S)
    if vectors is None:
        return None
    similarity = float((vectors.matrix[1:] @ vectors.matrix[0]).max())
    found = kind(gap_s, similarity, len(words.stems(message.text)))
    if found is None:
        return None
    return Signal(
        id=id_of("signal", found.value, message.id),
        kind=found,
        user_id=message.user_id,
        root_id=asked["task_id"],
        weight=SWITCH_WEIGHT if found is SignalKind.CONTEXT_SWITCH else 1.0,
        at=message.created_at,
    )


async def _completed(stores: Stores, root_id: str) -> bool:
    status = await stores.store.fetchval(
        f"SELECT status FROM tasks WHERE id = {cards.task('$1::text')}", root_id
    )
    return bool(status == "completed")
