"""What the examples of domains, of the broker and of backups are made of."""

from __future__ import annotations

from typing import Any

from portal.api.samples import AT

CHANGES: dict[str, Any] = {
    "changes": [
        {
            "id": "20261128T093000000000-5f3a21",
            "at": AT,
            "verb": "add",
            "domain": "example.org",
            "who": "infra",
            "why": "",
            "state": "done",
            "diff": "+server_name example.org;",
        }
    ]
}
WORK: dict[str, Any] = {
    "id": "5c0e7d4e-3a3f-4e07-a8f5-6d0a4f2f6b11",
    "kind": "backup",
    "snapshot": None,
    "state": "running",
    "step": "dumping the database",
    "begun_at": AT,
    "ended_at": None,
    "problem": None,
}
PROGRESS: dict[str, Any] = {
    "work": WORK,
    "last": {
        "at": AT,
        "snapshot": "986b286e",
        "place": "/mnt/kept",
        "took_s": 41.5,
        "problem": None,
        "sizes": {"986b286e": 734003200},
    },
    "verified": {
        "at": AT,
        "snapshot": "986b286e",
        "took_s": 12.1,
        "whole": True,
        "problem": None,
        "ready_s": None,
    },
    "drilled": None,
    "restored": {
        "begun_at": AT,
        "snapshot": "986b286e",
        "of": AT,
        "parts": ["database", "memory"],
        "step": "",
        "ended_at": AT,
        "problem": None,
        "aside": "/var/lib/ai-infra/aside/20261128_093000",
        "database_aside": "ai_infra_before_20261128_093000",
        "notes": [],
    },
}
BACKUPS: dict[str, Any] = {
    "progress": PROGRESS,
    "local": False,
    "place": "/mnt/kept",
    "key": "/etc/ai-infra/backup.key",
    "keep": {"daily": 7, "weekly": 4, "monthly": 6},
    "workspaces": True,
    "timers": [{"unit": "ai-backup.timer", "does": "backup", "active": True, "next_at": AT}],
    "busy": True,
    "snapshots": [
        {
            "id": "986b286e",
            "at": AT,
            "host": "home",
            "version": "0.1.0",
            "size_bytes": 734003200,
            "counts": {"tasks": 120, "messages": 410, "memories": 77, "users": 2},
        }
    ],
}
PLANNED: dict[str, Any] = {
    "snapshot": "986b286e",
    "plan": ["fetch 986b286e of 2026-11-28 09:30, made by 0.1.0, and check it: 120 tasks"],
    "command": None,
}
OFFERED: dict[str, Any] = {
    "verbs": [{"name": "unit.restart", "approval": "admin", "deadline_s": 300, "changes": True}],
    "units": ["nginx.service"],
    "containers": [],
    "interrupted": [],
}
