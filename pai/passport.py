"""The passport: a PAI v4.0.3 folder in and out, without loss.

    read ──▶ what it holds (changes nothing) ──▶ the keeper remembers, keeps signals
      └────▶ keep ──▶ MEMORY/Imported/<user>/<n>-<digest>/ ──▶ write ──▶ a PAI folder again

Plain functions over files: no store, no bus; call them in a thread. `read` is in
`pai/passport_read.py`, `write` and `goals` in `pai/passport_write.py`.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from base.errors import InputError
from pai import tree
from pai.passport_read import Fault, Imported, read
from pai.passport_rows import Implicit
from pai.passport_write import Exported, adopt, goals, write

__all__ = [
    "Exported", "Fault", "Implicit", "Imported",
    "adopt", "forget", "goals", "keep", "kept", "read", "where", "write",
]  # fmt: skip

FOLDER = "Imported"
_KEPT = re.compile(r"(\d{4,})-[0-9a-f]{16}")


def keep(plan: Imported, memory: Path) -> Path:
    """Copy every file of the import below `memory` (`settings.memory`), with its time; the folder.

    The same content again is kept once. Raises InputError when a file cannot be read any more.
    """
    home = memory / FOLDER / _owner(plan.user_id)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=home))
    digest = hashlib.sha256()
    try:
        for file in sorted(plan.files, key=lambda one: one.path):
            raw = tree.content(plan.folder, file.path)
            if raw is None:
                raise InputError(f"{file.path} has gone meanwhile; import once more")
            tree.put(part, file.path, raw, mtime_ns=file.mtime_ns)
            digest.update(f"{len(file.path)} {file.path} {len(raw)} ".encode() + raw)
        name = digest.hexdigest()[:16]
        there = kept(memory, plan.user_id)
        if same := [one for one in there if one.name.endswith(name)]:
            return same[0]
        last = int(there[-1].name.partition("-")[0]) if there else 0
        return part.rename(home / f"{last + 1:04}-{name}")
    finally:
        shutil.rmtree(part, ignore_errors=True)


def kept(memory: Path, user_id: str) -> tuple[Path, ...]:
    """That user's kept folders, oldest first: `originals` of `write`."""
    home = memory / FOLDER / _owner(user_id)
    found = [one for one in home.iterdir() if _KEPT.fullmatch(one.name)] if home.is_dir() else []
    return tuple(sorted(found, key=lambda one: (int(one.name.partition("-")[0]), one.name)))


def where(memory: Path, user_id: str, ids: Collection[str]) -> dict[str, list[str]]:
    """For each id the kept originals that it came from, below `memory`."""
    return _places(memory, user_id, ids, lambda _root, _path, _lines: None)


def forget(memory: Path, user_id: str, ids: Collection[str]) -> dict[str, list[str]]:
    """Take those memories out of the kept originals: a row leaves its file, a page goes whole.

    For each id the places it was removed from, none when it never came by import. Safe twice.
    """
    return _places(memory, user_id, ids, _take_out)


def _places(
    memory: Path, user_id: str, ids: Collection[str], do: Callable[[Path, str, set[int]], None]
) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {one: [] for one in ids}
    for root in kept(memory, user_id):
        places = read(root, user_id, empty=True).places
        here: dict[str, set[int]] = {}
        for one in ids:
            if one in places:
                path, line = places[one]
                here.setdefault(path, set()).add(line)
                found[one].append(str((root / path).relative_to(memory)))
        for path, lines in here.items():
            do(root, path, lines)
    return found


def _take_out(root: Path, path: str, lines: set[int]) -> None:
    """Those lines of the file; 0: the file."""
    raw = tree.content(root, path)
    if 0 in lines or raw is None:
        tree.remove(root, path)
        return
    rest = [line for at, line in enumerate(raw.split(b"\n"), 1) if at not in lines]
    tree.put(root, path, b"\n".join(rest))


def _owner(user_id: str) -> str:
    """A folder name of its own for each user."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", user_id):
        return user_id
    return "u-" + hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
