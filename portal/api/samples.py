"""One of each thing, made up: what the examples of the API are put together from."""

from __future__ import annotations

from typing import Any

AT = "2026-11-28T09:30:00Z"
LATER = "2026-11-28T09:31:12Z"
USER = "5b0f1a52-6a5e-5d3c-9f0a-2c1a6e1f7b10"
CONVERSATION_ID = "0f9a2f0e-6c39-4f0e-8a53-7d2b8b6c2a11"
MESSAGE_ID = "c0a8e2a4-2f4f-4b86-9d2f-3e7a5b1c9d22"
ANSWER_ID = "9d4c1b7e-3a58-5e2d-8f61-4b0c7a9e6d33"
TASK_ID = "7e1d3c5b-9a28-4f64-b0e7-6d5c4b3a2f44"
PART_ID = "2a6f8e0d-4c1b-4935-a7e8-1f0d9c8b7a55"
APPROVAL_ID = "b3d5f7a9-1c2e-4d60-8f9b-0a1b2c3d4e66"
MEMORY_ID = "d1e2f3a4-b5c6-4d78-9e0f-1a2b3c4d5e77"
WEBHOOK_ID = "e9f8a7b6-c5d4-4e32-8f10-9a8b7c6d5e88"
DELIVERY_ID = "f0e1d2c3-b4a5-4968-8778-6a5b4c3d2e99"
QUESTION = "Why does the nightly import fail?"
ANSWER = "The disk was full. I removed 12 GB of old logs, and the import ran through."
EVENT_ID = "1764322200000-0"

CONVERSATION: dict[str, Any] = {
    "id": CONVERSATION_ID,
    "title": "Why does the nightly import fail?",
    "status": "active",
    "created_at": AT,
    "updated_at": LATER,
}
SAID: dict[str, Any] = {
    "id": MESSAGE_ID,
    "conversation_id": CONVERSATION_ID,
    "role": "user",
    "content": QUESTION,
    "agent": None,
    "task_id": TASK_ID,
    "parent_message_id": None,
    "created_at": AT,
}
ANSWERED: dict[str, Any] = SAID | {
    "id": ANSWER_ID,
    "role": "assistant",
    "content": ANSWER,
    "agent": "supervisor",
    "created_at": LATER,
}
ACCEPTED: dict[str, Any] = {
    "message_id": MESSAGE_ID,
    "task_id": TASK_ID,
    "answer_message_id": ANSWER_ID,
    "conversation_id": CONVERSATION_ID,
}
SPENT: dict[str, Any] = {
    "model_calls": 4,
    "input_tokens": 9_120,
    "output_tokens": 1_804,
    "cache_read_tokens": 21_500,
    "cache_write_tokens": 3_200,
    "cost_usd": 0.0612,
}
TASK: dict[str, Any] = {
    "id": TASK_ID,
    "root_id": TASK_ID,
    "parent_task_id": None,
    "conversation_id": CONVERSATION_ID,
    "message_id": MESSAGE_ID,
    "key": None,
    "title": "Find out why the nightly import fails",
    "type": "request",
    "assigned_agent": "supervisor",
    "requested_agent": None,
    "status": "completed",
    "priority": 5,
    "effort": "standard",
    "pai_phase": None,
    "workspace": "main",
    "depends_on": [],
    "input": {"content": QUESTION, "effort": None, "agent": None, "workspace": "main"},
    "output": {},
    "error": None,
    "verification_criteria": None,
    "usage": SPENT,
    "budget_tokens": 400_000,
    "budget_usd": 2.0,
    "cancel_requested": False,
    "created_at": AT,
    "updated_at": LATER,
    "started_at": AT,
    "completed_at": LATER,
}
PART: dict[str, Any] = TASK | {
    "id": PART_ID,
    "parent_task_id": TASK_ID,
    "key": "look",
    "title": "Look at the import's log and the disk",
    "type": "subtask",
    "assigned_agent": "infra",
    "pai_phase": "LEARN",
    "input": {"instruction": "Look at the import's log and the disk"},
}
AGENT: dict[str, Any] = {
    "name": "infra",
    "title": "Infrastructure",
    "capabilities": ["servers", "networks"],
    "level": 2,
    "status": "idle",
    "paused": False,
    "last_heartbeat": LATER,
    "current_task_id": None,
}
APPROVAL: dict[str, Any] = {
    "id": APPROVAL_ID,
    "status": "pending",
    "request": {
        "task_id": PART_ID,
        "root_id": TASK_ID,
        "user_id": USER,
        "agent": "infra",
        "epoch": 1,
        "call_id": "toolu_01",
        "kind": "tool",
        "tool": "shell",
        "argv": ["rm", "-r", "/var/log/import/2025"],
        "cwd": "/workspaces/main",
        "environment": {},
        "operands": [],
        "host": None,
        "level": 2,
    },
    "binding": "0c5a" * 16,
    "risk": "high",
    "sentence": "infra wants to delete /var/log/import/2025. It cannot be brought back.",
    "created_at": AT,
    "expires_at": LATER,
    "decided_at": None,
    "decided_by": None,
    "decided_via": None,
    "decided_why": "",
}
MEMORY: dict[str, Any] = {
    "id": MEMORY_ID,
    "user_id": USER,
    "collection": "memories",
    "text": "The import writes its logs to /var/log/import.",
    "kind": "fact",
}
WEBHOOK: dict[str, Any] = {
    "id": WEBHOOK_ID,
    "url": "https://ci.example.org/hooks/ai",
    "description": "the build server",
    "private": False,
    "status": "active",
    "failures": 0,
    "disabled_at": None,
    "disabled_why": None,
    "created_at": AT,
}
DELIVERY: dict[str, Any] = {
    "id": DELIVERY_ID,
    "event": "task.finished",
    "task_id": TASK_ID,
    "status": "delivered",
    "attempts": 1,
    "response_status": 204,
    "error": None,
    "took_ms": 83,
    "created_at": LATER,
    "next_at": None,
    "ended_at": LATER,
}
DOMAIN: dict[str, Any] = {
    "id": WEBHOOK_ID,
    "domain_name": "example.org",
    "status": "active",
    "ssl_status": "active",
    "ssl_expires_at": "2027-02-26T09:30:00Z",
    "created_at": AT,
    "days_left": 90,
    "kind": "static",
    "names": ["example.org", "www.example.org"],
    "upstream": None,
    "target": None,
    "release": "20261128-0930",
    "problem": None,
}
SUM: dict[str, Any] = {
    "date": "2026-11-28",
    "requests": 4,
    "input_tokens": 9_120,
    "output_tokens": 1_804,
    "cost_usd": 0.0612,
}
USED: dict[str, Any] = SUM | {
    "agent": "infra",
    "provider": "anthropic",
    "model": "claude-sonnet-5",
    "cache_read_tokens": 21_500,
    "cache_write_tokens": 3_200,
    "latency_ms": 2_310.5,
}
EVENT: dict[str, Any] = {
    "kind": "task",
    "agent": "infra",
    "user_id": USER,
    "conversation_id": CONVERSATION_ID,
    "root_id": TASK_ID,
    "task_id": PART_ID,
    "timestamp": LATER,
    "data": {"status": "in_progress", "phase": "OBSERVE", "progress": 0.1},
}
LETTER: dict[str, Any] = {
    "id": "results/1764322200000-0",
    "source_queue": "results",
    "error_type": "DecodeError",
    "error_message": "undecodable message: task_id: Field required",
    "attempts": 3,
    "failed_at": LATER,
    "original_message": "{}",
}
AUDIT: dict[str, Any] = {
    "seq": 4_711,
    "id": DELIVERY_ID,
    "timestamp": LATER,
    "event_type": "action",
    "actor_type": "user",
    "actor_id": USER,
    "actor_ip": "127.0.0.1",
    "resource_type": "service",
    "resource_path": f"tasks/{TASK_ID}",
    "action": "write",
    "outcome": "success",
    "details": {"effort": None},
    "risk_level": "low",
    "prev_hash": "1b4f" * 16,
    "hash": "9e2c" * 16,
}
TOKENS: dict[str, Any] = {"token": "eyJ…", "expires_at": LATER, "refresh_token": "Qm…"}
#: What a webhook is sent.
FINISHED: dict[str, Any] = {
    "id": DELIVERY_ID,
    "type": "task.finished",
    "webhook_id": WEBHOOK_ID,
    "task": {
        "id": TASK_ID,
        "status": "completed",
        "title": TASK["title"],
        "error": None,
        "effort": "standard",
        "workspace": "main",
        "conversation_id": CONVERSATION_ID,
        "message_id": MESSAGE_ID,
        "answer_message_id": ANSWER_ID,
        "created_at": "2026-11-28T09:30:00+00:00",
        "completed_at": "2026-11-28T09:31:12+00:00",
        "cost_usd": 0.0612,
        "usage": SPENT,
        "subtasks": [
            {"id": PART_ID, "agent": "infra", "title": PART["title"], "status": "completed"}
        ],
    },
    "answer": ANSWER,
}
LINK: dict[str, Any] = {
    "url": "http://127.0.0.1:8000/login?token=Zk3…",
    "path": "/login?token=Zk3…",
    "token": "Zk3…",
    "expires_at": LATER,
}
ACCOUNT: dict[str, Any] = {
    "id": USER,
    "email": "ada@example.org",
    "display_name": "Ada",
    "role": "user",
    "is_active": True,
    "invited": False,
    "created_at": AT,
    "last_login_at": LATER,
}
IDENTITY: dict[str, Any] = {
    "provider": "github",
    "email": "ada@example.org",
    "created_at": AT,
    "used_at": LATER,
}
ME: dict[str, Any] = {
    "id": USER,
    "email": "ada@example.org",
    "role": "user",
    "display_name": "Ada",
    "time_zone": "Europe/Berlin",
    "has_password": True,
    "identities": [IDENTITY],
    "scopes": None,
}
SESSION: dict[str, Any] = {
    "id": DELIVERY_ID,
    "device": "Firefox on Linux",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "address": "127.0.0.1",
    "how": "password",
    "created_at": AT,
    "last_seen_at": LATER,
    "expires_at": "2026-12-28T09:30:00Z",
    "current": True,
}
API_TOKEN: dict[str, Any] = {
    "id": WEBHOOK_ID,
    "name": "the build server",
    "hint": "ait_3f9c",
    "scopes": ["tasks:read", "tasks:write"],
    "created_at": AT,
    "expires_at": "2027-02-26T09:30:00Z",
    "last_used_at": None,
}
FILE: dict[str, Any] = {
    "id": APPROVAL_ID,
    "name": "import.log",
    "kind": "text",
    "media_type": "text/plain",
    "size_bytes": 18_204,
}
CARD: dict[str, Any] = {
    "memory": MEMORY,
    "tier": "warm",
    "hash": "7d3a" * 16,
    "support": 2,
    "access_count": 5,
    "used_at": LATER,
    "first_seen": AT,
    "stored_at": AT,
    "feedback": 0.5,
    "utility": 0.61,
    "helped": 3,
    "harmed": 0,
    "usefulness": 0.8,
}
GIVEN: dict[str, Any] = {
    "memory_id": MEMORY_ID,
    "task_id": PART_ID,
    "agent": "infra",
    "place": 1,
    "text": MEMORY["text"],
    "kind": "fact",
    "about": "",
    "why": ["words"],
    "score": 0.82,
    "learned_at": AT,
    "from_task_id": None,
}
STANDING: dict[str, Any] = {
    "agent": AGENT,
    "window": "running",
    "restarts": 0,
    "since": AT,
    "pid": 4_711,
    "cpu_percent": 1.5,
    "rss_bytes": 61_000_000,
    "heartbeat_age_s": 3.2,
    "root_id": None,
    "title": None,
    "phase": None,
    "progress": None,
    "tool": None,
    "tool_since": None,
    "last_event_at": LATER,
    "approvals": 0,
    "queue": 0,
    "waiting": 0,
    "model_calls": 4,
    "tokens": 10_924,
    "cost_usd": 0.0612,
    "trouble": None,
}
VOICE: dict[str, Any] = {"provider": "openai", "title": "OpenAI", "ready": True, "note": ""}
HEARD: dict[str, Any] = {
    "text": "Why does the nightly import fail?",
    "provider": "openai",
    "title": "OpenAI",
    "ms": 640,
    "seconds_s": 2.4,
}
HEALTH: dict[str, Any] = {
    "at": LATER,
    "ok": False,
    "checks": [
        {
            "name": "dead letters",
            "ok": False,
            "detail": "2 dead letters",
            "mend": "ai-infra dlq list; then replay or purge",
            "skipped": False,
            "took_ms": 12,
        }
    ],
    "backup": {"place": "/mnt/kept", "at": LATER, "snapshot": "986b286e", "problem": None},
}
