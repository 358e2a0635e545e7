"""Examples of the configuration's requests and answers, by operation; see `examples.py`."""

from __future__ import annotations

from typing import Any

AT = "2026-11-28T09:30:00Z"
PATH = "/home/ada/.ai-infra/config/budgets.toml"
FILE: dict[str, Any] = {
    "file": "budgets",
    "path": PATH,
    "about": "What a task and a day may cost",
    "version": "9f2c41d07b3a",
    "modified_at": AT,
    "text": "[daily]\nhard_limit_usd = 20.0\n",
    "withheld": "",
    "own": {"daily": {"hard_limit_usd": 20.0}},
    "values": {"daily": {"warning_usd": 10.0, "hard_limit_usd": 20.0}},
    "faults": [],
    "environment": [],
}
CHANGE: dict[str, Any] = {
    "version": "9f2c41d07b3a",
    "changes": [{"at": ["daily", "hard_limit_usd"], "value": 25.0}],
}
WRITTEN: dict[str, Any] = {
    "configured": FILE,
    "changed": ["daily.hard_limit_usd"],
    "restart": ["supervisor"],
}
KEY: dict[str, Any] = {
    "name": "anthropic-api-key",
    "about": "Claude answers with it",
    "source": "file",
    "since": AT,
    "fault": None,
    "settable": True,
    "why": "",
    "can_try": True,
}
BODIES: dict[str, Any] = {
    "settings_put_key": {"value": "sk-…"},
    "settings_restart": {"programs": ["agents"]},
    "settings_put_agent": {
        "version": "absent",
        "text": 'prompt = "You publish."\nlevel = "standard"\n',
    },
    "settings_put_file": CHANGE,
}
ANSWERS: dict[str, Any] = {
    "settings_files": {"files": [FILE]},
    "settings_file": FILE,
    "settings_agent": FILE | {"file": "agents/code"},
    "settings_put_file": WRITTEN,
    "settings_put_agent": WRITTEN,
    "settings_keys": {"keys": [KEY]},
    "settings_put_key": KEY,
    "settings_try_key": {"ok": True, "said": "Hello.", "latency_ms": 512, "cost_usd": 0.0001},
    "settings_restart": {"restarted": ["code", "data"]},
    "settings_added": {
        "config": "/home/ada/.ai-infra/config",
        "agents": [
            {
                "name": "code",
                "title": "Writes and mends programs",
                "level": 1,
                "model": "claude-sonnet-5-5",
                "daily_usd": 0.0,
                "tools": 20,
                "path": "/home/ada/.ai-infra/config/agents/code.toml",
                "own": False,
                "shipped": True,
            }
        ],
        "agent_faults": [],
        "hooks": [],
        "hooks_path": "/home/ada/.ai-infra/config/settings.json",
        "hook_faults": [],
        "servers": [],
    },
}
