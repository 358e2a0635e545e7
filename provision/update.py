"""Another version of the product: made beside, switched to at once, and back if it does not work.

    fetch ─▶ look ─▶ build ─▶ back up ─▶ migrate ─▶ switch ─▶ restart ─▶ healthy? ─▶ done
                                             └─ a fault, or a death, from here on: roll back

`update.json` says how far it is. Whoever dies in between, `recover` at the next start puts the
release before back and removes what was half made; the backup and the migrations stay.

The root broker, which does this, comes last: after all else it starts anew, and until it runs the
release before is kept in sight. `starting`, before each of its starts, sees that one came to
nothing and puts the release before back.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pydantic import AwareDatetime, ValidationError

from base.errors import AIError, ConflictError, NotFoundError
from base.messages import Wire
from provision import expansion, source
from provision.disk import alone

Tell = Callable[[str], Awaitable[None]]
#: The link to the release that is known to work, for as long as another is tried.
SAFE = "before"
WHOLE = ".whole"
WAITING = ("broker", "broker starts")


class Journal(Wire):
    """step: what is being done; until `switch` nothing that runs was touched. `broker`: all else
    works and the broker is to start, `broker starts`: it tried to. before None: the first release.
    """

    version: str
    before: str | None
    step: str
    at: AwareDatetime


class Product(Protocol):
    """What an update does to the machine; each raises AIError."""

    @property
    def root(self) -> Path: ...

    @property
    def state(self) -> Path: ...

    @property
    def origin(self) -> source.Origin: ...

    async def room(self) -> str:
        """What `build` takes of the disk, in words."""

    async def build(self, release: Path, tell: Tell) -> None:
        """Its Python with its packages, in place: it cannot be moved afterwards."""

    async def back_up(self) -> str:
        """The snapshot's id."""

    async def migrate(self, release: Path) -> None:
        """The database to what this release needs."""

    async def restart(self, release: Path) -> None:
        """Lay out its units and order all programs to start anew, from `current`."""

    async def settle(self) -> None:
        """It is decided which release stays: what did this starts anew, too, in a moment."""

    async def healthy(self, version: str) -> str:
        """ "" once all of it works, else why not: as soon as that is known, at its deadline."""

    async def answers(self, version: str) -> str:
        """ "" once this version answers people again, else why not, after its own deadline."""


class Updated(Wire):
    """switched_s: how long things were down; kept: the releases that are there."""

    version: str
    before: str | None
    backup: str
    switched_s: float
    kept: list[str]


def current(product: Product) -> Path | None:
    """The release that the link names; None: there is none."""
    link = product.root / "current"
    return link.resolve() if link.is_symlink() and link.exists() else None


async def plan(product: Product, version: str) -> list[str]:
    """What `apply` would do. Raises ConflictError when it is that version already."""
    now = _differs(product, version)
    was = source.version_of(now) if now else None
    return [
        f"fetch {version} from {product.origin.source}, beside {was or 'nothing'}",
        "look at its migrations: they may only add to the database",
        "make its Python environment: "
        + (f"packages as in {was} are shared, others fetched; " if was else "")
        + await product.room(),
        "back everything up",
        "migrate the database",
        f"switch {product.root / 'current'} to it and restart the programs",
        "ask whether all of it works; if not, back to "
        + (f"{was} within a minute" if was else "nothing"),
    ]


async def apply(product: Product, version: str, tell: Tell) -> Updated:
    """Raises AIError in words; then the release before runs as it did."""
    with alone(product.state / "update.lock", "the product"):
        return await _apply(product, version, tell)


async def _apply(product: Product, version: str, tell: Tell) -> Updated:
    if (left := _journal(product)) is not None or _path(product).exists():
        if left is not None and left.step in WAITING:
            raise ConflictError(f"the root broker has yet to start as {left.version}; ask again")
        raise ConflictError("an update was cut off; first: ai-infra update --recover")
    now = _differs(product, version)
    before = now.name if now else None
    release = product.root / "releases" / version
    try:
        _note(product, version, before, "fetch")
        await _make(product, release, version, now, tell)
        _note(product, version, before, "back up")
        await tell("backing everything up")
        snapshot = await product.back_up()
        await tell("migrating the database")
        await product.migrate(release)
    except BaseException as error:
        _path(product).unlink(missing_ok=True)
        if not (release / WHOLE).exists():
            await _drop(release)
        if isinstance(error, OSError):  # no space is left, say
            raise ConflictError(f"{version} cannot be made: {error}") from error
        raise
    begun_s = time.monotonic()
    try:
        _note(product, version, before, "switch")
        if now is not None:
            _link(product.root / SAFE, now)
        _link(product.root / "current", release)
        await tell("restarting")
        await product.restart(release)
        await tell("looking whether it works")
        if problem := await product.healthy(version):
            raise ConflictError(f"{version} does not work: {problem}")
    except asyncio.CancelledError:
        await _recover(product)
        raise
    except AIError as error:
        await tell(f"rolling back: {error}")
        how = await _back(product, now, begun_s)
        raise ConflictError(f"rolled back to {how}: {error}") from error
    switched_s = round(time.monotonic() - begun_s, 1)
    if before is None:
        _end(product)
    else:
        _note(product, version, before, "broker")
    await product.settle()
    return Updated(
        version=version,
        before=before,
        backup=snapshot,
        switched_s=switched_s,
        kept=await _tidy(product, {release.name, before or ""}),
    )


async def recover(product: Product) -> str | None:
    """Undo an update that failed or was cut off; the version that was to be, None: there was none.

    Safe twice. Raises AIError when the release before cannot be put back, or while it is at work.
    """
    with alone(product.state / "update.lock", "the product"):
        return await _recover(product)


async def starting(product: Product) -> str | None:
    """Before each start of the broker: as `recover`, also for an update after which it has tried
    to start already. Raises ConflictError while an update is at work.
    """
    found = _journal(product)
    if found is not None and found.step == "broker":
        _note(product, found.version, found.before, "broker starts")
        return None
    return await recover(product)


def started(product: Product) -> None:
    """The broker runs: an update that waited for it has ended well."""
    found = _journal(product)
    if found is not None and found.step in WAITING:
        _end(product)


# Inside ----------------------------------------------------------------------------------------


async def _recover(product: Product) -> str | None:
    undone, restarted = await _undo(product)
    if restarted:
        await product.settle()
    return undone


async def _back(product: Product, now: Path | None, switched_s: float) -> str:
    """Roll back to the release `now` and see it answer: its name, and how long that took."""
    known_s = time.monotonic()
    await _undo(product)
    if now is None:
        return "nothing"
    late = await product.answers(source.version_of(now) or now.name)
    end_s = time.monotonic()
    await product.settle()
    if late:
        return f"{now.name}, which does not answer yet ({late})"
    return f"{now.name} in {end_s - known_s:.1f} s, {end_s - switched_s:.1f} s after the switch"


async def _undo(product: Product) -> tuple[str | None, bool]:
    """What is not there any more, and whether all programs were told to start anew for that."""
    if not _path(product).exists():
        return None, False
    found = _journal(product)
    safe = product.root / SAFE
    before = safe.resolve() if safe.is_symlink() and safe.exists() else None
    switched = found is not None and found.step in {"switch", *WAITING} and before is not None
    if switched and before is not None:
        if current(product) != before:
            _link(product.root / "current", before)
        await product.restart(before)
    if found is not None:
        release = product.root / "releases" / found.version
        if current(product) != release and not (release / WHOLE).exists():
            await _drop(release)
    _end(product)
    return found.version if found else "unknown", switched


async def _make(
    product: Product, release: Path, version: str, now: Path | None, tell: Tell
) -> None:
    """The release, whole; one that was made before is taken as it is. Raises AIError."""
    if not (release / WHOLE).exists():
        await _drop(release)
        release.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        await tell(f"fetching {version}")
        await source.fetch(product.origin, version, release)
        (release / WHOLE).unlink(missing_ok=True)  # of whoever offers a release that ran elsewhere
        release.chmod(0o755)
    if now is not None:
        was = source.version_of(now) or "0"
        if wrong := expansion.faults(expansion.read(now), expansion.read(release), was):
            raise ConflictError(f"{version} cannot follow {was}: {'; '.join(wrong)}")
    if not (release / WHOLE).exists():
        await tell("making its Python environment")
        try:
            await product.build(release, tell)
        except AIError as error:
            runs = f"; {now.name} runs on as it did" if now else ""
            raise ConflictError(f"{version} cannot be made: {error}{runs}") from error
        (release / WHOLE).touch()


def _differs(product: Product, version: str) -> Path | None:
    now = current(product)
    if now is not None and source.version_of(now) == version:
        raise ConflictError(f"it is {version} already")
    if product.origin.source.startswith("/") and not Path(product.origin.source).is_dir():
        raise NotFoundError(f"there is no folder {product.origin.source}")
    return now


def _path(product: Product) -> Path:
    return product.state / "update.json"


def _journal(product: Product) -> Journal | None:
    """None: there is none that can be read."""
    with suppress(OSError, ValidationError):
        return Journal.model_validate_json(_path(product).read_bytes())
    return None


def _note(product: Product, version: str, before: str | None, step: str) -> None:
    product.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = Journal(version=version, before=before, step=step, at=datetime.now(UTC))
    new = _path(product).with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(found.model_dump_json())
        file.flush()
        os.fsync(file.fileno())
    new.replace(_path(product))


def _end(product: Product) -> None:
    _path(product).unlink(missing_ok=True)
    (product.root / SAFE).unlink(missing_ok=True)


def _link(link: Path, target: Path) -> None:
    """At once: there is no moment without a link."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


async def _drop(release: Path) -> None:
    """It has so many files that the loop must turn meanwhile: systemd waits to hear of it."""
    await asyncio.to_thread(shutil.rmtree, release, ignore_errors=True)


async def _tidy(product: Product, needed: set[str]) -> list[str]:
    """Let the oldest releases go, but none that is needed; those that are left."""
    releases = product.root / "releases"
    found = sorted(releases.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    kept = [path.name for path in found][: product.origin.keep]
    for path in found:
        if path.name not in kept and path.name not in needed:
            await _drop(path)
    return sorted(path.name for path in releases.iterdir())
