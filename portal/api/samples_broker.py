"""What the examples of domains and of the broker are made of."""

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
OFFERED: dict[str, Any] = {
    "verbs": [{"name": "unit.restart", "approval": "admin", "deadline_s": 300, "changes": True}],
    "units": ["nginx.service"],
    "containers": [],
    "interrupted": [],
}
