"""What a restore would do, and what the snapshot holds, before anything is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from base.backup import restore, rules, staging
from base.backup.create import STAGE
from base.backup.restic import Restic, Snapshot
from base.backup.staging import Manifest
from base.plural import counted
from base.settings import Settings

#: Of a manifest's counts, those that say something to a person, with their nouns.
HELD = {
    "tasks": ("task",),
    "messages": ("message",),
    "memories": ("memory", "memories"),
    "users": ("user",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """steps: in the order in which they are done."""

    snapshot: Snapshot
    manifest: Manifest
    steps: tuple[str, ...]


async def plan(settings: Settings, snapshot: str, parts: Sequence[str]) -> Plan:
    """Raises NotFoundError for a snapshot that is not there, BackupError for one of a newer
    version, ConflictError after a restore that was cut off.
    """
    restore.unbroken(settings)
    restic = Restic.of(settings, rules.load(settings))
    found = await restic.find(snapshot)
    manifest = staging.parsed(await restic.read(found.id, f"/{STAGE}/{staging.MANIFEST}"))
    staging.known(manifest)
    steps = [
        f"fetch {found.id} of {found.at:%Y-%m-%d %H:%M}, made by {found.version}, and check it: "
        f"{held(manifest.counts)}",
        "stop all programs but Redis and this broker; running tasks stop",
        f"put {', '.join(parts)} in place, with what is there now kept in "
        f"{settings.home / 'aside'}",
        "have nginx serve the sites of then, each tried first",
        "start them again; if they do not, put back what was there",
    ]
    if settings.broker is None:
        steps[1] = "stop all programs, the portal too; running tasks stop"
        steps.pop(3)
    return Plan(snapshot=found, manifest=manifest, steps=tuple(steps))


def held(counts: dict[str, int]) -> str:
    """The rows of a snapshot's database in words, "" for none that are known."""
    return ", ".join(counted(counts[name], *noun) for name, noun in HELD.items() if name in counts)
