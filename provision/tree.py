"""Copying a folder that somebody else can write, as root: only its plain files, only from there.

Every step is taken from an open folder, without following a link, so that nothing that is put in
place of something else meanwhile leads elsewhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from base.errors import InputError, NotFoundError
from provision.unpack import DEPTH_MAX, FILES_MAX, LITTER, TOTAL_MAX_BYTES

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
PIECE_BYTES = 1 << 20
#: Never published: the history of a checkout may hold what was meant to be gone.
LEFT_OUT = LITTER | {".git", ".hg", ".svn"}


@dataclass(slots=True, kw_only=True)  # mutable: it counts
class Count:
    files: int = 0
    bytes: int = 0

    def add(self, files: int, more_bytes: int) -> None:
        """Raises InputError over the limits of a site."""
        self.files += files
        self.bytes += more_bytes
        if self.files > FILES_MAX:
            raise InputError(f"a site has at most {FILES_MAX:,} files")
        if self.bytes > TOTAL_MAX_BYTES:
            raise InputError(f"a site has at most {TOTAL_MAX_BYTES:,} bytes")


def within(path: Path, roots: Sequence[Path]) -> Path:
    """The root that `path` lies below. Raises InputError."""
    if ".." not in path.parts:
        for root in roots:
            if path.is_relative_to(root) and path != root:
                return root
    raise InputError(f"{path} is not below {' or '.join(str(root) for root in roots)}")


def copy(source: Path, root: Path, target: Path | None) -> Count:
    """Copy what is in `source`, which lies in `root`, into `target`, which is made; None: only
    count. Files become readable by all and writable by root, nothing else of them is kept.
    """
    count = Count()
    with opened(source, root) as folder:
        _copy(folder, target, count, source, 0)
    return count


@contextmanager
def opened(folder: Path, root: Path) -> Iterator[int]:
    """The folder, reached from `root` without a link on the way. Raises InputError and
    NotFoundError.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folder.relative_to(root).parts:
            try:
                inner = os.open(part, FOLDER, dir_fd=descriptor)
            except FileNotFoundError as error:
                raise NotFoundError(f"there is no folder {folder}") from error
            except OSError as error:
                raise InputError(f"{part} on the way to {folder} is no plain folder") from error
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _copy(folder: int, target: Path | None, count: Count, at: Path, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise InputError(f"{at} is too deep")
    if target is not None:
        target.mkdir()
        target.chmod(0o755)
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        if name in LEFT_OUT:
            continue
        path = at / name
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        inner = target / name if target is not None else None
        if stat.S_ISDIR(mode):
            count.add(1, 0)
            with _open(name, FOLDER, folder, path) as descriptor:
                _copy(descriptor, inner, count, path, depth + 1)
        elif stat.S_ISREG(mode):
            with _open(name, FILE, folder, path) as descriptor:
                _copy_file(descriptor, inner, count, path)
        else:
            raise InputError(f"{path} is a link or a device; a site has plain files alone")


def _copy_file(descriptor: int, target: Path | None, count: Count, at: Path) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise InputError(f"{at} is not a plain file with one name")
    count.add(1, 0)
    if target is None:
        count.add(0, found.st_size)
        return
    with target.open("xb") as file:
        while piece := os.read(descriptor, PIECE_BYTES):
            count.add(0, len(piece))
            file.write(piece)
        os.fchmod(file.fileno(), 0o644)


@contextmanager
def _open(name: str, flags: int, folder: int, at: Path) -> Iterator[int]:
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        raise InputError(f"{at} changed while it was read") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
