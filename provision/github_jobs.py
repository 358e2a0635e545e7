"""The repositories of outside.toml as jobs: back up, sync, release, and which of them are due.

What became of each is kept in the broker's state, one JSON file a repository.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from croniter import croniter
from pydantic import AwareDatetime, BaseModel

from base import log
from base.errors import AIError, ConflictError, InputError, NotFoundError
from base.plural import counted
from base.redact import redact
from base.settings import load
from base.verbs_outside import GithubRelease
from provision import outside
from provision.box import Box
from provision.git import Repo
from provision.github import Github, Release
from provision.mirror import Done, Mirror
from provision.outside import Outside, Repository
from provision.reconcile import Side
from provision.snapshot import listed
from provision.verb import Tell

#: A job that failed is tried again after so long, not at its next time alone.
AGAIN = timedelta(hours=1)
DIFF_LINES = 60
#: Named on their own as well, for a path of the owner's may lie above them.
KEYS = ("/etc/letsencrypt", "/etc/ssl/private", "/etc/ssh", "/root")

logger = log.get("github")


class State(BaseModel, frozen=True):
    """tried_at, done_at: the last run's beginning, and the last that went well. both: path → why
    both sides kept their own. left: how many files are in no repository.
    """

    tried_at: AwareDatetime | None = None
    done_at: AwareDatetime | None = None
    commit: str | None = None
    problem: str | None = None
    both: dict[str, str] = {}
    left: int = 0


class Jobs:
    """Each method raises the errors of base.errors in words; without a token, ConflictError."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def outside(self) -> Outside:
        return outside.read(self._box)

    def one(self, name: str, kind: str | None = None) -> Repository:
        """Raises NotFoundError for a name that outside.toml does not have, InputError for a
        repository of the other kind.
        """
        all_of_them = self.outside().repositories
        if not all_of_them:
            raise ConflictError(
                "no repository is set up: name some under [repositories] in "
                f"{self._box.config / 'outside.toml'}"
            )
        if name not in all_of_them:
            raise NotFoundError(f"no repository {name!r}; there are: {', '.join(all_of_them)}")
        if kind is not None and all_of_them[name].kind != kind:
            raise InputError(f"{name} is for {all_of_them[name].kind}, not for {kind}")
        return all_of_them[name]

    async def backup(self, name: str, tell: Tell, *, dry_run: bool = False) -> Done:
        one = self.one(name, "backup")
        async with self._recorded(name, dry_run=dry_run) as record:
            mirror = await self._mirror(name, one, tell, dry_run=dry_run)
            record.append(await mirror.backup(tell, dry_run=dry_run))
        return record[0]

    async def sync(
        self, name: str, settled: Mapping[str, Side], tell: Tell, *, dry_run: bool = False
    ) -> Done:
        one = self.one(name, "sync")
        async with self._recorded(name, dry_run=dry_run) as record:
            mirror = await self._mirror(name, one, tell, dry_run=dry_run)
            record.append(await mirror.sync(settled, tell, dry_run=dry_run))
        return record[0]

    async def release(self, wanted: GithubRelease, tell: Tell, *, dry_run: bool = False) -> Release:
        one = self.one(wanted.name)
        github = await self._github(tell)
        try:
            full_name = self.outside().full_name(one)
            return await github.release(full_name, wanted, dry_run=dry_run)
        finally:
            github.close()

    def due(self, now: datetime | None = None) -> list[str]:
        """The names whose time has come, whose last run is longest ago first; `now` with this
        machine's own zone.
        """
        now = now or datetime.now().astimezone()
        found: list[tuple[float, str]] = []
        for name, one in self.outside().repositories.items():
            state = self.state(name)
            if not one.schedule:
                continue
            if state.tried_at is None:
                found.append((0.0, name))
                continue
            last = state.tried_at.astimezone(now.tzinfo)
            ready = croniter(one.schedule, last).get_next(datetime)
            if state.problem is not None:
                ready = min(ready, last + AGAIN)
            if ready <= now:
                found.append((last.timestamp(), name))
        return [name for _, name in sorted(found, key=lambda one: one[0])]

    async def run(self, name: str, tell: Tell) -> Done:
        """What outside.toml says it is for."""
        if self.one(name).kind == "backup":
            return await self.backup(name, tell)
        return await self.sync(name, {}, tell)

    def state(self, name: str) -> State:
        try:
            return State.model_validate_json(self._file(name).read_bytes())
        except (FileNotFoundError, ValueError):
            return State()

    async def status(self, name: str) -> dict[str, Any]:
        """Its state, and for each file that both sides changed how they differ."""
        one = self.one(name)
        state = self.state(name)
        mirror = Mirror(name, one, await self._repo(name, one), self._never())
        differ = {}
        for path in state.both:
            here, there = await mirror.versions(path)
            differ[path] = _difference(here, there)
        return {**self.about(name), "differ": differ}

    def about(self, name: str) -> dict[str, Any]:
        """What outside.toml says of it and how its last run went."""
        one = self.one(name)
        return {
            "name": name,
            "repository": self.outside().full_name(one),
            "kind": one.kind,
            "schedule": one.schedule,
            **self.state(name).model_dump(mode="json"),
        }

    async def _github(self, tell: Tell) -> Github:
        token = await outside.token(self._box, outside.GITHUB, "GitHub")
        return Github(self.outside().github.api_url, token, tell)

    async def _repo(self, name: str, one: Repository) -> Repo:
        all_of_it = self.outside()
        return Repo(
            self._folder / f"{name}.git",
            f"{all_of_it.github.url}/{all_of_it.full_name(one)}.git",
            one.branch,
            await outside.token(self._box, outside.GITHUB, "GitHub"),
            all_of_it.github.author,
        )

    async def _mirror(self, name: str, one: Repository, tell: Tell, *, dry_run: bool) -> Mirror:
        outside.known_secrets(self._box)
        github = await self._github(tell)
        try:
            full_name = self.outside().full_name(one)
            if dry_run and one.create and not await github.there(full_name):
                raise NotFoundError(f"GitHub has no {full_name} yet: it would be made, private")
            await github.pushable(full_name, create=one.create, public=one.public)
        finally:
            github.close()
        return Mirror(name, one, await self._repo(name, one), self._never())

    @asynccontextmanager
    async def _recorded(self, name: str, *, dry_run: bool) -> AsyncIterator[list[Done]]:
        """Keep what becomes of the run, whatever that is; `both` ends it as an error."""
        record: list[Done] = []
        began = datetime.now(UTC)
        before = self.state(name)
        problem: str | None = None
        try:
            yield record
            if record and record[0].both and not dry_run:
                raise ConflictError(_settle(name, record[0].both))
        except AIError as error:
            problem = str(error)
            raise
        except BaseException as error:
            problem = f"stopped: {type(error).__name__}"
            raise
        finally:
            if not dry_run:
                done = record[0] if record else None
                self._keep(
                    name,
                    State(
                        tried_at=began,
                        done_at=began if problem is None else before.done_at,
                        commit=(done and done.commit) or before.commit,
                        problem=problem,
                        both=done.both if done else before.both,
                        left=len(done.left) if done else before.left,
                    ),
                )

    def _keep(self, name: str, state: State) -> None:
        path = self._file(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        with beside.open("w", encoding="utf-8") as file:
            file.write(state.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)

    def _never(self) -> tuple[Path, ...]:
        box, settings = self._box, load()
        own = (box.config / "secrets", settings.secrets, box.letsencrypt, box.state)
        return (*own, *(Path(one) for one in KEYS))

    @property
    def _folder(self) -> Path:
        return self._box.state / "github"

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"


async def quiet(_step: str) -> None:
    """For a dry run, whose steps are its answer."""


def told(done: Done) -> dict[str, Any]:
    """A run as its answer."""
    left = {
        path.encode(errors="replace").decode(): why for path, why in list(done.left.items())[:100]
    }
    return {
        "commit": done.commit,
        "pushed": len(done.pushed),
        "taken": len(done.taken),
        "files": [*done.pushed, *done.taken][:100],
        "left_out": len(done.left),
        "left": left,
    }


def planned(done: Done) -> list[str]:
    """A dry run in words."""
    steps = []
    if done.pushed:
        steps.append(f"push {counted(len(done.pushed), 'file')} to GitHub: {listed(done.pushed)}")
    if done.taken:
        steps.append(f"take {counted(len(done.taken), 'file')} from GitHub: {listed(done.taken)}")
    for path, why in done.both.items():
        steps.append(f"leave {path} as it is on both sides: {why}")
    if done.left:
        told_of = (f"{path} ({why})" for path, why in done.left.items())
        steps.append(f"leave out {counted(len(done.left), 'file')}: {listed(told_of)}")
    return steps or ["nothing: both sides are the same"]


def _settle(name: str, both: Mapping[str, str]) -> str:
    paths = listed(f"{path} ({why})" for path, why in both.items())
    stays = counted(len(both), "file stays as it is", "files stay as they are")
    return (
        f"{stays} on both sides: {paths}; look at them: "
        f"github.status {name}; then say which holds: github.sync {name} with here or there"
    )


def _difference(here: bytes | None, there: bytes | None) -> str:
    ours, theirs = (
        side.decode("utf-8", errors="replace").splitlines() if side is not None else []
        for side in (here, there)
    )
    lines = list(difflib.unified_diff(ours, theirs, "here", "GitHub", lineterm="", n=2))
    more = [f"… {counted(len(lines) - DIFF_LINES, 'more line')}"] if len(lines) > DIFF_LINES else []
    return redact("\n".join(lines[:DIFF_LINES] + more))
