"""The sites in a backup: what nginx is told of them, their files, and the root broker's record of
both, by which a change can be undone. On the appliance alone; nothing of the owner's nginx.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NGINX, WWW, RECORD = Path("/etc/nginx/ai-infra"), Path("/var/www"), Path("/var/lib/ai-broker")
#: Of the record, what is of the process that runs and not of what it has done.
RUNNING = frozenset(
    {"audit", "certbot", "certbot.lock", "journal.jsonl", "lock", "logs", "update.json",
     "update.lock"}
)  # fmt: skip
SPECS = "current/specs.json"


def places() -> list[Path]:
    """Where they lie now: of the files, those of each site that has releases."""
    names = [one["domain"] for one in _specs(NGINX) or () if one["kind"] == "static"]
    return [NGINX, RECORD, *(WWW / name for name in names)]


def without() -> list[str]:
    """What of it is in no backup."""
    return [str(RECORD / name) for name in sorted(RUNNING)]


def faults(root: Path, among: tuple[Path, ...]) -> tuple[int, list[str]]:
    """How many sites are served by a snapshot that was fetched to `root`, and what of theirs is
    not in it. among: where certificates lie that are in backups; others are the owner's own.
    """
    specs = _specs(_in(root, NGINX))
    if specs is None:
        return 0, ["what nginx serves cannot be read in it"]
    found = []
    for one in specs:
        if not one["enabled"]:
            continue
        wanted = [one["root"]] if one["kind"] == "static" else []
        wanted += [
            one[name]
            for name in ("certificate", "key")
            if one[name] and any(Path(one[name]).is_relative_to(place) for place in among)
        ]
        gone = [path for path in wanted if not _in(root, Path(path)).exists()]
        found += [f"{one['domain']}: {path} is not in it" for path in gone]
    return sum(one["enabled"] for one in specs), found


def _in(root: Path, path: Path) -> Path:
    return root / str(path).lstrip("/")


def _specs(place: Path) -> list[dict[str, Any]] | None:
    """As provision/generations.py writes them; None: not there, or nothing that can be read."""
    try:
        found: list[dict[str, Any]] = json.loads((place / SPECS).read_bytes())["specs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found
