"""What a webhook is told of a request that ended, read from the record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from base.messages import answer_id
from base.store import Row, Store

EVENT = "task.finished"
#: A hook that was disabled or had no portal for so long is not told what ended before.
LOOK_BACK_DAYS = 1


async def untold(store: Store, limit: int) -> list[Row]:
    """Requests that ended after a hook of their owner was made, and that it has no delivery of.

    Asked before the answer of an ended request is written it would be told without: the supervisor
    writes both in one transaction.
    """
    rows = await store.fetch(_UNTOLD, LOOK_BACK_DAYS, limit)
    answers = await store.fetch(
        "SELECT id, content FROM messages WHERE id = ANY($1::uuid[])",
        [answer_id(row["task_id"]) for row in rows],
    )
    said = {row["id"]: row["content"] for row in answers}
    return [row | {"answer": said.get(answer_id(row["task_id"]))} for row in rows]


def body(delivery_id: str, row: Mapping[str, Any]) -> str:
    """The payload as JSON text. `answer` is null when the request never began."""
    usage = row["usage"] or {}
    told = {
        "id": delivery_id,
        "type": EVENT,
        "webhook_id": row["webhook_id"],
        "task": {
            "id": row["task_id"],
            "status": row["status"],
            "title": row["title"],
            "error": row["error"],
            "effort": row["effort"],
            "workspace": row["workspace"],
            "conversation_id": row["conversation_id"],
            "message_id": row["message_id"],
            "answer_message_id": answer_id(row["task_id"]),
            "created_at": _utc(row["created_at"]),
            "completed_at": _utc(row["completed_at"]),
            "cost_usd": usage.get("cost_usd", 0.0),
            "usage": usage,
            "subtasks": row["subtasks"],
        },
        "answer": row["answer"],
    }
    return json.dumps(told, ensure_ascii=False)


def _utc(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None


_UNTOLD = """
SELECT w.id AS webhook_id, t.id AS task_id, t.status, t.title, t.error, t.effort, t.workspace,
    t.conversation_id, t.message_id, t.created_at, t.completed_at, t.usage,
    COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
            'id', p.id, 'agent', p.assigned_agent, 'title', p.title, 'status', p.status
        ) ORDER BY p.created_at, p.id)
        FROM tasks p WHERE p.root_id = t.id AND p.id <> t.id
    ), '[]') AS subtasks
FROM webhooks w
JOIN users u ON u.id = w.user_id AND u.is_active
JOIN tasks t ON t.user_id = w.user_id AND t.type = 'request' AND t.completed_at >= w.created_at
    AND t.completed_at > now() - make_interval(days => $1)
WHERE w.disabled_at IS NULL AND t.status IN ('completed', 'failed', 'cancelled')
    AND NOT EXISTS (
        SELECT FROM webhook_deliveries d WHERE d.webhook_id = w.id AND d.task_id = t.id
    )
ORDER BY t.completed_at LIMIT $2
"""
