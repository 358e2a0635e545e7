"""What a repository's paths hold now: every file that may be pushed, and why the others may not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from base.errors import ConflictError
from provision import folders, leaks
from provision.git import PLAIN, PROGRAM, Blob, oid
from provision.leaks import Leak
from provision.outside import Repository

PATHS_TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """left: path → why it was left out; it counts as unchanged on both sides."""

    files: dict[str, Blob]
    left: dict[str, str]


def take(
    one: Repository,
    known: Mapping[str, Blob],
    store: Callable[[bytes], str],
    never: tuple[Path, ...],
) -> Snapshot:
    """known: what was pushed before and need not be looked through again.

    Raises ConflictError when a path is not there, and when a file holds what looks like a
    secret: nothing is pushed then.
    """
    files: dict[str, Blob] = {}
    left: dict[str, str] = {}
    found: list[Leak] = []
    for folder, root in one.paths.items():
        if any(root == shut or shut in root.parents for shut in never):
            raise ConflictError(f"{root} holds secrets or keys: it is never pushed")
        for file in folders.files(root, limit_bytes=one.file_bytes, never=never):
            path = f"{folder}/{file.path}" if file.path else folder
            if why := _kept_back(one, path, file.why):
                left[path] = why
                continue
            assert file.data is not None
            blob = Blob(mode=PROGRAM if file.executable else PLAIN, oid=oid(file.data))
            if path not in known or known[path].oid != blob.oid:
                excused = any(fnmatch(path, pattern) for pattern in one.not_secret)
                if not excused and (leak := leaks.found(path, file.data)):
                    found.append(leak)
                    continue
                store(file.data)
            files[path] = blob
    if found:
        raise ConflictError(
            f"nothing was pushed: what looks like a secret is in {listed(map(str, found))}; take "
            "it out, or name the file under leave_out, or under not_secret if it is none"
        )
    return Snapshot(files=files, left={path: why for path, why in left.items() if why != "gone"})


def ours(one: Repository, tree: Mapping[str, Blob]) -> dict[str, Blob]:
    """What of the repository belongs to its paths and may be looked at."""
    return {
        path: blob
        for path, blob in tree.items()
        if any(path == folder or path.startswith(f"{folder}/") for folder in one.paths)
        and not _kept_back(one, path, "")
    }


def place(one: Repository, path: str) -> tuple[Path, str]:
    """The root that a path of the repository belongs to, and the path below it ("": the root)."""
    for folder, root in one.paths.items():
        if path == folder or path.startswith(f"{folder}/"):
            return root, path[len(folder) + 1 :]
    raise ConflictError(f"{path} belongs to none of the paths")


def vanished(one: Repository, before: Iterable[str], now: Iterable[str]) -> str | None:
    """The folder of which every file is gone, which is taken for an accident."""
    held = set(now)
    for folder in one.paths:
        had = [path for path in before if path.startswith(f"{folder}/")]
        if len(had) > 1 and not any(path.startswith(f"{folder}/") for path in held):
            return folder
    return None


def listed(paths: Iterable[str]) -> str:
    """The first paths in words."""
    told = list(paths)
    more = len(told) - PATHS_TOLD
    return ", ".join(told[:PATHS_TOLD]) + (f" and {more} more" if more > 0 else "")


def _kept_back(one: Repository, path: str, why: str) -> str | None:
    if any(fnmatch(path, pattern) for pattern in one.leave_out):
        return "left out by outside.toml"
    if not path.isprintable():
        return "its name cannot be written"
    return leaks.kept_back(path) or why or None
