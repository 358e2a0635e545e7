"""One repository of outside.toml: pushed as a backup, or kept the same on both sides."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from base.errors import ConflictError
from base.plural import counted
from provision import folders, snapshot
from provision.git import Blob, RejectedError, Repo, oid
from provision.outside import Repository
from provision.reconcile import Plan, Side, plan, rights
from provision.snapshot import Snapshot
from provision.verb import Tell

#: The branch may move while we work; then everything is looked at again.
ROUNDS = 3
BASE, HERE, MADE = "refs/ours/agreed", "refs/ours/here", "refs/ours/made"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """commit None: nothing was to be pushed. pushed, taken: how many files went which way.
    left: path → why it is in no repository; both: path → why both sides kept their own.
    """

    commit: str | None
    pushed: tuple[str, ...]
    taken: tuple[str, ...] = ()
    left: dict[str, str]
    both: dict[str, str]


class Mirror:
    """never: folders of this machine that are in no repository."""

    def __init__(self, name: str, one: Repository, repo: Repo, never: tuple[Path, ...]) -> None:
        self._name = name
        self._one = one
        self._repo = repo
        self._never = never

    async def backup(self, tell: Tell, *, dry_run: bool = False) -> Done:
        """Bring the repository's folders to what is here; other files of it stay."""
        for _ in range(ROUNDS):
            head, there, now = await self._looked(tell)
            self._whole(there, now)
            changes: dict[str, Blob | None] = {
                path: blob for path, blob in now.files.items() if there.get(path) != blob
            }
            changes |= {
                path: None for path in there if path not in now.files and path not in now.left
            }
            done = Done(commit=None, pushed=tuple(sorted(changes)), left=now.left, both={})
            if not changes or dry_run:
                return done
            await tell(f"pushing {counted(len(changes), 'file')}")
            made = await self._repo.write(
                MADE, head, changes, f"Backup of {self._name}: {counted(len(changes), 'file')}"
            )
            try:
                await self._repo.push(made)
            except RejectedError:
                continue
            await self._repo.tidy()
            return Done(commit=made, pushed=done.pushed, left=now.left, both={})
        raise ConflictError("the branch at GitHub keeps moving; try again later")

    async def sync(self, settled: Mapping[str, Side], tell: Tell, *, dry_run: bool = False) -> Done:
        """Both sides get what the other changed. A file that both changed stays as it is on
        each, until somebody settles it; nothing is overwritten that was not looked at.
        """
        for _ in range(ROUNDS):
            head, there, now = await self._looked(tell)
            agreed = await self._repo.commit(BASE)
            base = snapshot.ours(self._one, await self._repo.tree(agreed))
            self._whole(base, now)
            if lost := snapshot.vanished(self._one, base, there):
                raise ConflictError(
                    f"every file of {lost} is gone at GitHub: this is not carried on; put one "
                    "back there, or take the path out of outside.toml"
                )
            aside = set(now.left)
            made = plan(_without(base, aside), now.files, _without(there, aside), settled)
            made = await self._merged(made, base, now.files, there, settled)
            done = Done(
                commit=None, pushed=tuple(sorted(made.to_there)), taken=tuple(sorted(made.to_here)),
                left=now.left, both=made.both,
            )  # fmt: skip
            if unknown := set(settled) - set(base) - set(there) - set(now.files):
                raise ConflictError(f"no side has {min(unknown)}")
            if dry_run:
                return done
            before = await self._repo.commit(HERE)
            turn = _turn(await self._repo.tree(before), now.files)
            if turn or before is None:
                await self._repo.write(HERE, before, turn, f"{self._name} as it was here")
            commit = None
            if made.to_there:
                await tell(f"pushing {counted(len(made.to_there), 'file')}")
                commit = await self._repo.write(
                    MADE,
                    head,
                    made.to_there,
                    f"{self._name}: {counted(len(made.to_there), 'file')}",
                )
                try:
                    await self._repo.push(commit)
                except RejectedError:
                    continue
            late = await self._taken(made, now.files, tell)
            after = _without(made.agreed, late) | {p: base[p] for p in late if p in base}
            after |= {path: base[path] for path in aside if path in base}
            await self._repo.write(BASE, None, dict(after), f"{self._name}: both sides")
            await self._repo.tidy()
            return Done(
                commit=commit, pushed=done.pushed, left=now.left, both=made.both | late,
                taken=tuple(path for path in done.taken if path not in late),
            )  # fmt: skip
        raise ConflictError("the branch at GitHub keeps moving; try again later")

    async def versions(self, path: str) -> tuple[bytes | None, bytes | None]:
        """The file here and at GitHub as it was last fetched."""
        root, below = snapshot.place(self._one, path)
        tree = await self._repo.tree(await self._repo.commit("refs/there"))
        theirs = await self._repo.data(tree[path]) if path in tree else None
        return await asyncio.to_thread(folders.get, root, below), theirs

    async def _looked(self, tell: Tell) -> tuple[str | None, dict[str, Blob], Snapshot]:
        await self._repo.ready()
        await tell("looking at GitHub")
        head = await self._repo.fetch()
        there = snapshot.ours(self._one, await self._repo.tree(head))
        await tell("looking at the files")
        now = await asyncio.to_thread(
            snapshot.take, self._one, there, self._repo.store, self._never
        )
        return head, there, now

    def _whole(self, before: Mapping[str, Blob], now: Snapshot) -> None:
        if lost := snapshot.vanished(self._one, before, {**now.files, **now.left}):
            raise ConflictError(
                f"every file of {self._one.paths[lost]} is gone here: this is not carried on; put "
                "one back, or take the path out of outside.toml"
            )

    async def _merged(
        self,
        made: Plan,
        base: Mapping[str, Blob],
        here: Mapping[str, Blob],
        there: Mapping[str, Blob],
        settled: Mapping[str, Side],
    ) -> Plan:
        """Texts that both sides changed in different places are put together; what would come
        here and cannot be read as what it is stays away.
        """
        for path in list(made.both):
            sides = [side.get(path) for side in (base, here, there)]
            if made.both[path] != "it was changed on both sides" or None in sides[1:]:
                continue
            old, mine, theirs = [await self._repo.data(side) if side else b"" for side in sides]
            whole = await self._repo.merge(old, mine, theirs)
            if whole is None or sides[0] is None or _kept_away(path, mine, whole):
                continue
            blob = Blob(mode=here[path].mode, oid=self._repo.store(whole))
            made.to_here[path] = made.to_there[path] = made.agreed[path] = blob
            del made.both[path]
        for path, blob_there in list(made.to_here.items()):
            if blob_there is None or path in made.to_there:
                continue
            mine = await self._repo.data(here[path]) if path in here else b""
            data = await self._repo.data(blob_there)
            why = fault(path, data) if path in settled else _kept_away(path, mine, data)
            if why is not None:
                made.both[path] = why
                made.agreed.pop(path, None)
                if path in base:
                    made.agreed[path] = base[path]
                del made.to_here[path]
        return made

    async def _taken(self, made: Plan, here: Mapping[str, Blob], tell: Tell) -> dict[str, str]:
        """Write what comes from there; path → why not, where the file changed meanwhile."""
        late = {}
        for path, blob in made.to_here.items():
            await tell(f"taking {path}")
            root, below = snapshot.place(self._one, path)
            try:
                now = await asyncio.to_thread(folders.get, root, below)
                if (oid(now) if now is not None else None) != (
                    here[path].oid if path in here else None
                ):
                    late[path] = "it was changed here in this moment"
                elif blob is None:
                    await asyncio.to_thread(folders.remove, root, below)
                else:
                    data = await self._repo.data(blob)
                    await asyncio.to_thread(folders.put, root, below, data)
            except ConflictError as error:
                late[path] = str(error)
        return late


def fault(path: str, data: bytes) -> str | None:
    """Why the content cannot be what its name says; None: it can, or nobody knows."""
    try:
        if path.endswith(".toml"):
            tomllib.loads(data.decode())
        elif path.endswith(".json"):
            json.loads(data)
    except ValueError as error:
        return f"it cannot be read as it is there: {error}"
    return None


def _kept_away(path: str, here: bytes, there: bytes) -> str | None:
    return fault(path, there) or rights(path, here, there)


def _without(tree: Mapping[str, Blob], paths: Mapping[str, str] | set[str]) -> dict[str, Blob]:
    return {path: blob for path, blob in tree.items() if path not in paths}


def _turn(before: Mapping[str, Blob], after: Mapping[str, Blob]) -> dict[str, Blob | None]:
    """The changes that make `before` to `after`."""
    changes: dict[str, Blob | None] = {p: b for p, b in after.items() if before.get(p) != b}
    return changes | {path: None for path in before if path not in after}
