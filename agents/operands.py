"""The files that a call names, as they are now, looked at by the system and from outside.

Each path is walked step by step without following a link blindly, and nothing beyond the task's
own view is opened: what the hands could not see, this process does not look at for them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from base.approvals import UNBOUND, Operand
from base.errors import InputError

BYTES_MAX = 1_000_000_000
ENTRIES_MAX = 20_000
#: A whole workspace is looked at only if it is small: a command that names no file binds it.
WORKSPACE_BYTES_MAX = 50_000_000
WORKSPACE_ENTRIES_MAX = 2_000
OPERANDS_MAX = 200
LINKS_MAX = 40
OUTSIDE = "outside"
#: A workspace that is made with the first hands counts as the empty folder it will be.
EMPTY = f"tree:{hashlib.sha256().hexdigest()}"
_PATHS = ("path", "folder", "save", "database", "paths")
_CODE = ("command", "code", "query", "patch")
_WORD = re.compile(r"""[^\s;|&<>()'"`{}=,:]+""")
_PATCHED = re.compile(r"^(?:\*\*\* (?:Update|Add|Delete) File|\*\*\* Move to): (.+)$", re.MULTILINE)
_GLOB = re.compile(r"[*?\[]")


class _View:
    """What may be looked at, and how much of it is left to look at."""

    def __init__(self, roots: Iterable[Path], bytes_max: int, entries_max: int) -> None:
        self._roots = tuple(Path(os.path.realpath(root)) for root in roots)
        self._bytes_left = bytes_max
        self._entries_left = entries_max

    def holds(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self._roots)

    def spend(self, size_bytes: int) -> None:
        """Raises InputError when it is more than a binding can cover."""
        self._bytes_left -= size_bytes
        self._entries_left -= 1
        if self._bytes_left < 0 or self._entries_left < 0:
            raise InputError(
                "the files that this call names are too many or too large to be bound to an "
                "approval; name fewer of them"
            )


def measure(
    name: str, given: dict[str, Any], workspace: Path, roots: Sequence[str] = ()
) -> tuple[Operand, ...]:
    """Every file the input names, by real path and hash. `roots`: what the level sees besides.

    Words of a command count when they name something that exists. A command is bound to the whole
    workspace besides, since what it names may read the rest; of one that is too large for that the
    binding says so. Raises InputError when it is too much.
    """
    view = _View([workspace, *map(Path, roots)], BYTES_MAX, ENTRIES_MAX)
    found: dict[str, Operand] = {}
    foreign = name.startswith("mcp__")  # any field of it may be a path
    for path in _named(name, given):
        _add(found, path, workspace, view)
    for word in _words(_strings(given) if foreign else map(given.get, _CODE)):
        _add(found, word, workspace, view, must_exist=True)
    if name == "git" and _lies_elsewhere(found, os.path.join(workspace, _folder(given))):
        _add(found, ".", workspace, view)
    if foreign or name in {"shell", "python", "request_permission"}:
        small = _View([workspace], WORKSPACE_BYTES_MAX, WORKSPACE_ENTRIES_MAX)
        try:
            _add(found, ".", workspace, small)
        except InputError:
            whole = _operand(Path(os.path.realpath(workspace)), UNBOUND)
            found[whole.path] = whole
    if len(found) > OPERANDS_MAX:
        raise InputError(f"the call names more than {OPERANDS_MAX} files; name fewer of them")
    return tuple(found[path] for path in sorted(found))


def _named(name: str, given: dict[str, Any]) -> list[str]:
    """The paths that an input gives as such."""
    paths: list[str] = []
    for key in _PATHS:
        value = given.get(key)
        values = value if isinstance(value, list) else [value]
        paths += [one for one in values if isinstance(one, str) and "://" not in one]
    if name == "git":
        paths.append(f"{_folder(given)}/.git")
        if given.get("verb") != "push":
            paths.append(_folder(given))
    if name == "patch" and isinstance(given.get("patch"), str):
        paths += _PATCHED.findall(given["patch"])
    return paths


def _folder(given: dict[str, Any]) -> str:
    """Where a call of git works."""
    folder = given.get("folder")
    return folder if isinstance(folder, str) else "."


def _lies_elsewhere(found: dict[str, Operand], folder: str) -> bool:
    """Whether git takes another folder than `folder`/.git for the repository: the one that a file
    of that name tells, or that of a folder above.
    """
    operand = found.get(os.path.realpath(f"{folder}/.git"))
    told = None if operand is None else operand.sha256
    return told is None or not told.startswith("tree:")


def _strings(value: Any) -> list[str]:
    """Every text in an input."""
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return [text for one in inside for text in _strings(one)]
    return [value] if isinstance(value, str) else []


def _words(texts: Iterable[Any]) -> set[str]:
    """What in a command or program might be a path."""
    words: set[str] = set()
    for text in texts:
        if not isinstance(text, str):
            continue
        words.update(_WORD.findall(text))
        try:
            words.update(shlex.split(text, comments=False))
        except ValueError:
            words.update(text.split())
    return {_unglobbed(word) for word in words if 0 < len(word) < 4096 and "\0" not in word} - {
        "",
        ".",
    }


def _unglobbed(word: str) -> str:
    """A pattern counts as the folder it is searched in."""
    match = _GLOB.search(word)
    if match is None:
        return word
    folder = word[: match.start()].rpartition("/")[0]
    return folder or ("/" if word.startswith("/") else "./")


def _add(
    found: dict[str, Operand], path: str, workspace: Path, view: _View, *, must_exist: bool = False
) -> None:
    operand = _look(os.path.join(workspace, path), view)
    if operand.sha256 is None and operand.path == os.path.realpath(workspace):
        operand = Operand(path=operand.path, sha256=EMPTY)
    leads_out = operand.sha256 == OUTSIDE and view.holds(Path(os.path.normpath(workspace / path)))
    if must_exist and operand.sha256 in {None, OUTSIDE} and not leads_out:
        return
    found[operand.path] = operand


def _look(path: str, view: _View) -> Operand:
    """Walk to `path` and hash what is there. Races lose: every step is by descriptor."""
    waiting = deque(part for part in path.split("/") if part not in {"", "."})
    here: list[str] = []
    folders = [os.open("/", os.O_PATH | os.O_DIRECTORY)]
    links = 0
    try:
        while waiting:
            name = waiting.popleft()
            if name == "..":
                if here:
                    here.pop()
                    os.close(folders.pop())
                continue
            real = Path("/", *here, name)
            try:
                status = os.lstat(name, dir_fd=folders[-1])
                if stat.S_ISLNK(status.st_mode):
                    links += 1
                    if links > LINKS_MAX:
                        return _operand(real, "special:loop")
                    target = os.readlink(name, dir_fd=folders[-1])
                    if target.startswith("/"):
                        here.clear()
                        while len(folders) > 1:
                            os.close(folders.pop())
                    waiting.extendleft(
                        part for part in reversed(target.split("/")) if part not in {"", "."}
                    )
                    continue
                if waiting:
                    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
                    folders.append(os.open(name, flags, dir_fd=folders[-1]))
                    here.append(name)
                    continue
                if not view.holds(real):
                    return _operand(real, OUTSIDE)
                return _operand(real, _hash(folders[-1], name, view))
            except (OSError, ValueError):  # gone, closed to us, or no name at all
                rest = Path(real, *waiting)
                return _operand(rest, None if view.holds(rest) else OUTSIDE)
        real = Path("/", *here)
        if not view.holds(real):
            return _operand(real, OUTSIDE)
        return _operand(real, _tree(os.open(".", os.O_RDONLY, dir_fd=folders[-1]), view))
    finally:
        for folder in folders:
            os.close(folder)


def _hash(folder: int, name: str, view: _View) -> str:
    """Of what `name` in `folder` is. Raises OSError when it went away or may not be read."""
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    status = os.fstat(handle)
    if stat.S_ISDIR(status.st_mode):
        return _tree(handle, view, git=name == ".git")
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(status.st_mode):
            return f"special:{stat.S_IFMT(status.st_mode):o}"
        view.spend(status.st_size)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tree(handle: int, view: _View, *, git: bool = False) -> str:
    """Of a folder: names, kinds, contents, the executable bit. Closes `handle`.

    git: what lies in a .git/objects is named by its own hash and need not be read.
    """
    total = hashlib.sha256()
    try:
        for name in sorted(os.listdir(handle), key=os.fsencode):
            if git and name in {"objects", "logs"}:
                continue
            view.spend(0)
            status = os.lstat(name, dir_fd=handle)
            if stat.S_ISLNK(status.st_mode):
                told = "link:" + os.readlink(name, dir_fd=handle)
            elif stat.S_ISDIR(status.st_mode):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                told = _tree(os.open(name, flags, dir_fd=handle), view, git=name == ".git")
            elif stat.S_ISREG(status.st_mode):
                told = _hash(handle, name, view)
            else:
                told = f"special:{stat.S_IFMT(status.st_mode):o}"
            line = f"{len(os.fsencode(name))}:{name}:{status.st_mode & 0o111:o}:{told}\n"
            total.update(os.fsencode(line))
    finally:
        os.close(handle)
    return f"tree:{total.hexdigest()}"


def _operand(path: Path, found: str | None) -> Operand:
    shown = str(path).encode("utf-8", "backslashreplace").decode()
    return Operand(path=shown, sha256=found)
