"""Whether the owner's configuration changed: each file that did is written down, by its digest."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from base import log
from base.audit import AuditEvent
from base.settings import Settings
from portal.trail import Trail, event

LOOK_S = 20.0
#: Files that say what agents may do; the others are of less weight.
GRAVE = frozenset({"levels.toml", "approvals.toml", "limits.toml", "mcp.toml"})

Digests = Mapping[str, str]


async def watch(settings: Settings, trail: Trail, look_s: float = LOOK_S) -> None:
    """Look now, against what was seen before the last stop, and every `look_s` from then on."""
    seen_path = settings.run / "configuration.json"
    before, stamps = _remembered(seen_path), None
    while True:
        if (fresh := _stamps(settings.config)) != stamps:
            now = digests(settings.config)
            for change in changes(before or {}, now) if before is not None else ():
                trail.tell(change)
            if now != before:
                _remember(seen_path, now)
            before, stamps = now, fresh
        await asyncio.sleep(look_s)


def changes(before: Digests, now: Digests) -> Iterator[AuditEvent]:
    """An event for each file that came, went or changed."""
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            found = event(
                "action",
                "write" if name in now else "delete",
                name,
                actor_id="owner",
                resource_type="file",
                risk="high" if name in GRAVE else "medium",
                reason="the configuration changed",
                sha256_before=before.get(name),
                sha256_after=now.get(name),
            )
            yield found.model_copy(update={"actor_type": "system"})


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of the configuration, by its path in the folder."""
    found = {}
    for path in _files(folder):
        try:
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            log.get("portal").warning("configuration not readable", path=path, error=str(error))
    return found


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*.toml")) if path.is_file())


def _stamps(folder: Path) -> list[tuple[Path, int, int]]:
    """What changes when a file does, without reading it."""
    found = []
    for path in _files(folder):
        try:
            stat = path.stat()
        except OSError:  # gone between the listing and now
            continue
        found.append((path, stat.st_mtime_ns, stat.st_size))
    return found


def _remembered(path: Path) -> dict[str, str] | None:
    """What was there when we last looked; None: never."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {str(name): str(digest) for name, digest in found.items()}


def _remember(path: Path, found: Digests) -> None:
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(found), encoding="utf-8")
    fresh.replace(path)
