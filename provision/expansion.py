"""Whether the release before can go on with the database that a new one has migrated.

A roll-back switches the program back and not the database, so an update may only add to it. What
takes something away (a contraction) comes in a later version, says from which version on nobody
reads it any more, in its first line, and is refused from an older one:

    -- contract: 0.4.0
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from base.migrations import CONTRACT, number

#: What an older program may trip over.
TAKES = re.compile(
    r"\b(DROP\s+(TABLE|COLUMN|VIEW|MATERIALIZED\s+VIEW|FUNCTION|TYPE)|RENAME\s+(COLUMN|TO)"
    r"|ALTER\s+COLUMN\s+\S+\s+(SET\s+NOT\s+NULL|(SET\s+DATA\s+)?TYPE)|TRUNCATE)\b",
    re.IGNORECASE,
)
COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


def read(release: Path) -> dict[str, str]:
    """The migrations of a release, by name."""
    folder = release / "base" / "schema"
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.sql"))}


def faults(old: Mapping[str, str], new: Mapping[str, str], version: str) -> list[str]:
    """Why an update from `version` with the migrations `old` must not be; none: it may."""
    found = [f"{name} is missing in it" for name in old if name not in new]
    found += [f"{name} was edited" for name, text in old.items() if new.get(name, text) != text]
    for name in sorted(set(new) - set(old)):
        told = TAKES.search(COMMENT.sub(" ", new[name]))
        if told is None:
            continue
        since = CONTRACT.match(new[name])
        words = " ".join(told[0].split())
        if since is None:
            found.append(f"{name} takes something away ({words}): roll-back would be impossible")
        elif number(version) < number(since[1]):
            found.append(f"{name} takes away what {version} reads: update to {since[1]} first")
    return found
