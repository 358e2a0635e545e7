"""Files of a folder that somebody else made: never through a symbolic link, never out of it.

Every path is relative, with `/`, and opened part by part with O_NOFOLLOW below an open folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from base.errors import InputError

CHUNK_BYTES = 1 << 20
DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """One plain file of a folder. mtime_ns: when it was last written."""

    path: str
    size_bytes: int
    mtime_ns: int


def walk(root: Path, leave: frozenset[str]) -> Iterator[Original | str]:
    """Every plain file, in order of path; a str is the path of what is none (a link, a socket).

    Paths in `leave` are passed over. Raises InputError when a folder cannot be read.
    """
    pending = [""]
    while pending:
        inside = pending.pop()
        try:
            with _folder(root, inside) as fd:
                names = sorted(os.listdir(fd))
                facts = [(name, os.stat(name, dir_fd=fd, follow_symlinks=False)) for name in names]
        except OSError as error:
            raise _refused(inside or str(root), error) from error
        deeper = []
        for name, fact in facts:
            path = f"{inside}/{name}" if inside else name
            if path in leave:
                continue
            if stat.S_ISDIR(fact.st_mode):
                deeper.append(path)
            elif stat.S_ISREG(fact.st_mode):
                yield Original(path=path, size_bytes=fact.st_size, mtime_ns=fact.st_mtime_ns)
            else:
                yield path
        pending += reversed(deeper)


@contextmanager
def opened(root: Path, path: str) -> Iterator[BinaryIO]:
    """The plain file at `path`. Raises InputError for anything else; FileNotFoundError passes."""
    parent, _, name = safe(path).rpartition("/")
    try:
        with _folder(root, parent) as folder:
            fd = os.open(name, FILE_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _refused(path, error) from error
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InputError(f"{path} is no plain file")
        yield file


def content(root: Path, path: str) -> bytes | None:
    """All of it; None: there is no such file."""
    try:
        with opened(root, path) as file:
            return file.read()
    except FileNotFoundError:
        return None


def put(root: Path, path: str, data: bytes, *, mtime_ns: int | None = None) -> None:
    """Write the file whole, its folders too, readable by us alone; a reader sees old or new.

    Raises InputError when a part of the path is a link or no folder.
    """
    parent, _, name = safe(path).rpartition("/")
    try:
        with _folder(root, parent, make=True) as folder:
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    raise InputError(f"{path} is no plain file")
            part = f".{uuid.uuid4().hex}.part"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(part, flags, 0o600, dir_fd=folder)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(data)
                    file.flush()
                    if mtime_ns is not None:
                        os.utime(fd, ns=(mtime_ns, mtime_ns))
                os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(part, dir_fd=folder)
                raise
    except OSError as error:
        raise _refused(path, error) from error


def twin(root: Path, path: str, name: str) -> None:
    """Let the file stand under that other name of its folder too, its time and mode with it.

    Raises InputError when something stands there already.
    """
    parent, _, old = safe(path).rpartition("/")
    try:
        with _folder(root, parent) as folder:
            os.link(old, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV}:
            raise _refused(path, error) from error
        put(root, f"{parent}/{name}" if parent else name, content(root, path) or b"")


def remove(root: Path, path: str) -> None:
    """Safe twice."""
    parent, _, name = safe(path).rpartition("/")
    with contextlib.suppress(FileNotFoundError), _folder(root, parent) as folder:
        os.unlink(name, dir_fd=folder)


def safe(path: str) -> str:
    """The path itself. Raises InputError for one that leads out of its folder or nowhere."""
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\0" in path or str(pure) != path:
        raise InputError(f"{path!r} is no path inside the folder")
    return path


@contextmanager
def _folder(root: Path, inside: str, *, make: bool = False) -> Iterator[int]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in PurePosixPath(inside).parts:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=fd)
            deeper = os.open(part, DIR_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = deeper
        yield fd
    finally:
        os.close(fd)


def _refused(path: str, error: OSError) -> InputError:
    if error.errno in {errno.ELOOP, errno.ENOTDIR}:
        return InputError(f"{path}: a symbolic link or a file is in the way")
    return InputError(f"{path}: {(error.strerror or str(error)).lower()}")
