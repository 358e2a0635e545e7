"""Another version of the product: made beside, switched to at once, and back if it does not work.

    fetch ─▶ look ─▶ build ─▶ back up ─▶ migrate ─▶ switch ─▶ restart ─▶ healthy? ─▶ done
                                             └─ a fault, or a death, from here on: roll back

`update.json` says how far it is. Whoever dies in between, `recover` at the next start puts the
release before back and removes what was half made; the backup and the migrations stay.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pydantic import AwareDatetime, ValidationError

from base.errors import AIError, ConflictError, NotFoundError
from base.messages import Wire
from provision import expansion, source

Tell = Callable[[str], Awaitable[None]]
#: The link to the release that is known to work, for as long as another is tried.
SAFE = "before"
WHOLE = ".whole"


class Journal(Wire):
    """step: what is being done; until `switch` nothing that runs was touched. before None: the
    first release.
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

    async def build(self, release: Path) -> None:
        """Its Python with its packages, in place: it cannot be moved afterwards."""

    async def back_up(self) -> str:
        """The snapshot's id."""

    async def migrate(self, release: Path) -> None:
        """The database to what this release needs."""

    async def restart(self, release: Path) -> None:
        """Lay out its units and start all programs anew, from `current`."""

    async def settle(self) -> None:
        """It is decided which release stays: what did this starts anew, too, in a moment."""

    async def healthy(self, version: str) -> str:
        """ "" once all of it works, else why not, after its own deadline."""


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
        "make its Python environment",
        "back everything up",
        "migrate the database",
        f"switch {product.root / 'current'} to it and restart the programs",
        "ask whether all of it works; if not, back to "
        + (f"{was} within a minute" if was else "nothing"),
    ]


async def apply(product: Product, version: str, tell: Tell) -> Updated:
    """Raises AIError in words; then the release before runs as it did."""
    if _path(product).exists():
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
    except BaseException:
        _path(product).unlink(missing_ok=True)
        if not (release / WHOLE).exists():
            shutil.rmtree(release, ignore_errors=True)
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
    except (AIError, asyncio.CancelledError) as error:
        await tell(f"rolling back: {error}")
        await recover(product)
        if isinstance(error, AIError):
            raise ConflictError(f"rolled back to {before or 'nothing'}: {error}") from error
        raise
    switched_s = round(time.monotonic() - begun_s, 1)
    _end(product)
    await product.settle()
    return Updated(
        version=version,
        before=before,
        backup=snapshot,
        switched_s=switched_s,
        kept=_tidy(product, {release.name, before or ""}),
    )


async def recover(product: Product) -> str | None:
    """Undo an update that failed or was cut off; the version that was to be, None: there was none.

    Safe twice. Raises AIError when the release before cannot be started.
    """
    path = _path(product)
    try:
        found = Journal.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        found = None
    safe = product.root / SAFE
    before = safe.resolve() if safe.is_symlink() and safe.exists() else None
    switched = found is not None and found.step == "switch" and before is not None
    if switched and before is not None:
        if current(product) != before:
            _link(product.root / "current", before)
        await product.restart(before)
    if found is not None:
        release = product.root / "releases" / found.version
        if current(product) != release and not (release / WHOLE).exists():
            shutil.rmtree(release, ignore_errors=True)
    _end(product)
    if switched:
        await product.settle()
    return found.version if found else "unknown"


# Inside ----------------------------------------------------------------------------------------


async def _make(
    product: Product, release: Path, version: str, now: Path | None, tell: Tell
) -> None:
    """The release, whole; one that was made before is taken as it is. Raises AIError."""
    if not (release / WHOLE).exists():
        shutil.rmtree(release, ignore_errors=True)
        release.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        await tell(f"fetching {version}")
        await source.fetch(product.origin, version, release)
        release.chmod(0o755)
    if now is not None:
        was = source.version_of(now) or "0"
        if wrong := expansion.faults(expansion.read(now), expansion.read(release), was):
            raise ConflictError(f"{version} cannot follow {was}: {'; '.join(wrong)}")
    if not (release / WHOLE).exists():
        await tell("making its Python environment")
        await product.build(release)
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


def _tidy(product: Product, needed: set[str]) -> list[str]:
    """Let the oldest releases go, but none that is needed; those that are left."""
    releases = product.root / "releases"
    found = sorted(releases.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    kept = [path.name for path in found][: product.origin.keep]
    for path in found:
        if path.name not in kept and path.name not in needed:
            shutil.rmtree(path, ignore_errors=True)
    return sorted(path.name for path in releases.iterdir())
