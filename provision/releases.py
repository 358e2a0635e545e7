"""Releases of static sites: each in a folder of its own, one link says which is served.

    /var/www/<domain>/current -> releases/<id>

A release is whole before the link points to it, and is fetched through nginx after: what does
not come back as it lies there is not left in place.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tarfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from base.errors import ConflictError, InputError, NotRunningError
from base.plural import counted
from base.verbs import Folder, Git, Previous, Upload
from provision import looks, nginx, tree
from provision.box import Box
from provision.changes import new_id
from provision.disk import alone, point, sync, write
from provision.sites import Sites
from provision.sources import laid
from provision.spec import Spec
from provision.verb import Tell

KEPT = 5
VERIFY_S = 4.0
LOOK_AGAIN_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """source: where its files are from. notes: what else is to be known. switch_ms: from the
    new release in place until it came back through nginx.
    """

    id: str
    domain: str
    at: datetime
    who: str
    source: str
    files: int
    bytes: int
    notes: tuple[str, ...] = ()
    switch_ms: int = 0


class Releases:
    """who: for the record. owner: the user in whose workspaces a folder must lie (None: in
    anybody's). tell: hears each step. All but `known` raise NotFoundError for a site that is not
    there and ConflictError for one that is not static, or after everything is as it was.
    """

    def __init__(
        self, box: Box, *, who: str = "", owner: str | None = None, tell: Tell | None = None
    ) -> None:
        self._box, self._who, self._owner, self._hears = box, who, owner, tell

    async def deploy(self, domain: str, source: Folder | Git | Upload | Previous) -> Release:
        """Serve a new release; Previous: the one before. Raises InputError for what a source
        may not be or have.
        """
        if isinstance(source, Previous):
            return await self.previous(domain)
        spec = self._static(domain)
        with self._alone(domain):
            home = self._home(domain)
            at = datetime.now(UTC)
            release_id = new_id(at)
            fresh = home / "releases" / f".new-{release_id}"
            await self._tell(f"fetching {domain}'s files")
            try:
                async with laid(source, self._box, self._owner) as found:
                    await self._tell("copying them")
                    count = await asyncio.to_thread(tree.copy, found.folder, found.root, fresh)
                if not count.files:
                    raise InputError(f"there is no file in {found.told}")
            except BaseException:
                await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
                raise
            fresh.rename(home / "releases" / release_id)
            sync(home / "releases")
            release = Release(
                id=release_id,
                domain=domain,
                at=at,
                who=self._who,
                source=found.told,
                files=count.files,
                bytes=count.bytes,
            )
            before = self.known(domain)
            return await self._serve(spec, release, [release, *before])

    async def previous(self, domain: str) -> Release:
        """Back to the release that was served before the present one, which is forgotten."""
        spec = self._static(domain)
        with self._alone(domain):
            before = self._before(domain)
            return await self._serve(spec, before, [before, *self.known(domain)[2:]])

    def known(self, domain: str) -> list[Release]:
        """The one that is served first, then what was served before it."""
        known: list[Release] = []
        with suppress(FileNotFoundError):
            known = [_release(one) for one in json.loads(self._record(domain).read_text())]
        served, ids = self.current(domain), [one.id for one in known]
        if served in ids:
            return known[ids.index(served) :]
        # Killed between the link and the record: what the link says is so.
        return [_unrecorded(domain, served), *known] if served is not None else known

    def current(self, domain: str) -> str | None:
        """The id of the release that is served."""
        try:
            return (self._box.www / domain / "current").readlink().name
        except OSError:
            return None

    async def plan(self, domain: str, source: Folder | Git | Upload | Previous) -> list[str]:
        """What `deploy` would do; fetches, counts, changes nothing. Raises what it would."""
        self._static(domain)
        served = self.current(domain) or "nothing"
        if isinstance(source, Previous):
            before = self._before(domain)
            return [f"serve {before.id} from {before.source} again, instead of {served}"]
        async with laid(source, self._box, self._owner) as found:
            count = await asyncio.to_thread(tree.copy, found.folder, found.root, None)
        if not count.files:
            raise InputError(f"there is no file in {found.told}")
        return [
            f"copy {found.told}: {counted(count.files, 'file or folder', 'files and folders')}, "
            f"{counted(count.bytes, 'byte')}",
            f"serve them at {domain} instead of {served}",
            f"fetch a file through nginx; keep the last {KEPT} releases",
        ]

    def archive(self, domain: str) -> Path | None:
        """Pack the releases of a site that was removed and delete them; None: there are none.

        What the owner keeps in the same folder stays.
        """
        home = self._box.www / domain
        mine = [home / name for name in ("current", "releases")]
        with self._alone(domain):
            if not mine[1].is_dir():
                return None
            folder = self._box.state / "archive"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / f"{domain}-{new_id()}.tar.gz"
            fresh = path.with_suffix(".part")
            with tarfile.open(fresh, "w:gz", compresslevel=6) as archive:
                for one in mine:
                    if os.path.lexists(one):
                        archive.add(one, arcname=f"{domain}/{one.name}")
            fresh.chmod(0o600)
            fresh.rename(path)
            mine[0].unlink(missing_ok=True)
            shutil.rmtree(mine[1])
            self._record(domain).unlink(missing_ok=True)
            with suppress(OSError):
                home.rmdir()
            return path

    async def _serve(self, spec: Spec, release: Release, known: Sequence[Release]) -> Release:
        home, before = self._home(spec.domain), self.current(spec.domain)
        looked_at = spec.enabled and spec.domain not in Sites(self._box).problems()
        if looked_at and nginx.master(self._box) is None:
            raise NotRunningError("nginx does not run; start it and ask again")
        await self._tell(f"serving {release.id}")
        started_s = time.monotonic()
        point(home / "current", f"releases/{release.id}")
        try:
            if looked_at:
                await self._verify(spec, home / "releases" / release.id)
        except BaseException:
            if before is not None:
                point(home / "current", f"releases/{before}")
            else:
                (home / "current").unlink()
            await asyncio.to_thread(self._prune, home, {one.id for one in known[1:]})
            raise
        notes = () if looked_at else ("not looked at: the site is not served now",)
        took_ms = round((time.monotonic() - started_s) * 1000)
        done = replace(release, notes=notes, switch_ms=took_ms)
        kept = [done, *known[1:]][:KEPT]
        raw = json.dumps([shown(one) for one in kept], indent=1)
        write(self._record(spec.domain), raw.encode(), mode=0o600)
        await asyncio.to_thread(self._prune, home, {one.id for one in kept})
        return done

    async def _verify(self, spec: Spec, folder: Path) -> None:
        """A file of the release comes back through nginx, byte for byte. Raises ConflictError."""
        await self._tell("fetching a file through nginx")
        path = await asyncio.to_thread(_sample, folder)
        end_s = time.monotonic() + VERIFY_S
        while True:
            said = await looks.fetched(self._box, spec, path.relative_to(folder), path)
            if said is None:
                return
            if time.monotonic() > end_s:
                raise ConflictError(f"{said}; what was served before is served again")
            await asyncio.sleep(LOOK_AGAIN_S)

    def _before(self, domain: str) -> Release:
        known = self.known(domain)
        if len(known) < 2:
            raise ConflictError(f"{domain} has no release before the present one")
        return known[1]

    def _static(self, domain: str) -> Spec:
        spec = Sites(self._box).spec(domain)
        if spec.kind != "static":
            raise ConflictError(f"{domain} is a {spec.kind} site: it has no files of its own")
        if spec.root != self._box.www / domain / "current":
            raise ConflictError(f"{domain} is served from {spec.root}, which has no releases")
        return spec

    def _home(self, domain: str) -> Path:
        """The site's folder, whose parts are ours alone. Raises ConflictError."""
        home = self._box.www / domain
        for folder in (home, home / "releases"):
            with suppress(FileExistsError):
                folder.mkdir(parents=True)
                folder.chmod(0o755)
            found = os.lstat(folder)
            if folder.is_symlink() or not folder.is_dir() or found.st_uid != os.geteuid():
                raise ConflictError(f"{folder} is not a plain folder of root's; it is not touched")
        link = home / "current"
        if link.exists() and not link.is_symlink():
            raise ConflictError(f"{link} is there already and is no link to a release")
        return home

    def _prune(self, home: Path, kept: set[str]) -> None:
        for folder in (home / "releases").iterdir():
            if folder.name not in kept and folder.name != self.current(home.name):
                shutil.rmtree(folder)
        for left in home.glob(".current.*"):
            left.unlink()

    async def _tell(self, step: str) -> None:
        if self._hears is not None:
            await self._hears(step)

    def _record(self, domain: str) -> Path:
        return self._box.state / "releases" / f"{domain}.json"

    def _alone(self, domain: str) -> AbstractContextManager[None]:
        return alone(self._box.state / "releases" / f"{domain}.lock", f"the files of {domain}")


def shown(release: Release) -> dict[str, Any]:
    """For people, programs and the record: JSON values."""
    return {**asdict(release), "at": release.at.isoformat()}


def _sample(folder: Path) -> Path:
    """The start page, else the smallest file that nginx serves. Raises InputError."""
    if (start := folder / "index.html").is_file():
        return start
    shown = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    ]
    if not shown:
        raise InputError("there is no file in it that would be served")
    return min(shown, key=lambda path: (path.stat().st_size, path))


def _unrecorded(domain: str, release_id: str) -> Release:
    at = datetime.now(UTC)
    told = "unknown: the broker was stopped before it was recorded"
    return Release(id=release_id, domain=domain, at=at, who="", source=told, files=0, bytes=0)


def _release(raw: dict[str, Any]) -> Release:
    at = datetime.fromisoformat(raw["at"])
    return Release(**{**raw, "at": at, "notes": tuple(raw["notes"])})
