"""What became of the last backup, check, drill and restore, in files of the home: for doctor and
the portal, which may be stopped while it is written, and whose database a restore exchanges.

    backup.json          the last good backup, why the try after it failed, sizes
    backup-proofs.json   the last check of the repository and the last drill
    restore.json         the last restore: under way, cut off, or how it ended
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import AwareDatetime, Field, ValidationError

from base.errors import AIError
from base.messages import Wire
from base.settings import Settings

#: Of so many snapshots the size is kept; the rest have gone long ago.
SIZES_MAX = 400
Found = TypeVar("Found", bound=Wire)


class Last(Wire):
    """The last good snapshot; problem: why the try after it failed. sizes: how many bytes each
    snapshot holds, by id, for a restic whose list does not say so.
    """

    at: AwareDatetime
    snapshot: str
    place: str
    took_s: float
    problem: str | None = None
    sizes: dict[str, int] = Field(default_factory=dict)


class Proof(Wire):
    """A look at the backups. snapshot: the newest then, or the one that was restored; whole: every
    byte was read; problem None: all was well. ready_s: of a drill, how long a recovery takes.
    """

    at: AwareDatetime
    snapshot: str
    took_s: float
    whole: bool = True
    problem: str | None = None
    ready_s: float | None = None


class Proofs(Wire):
    """verified: the last check of the repository; drilled: the last drill."""

    verified: Proof | None = None
    drilled: Proof | None = None


class Restore(Wire):
    """The last restore of this home. of: when its snapshot was made. ended_at None: it is under
    way, or was cut off. problem: why it failed; then everything is as it was before. aside and
    database_aside: where what was there before is.
    """

    begun_at: AwareDatetime
    snapshot: str
    of: AwareDatetime
    parts: tuple[str, ...]
    step: str = ""
    ended_at: AwareDatetime | None = None
    problem: str | None = None
    aside: str | None = None
    database_aside: str | None = None
    notes: tuple[str, ...] = ()


def path(settings: Settings) -> Path:
    return settings.home / "backup.json"


def last(settings: Settings) -> Last | None:
    """None: none was ever made, or it cannot be read."""
    return _read(path(settings), Last)


def write(settings: Settings, found: Last) -> None:
    """Whole or not at all. Raises OSError."""
    _write(path(settings), found)


def sized(settings: Settings, snapshot: str, size_bytes: int) -> dict[str, int]:
    """The sizes that are known, with this one's."""
    before = last(settings)
    known = {**(before.sizes if before else {}), snapshot: size_bytes}
    return dict(list(known.items())[-SIZES_MAX:])


def failed(settings: Settings, problem: str) -> None:
    """Keep what went wrong beside the last good one; a full disk keeps it out, and that is told
    by the error itself.
    """
    if (before := last(settings)) is not None:
        with contextlib.suppress(OSError):
            write(settings, before.model_copy(update={"problem": problem}))


def proofs(settings: Settings) -> Proofs:
    """Both empty: there was neither, or they cannot be read."""
    return _read(settings.home / "backup-proofs.json", Proofs) or Proofs()


def proved(settings: Settings, kind: Literal["verified", "drilled"], found: Proof) -> None:
    """Keep it in the place of the one before. A full disk, or a home of somebody else's, keeps it
    out: what was found is told by whoever looked.
    """
    with contextlib.suppress(OSError):
        now = proofs(settings).model_copy(update={kind: found})
        _write(settings.home / "backup-proofs.json", now)


def restored(settings: Settings) -> Restore | None:
    """None: none was ever begun, or it cannot be read."""
    return _read(settings.home / "restore.json", Restore)


@contextlib.contextmanager
def restoring(
    settings: Settings, begun: Restore
) -> Iterator[tuple[Callable[[str], None], Callable[[Mapping[str, object]], None]]]:
    """The block's restore, written down when it begins, at each step and when it ends: gives what
    tells a step, and what tells the end. Cut off, the record stays without an end.
    """
    now = begun

    def keep(**found: object) -> None:
        nonlocal now
        now = now.model_copy(update=found)
        with contextlib.suppress(OSError):
            _write(settings.home / "restore.json", now)

    keep()
    try:
        yield (
            lambda step: keep(step=step),
            lambda found: keep(ended_at=datetime.now(UTC), step="", **found),
        )
    except AIError as error:
        keep(ended_at=datetime.now(UTC), step="", problem=str(error))
        raise


def undone(settings: Settings) -> None:
    """What was cut off has been put back."""
    if (found := restored(settings)) is not None and found.ended_at is None:
        said = {"ended_at": datetime.now(UTC), "step": "", "problem": "it was cut off, and undone"}
        with contextlib.suppress(OSError):
            _write(settings.home / "restore.json", found.model_copy(update=said))


def _read(place: Path, shape: type[Found]) -> Found | None:
    with contextlib.suppress(OSError, ValidationError):
        return shape.model_validate_json(place.read_bytes())
    return None


def _write(place: Path, found: Wire) -> None:
    new = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        new.write_text(found.model_dump_json(), encoding="utf-8")
        new.chmod(0o644)
        new.replace(place)
    finally:
        new.unlink(missing_ok=True)
