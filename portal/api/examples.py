"""Examples of requests and answers, by operation: what `/openapi.json` shows.

A test holds each against the schema of its operation, so none can grow old unseen.
"""

from __future__ import annotations

from typing import Any

from portal.api.samples import (
    ACCEPTED,
    AGENT,
    ANSWERED,
    APPROVAL,
    AT,
    AUDIT,
    CONVERSATION,
    DELIVERY,
    DELIVERY_ID,
    DOMAIN,
    EVENT,
    EVENT_ID,
    LATER,
    LETTER,
    MEMORY,
    MEMORY_ID,
    PART,
    PART_ID,
    QUESTION,
    SAID,
    SUM,
    TASK,
    TASK_ID,
    TOKENS,
    USED,
    USER,
    WEBHOOK,
)

BODIES: dict[str, Any] = {
    "auth_login": {"email": "ada@example.org", "password": "a long enough one"},
    "auth_refresh": {"refresh_token": TOKENS["refresh_token"]},
    "auth_password": {"new_password": "an even longer one", "current_password": "the old one"},
    "conversations_create": {"title": "The nightly import"},
    "conversations_change": {"title": "The import, solved", "status": "archived"},
    "conversations_send": {"content": QUESTION, "effort": "standard", "priority": 5},
    "conversations_give": {"rating": 5, "comment": "Exactly right."},
    "tasks_steer": {"text": "Look at the disk first."},
    "approvals_decide": {"approve": True, "reason": "Those logs are backed up."},
    "memory_search": {
        "query": "where are the import's logs?",
        "limit": 5,
        "filters": {"tier": ["hot", "warm"], "agent": "infra"},
    },
    "memory_remember": {"text": MEMORY["text"], "tags": ["import"]},
    "memory_forget_all": {"ids": [MEMORY_ID]},
    "domains_add": {"domain_name": "example.org", "setup_ssl": True},
    "webhooks_create": {"url": WEBHOOK["url"], "description": WEBHOOK["description"]},
    "dlq_purge": {"stream": "results"},
}

ANSWERS: dict[str, Any] = {
    "auth_login": TOKENS,
    "auth_refresh": TOKENS,
    "auth_me": {"id": USER, "email": "ada@example.org", "role": "user"},
    "auth_links": {
        "url": "http://127.0.0.1:8000/login?token=Zk3…",
        "path": "/login?token=Zk3…",
        "token": "Zk3…",
        "expires_at": LATER,
    },
    "auth_password": {"ok": True},
    "conversations_list": {"conversations": [CONVERSATION], "next_cursor": None},
    "conversations_create": CONVERSATION,
    "conversations_get": {
        "conversation": CONVERSATION,
        "messages": [SAID, ANSWERED],
        "more": False,
    },
    "conversations_change": CONVERSATION | {"status": "archived"},
    "conversations_messages": {"messages": [SAID, ANSWERED], "more": False},
    "conversations_send": ACCEPTED,
    "conversations_give": {"signal_id": DELIVERY_ID, "kind": "user_rating", "task_id": TASK_ID},
    "tasks_list": {"tasks": [TASK], "next_cursor": None},
    "tasks_get": {
        "task": TASK,
        "subtasks": [PART],
        "logs": [
            {
                "task_id": PART_ID,
                "level": "info",
                "message": "infra took it",
                "data": {"epoch": 1},
                "created_at": AT,
            }
        ],
        "approvals": [],
    },
    "tasks_cancel": {"status": "cancelled"},
    "tasks_retry": {"task_id": PART_ID},
    "tasks_steer": {"ok": True, "agents": ["infra"]},
    "agents_list": {"agents": [AGENT]},
    "agents_get": {"agent": AGENT, "current_task": None},
    "agents_control": {"ok": True},
    "approvals_list": {"approvals": [APPROVAL], "more": False},
    "approvals_get": APPROVAL,
    "approvals_decide": APPROVAL
    | {"status": "approved", "decided_at": LATER, "decided_by": USER, "decided_via": "api"},
    "memory_search": {
        "items": [
            {
                "memory": MEMORY,
                "tier": "warm",
                "score": 0.82,
                "why": ["words", "meaning"],
                "around": [],
                "support": 2,
            }
        ],
        "dense": True,
        "took_ms": {"embed": 6.1, "search": 4.8},
    },
    "memory_learnings": {
        "learnings": [MEMORY | {"collection": "learnings", "kind": "learning", "phase": "VERIFY"}]
    },
    "memory_stats": {"user_id": USER, "tiers": {"warm": {"memories": {"count": 41}}}},
    "memory_remember": {"ids": [MEMORY_ID]},
    "memory_forget_all": {"forgotten": [MEMORY_ID]},
    "memory_forget": {"forgotten": [MEMORY_ID]},
    "domains_list": {"domains": [DOMAIN]},
    "domains_add": DOMAIN,
    "domains_get": DOMAIN,
    "domains_deploy": {"files": 12},
    "domains_certificate": {
        "domain_name": "example.org",
        "ssl_status": "active",
        "ssl_expires_at": "2027-02-26T09:30:00Z",
        "days_left": 90,
    },
    "webhooks_list": {"webhooks": [WEBHOOK]},
    "webhooks_create": {"webhook": WEBHOOK, "secret": "whsec_" + "5f" * 4 + "…"},
    "webhooks_get": WEBHOOK,
    "webhooks_test": DELIVERY
    | {
        "event": "test",
        "task_id": None,
        "status": "pending",
        "attempts": 0,
        "response_status": None,
        "took_ms": None,
        "next_at": LATER,
        "ended_at": None,
    },
    "webhooks_deliveries": {"deliveries": [DELIVERY]},
    "usage_daily": {
        "date": "2026-11-28",
        "since": "2026-11-28",
        "until": "2026-11-28",
        "cost_usd": 0.0612,
        "requests": 4,
        "days": [SUM],
        "usage": [USED],
    },
    "usage_budget": {
        "date": "2026-11-28",
        "spent_usd": 61.2,
        "warning_usd": 50.0,
        "hard_limit_usd": 100.0,
        "left_usd": 38.8,
        "state": "warning",
        "alerts": ["$61.20 of $100.00 were spent today"],
    },
    "events_list": {
        "events": [{"event_id": EVENT_ID, "event": EVENT}],
        "cursor": EVENT_ID,
        "gap": False,
    },
    "health_live": {"status": "ok", "timestamp": LATER},
    "health_ready": {"status": "ok", "checks": {"redis": "ok", "postgres": "ok"}},
    "health_agents_health": {"agents": {"infra": "ok", "qa": "stale"}},
    "dlq_list": {"letters": [LETTER]},
    "dlq_replay": LETTER,
    "dlq_purge": {"purged": 3},
    "audit_list": {"rows": [AUDIT], "next_cursor": None},
}
