"""Files below a folder that others may write to, read and written by root without being led astray.

No link is followed below a root, and on the way to one only links that we or root made. A file
that has a second name and another owner than its folder is not read: it may be anybody's.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from base.errors import ConflictError

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: No file of a repository is larger.
MAX_BYTES = 100_000_000
#: Of programs, not of people: made anew by whoever needs it.
NEVER_FOLDERS = {".git", "__pycache__", ".cache"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A plain file. data None: not read, and `why` says what stood against it."""

    path: str
    data: bytes | None
    executable: bool = False
    why: str = ""


def files(root: Path, *, limit_bytes: int, never: tuple[Path, ...] = ()) -> Iterator[Found]:
    """Every file below `root`, sorted, with its path in it; ("" for a root that is a file).

    never: folders of this machine that are not entered. Raises ConflictError when the root cannot
    be read.
    """
    with _entered(root.parent) as (parent, real):
        place = real / root.name
        try:
            found = os.stat(root.name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError as error:
            raise ConflictError(f"{root} is not there") from error
        if stat.S_ISREG(found.st_mode):
            yield _read(parent, root.name, "", limit_bytes)
            return
    with _entered(root) as (number, place):
        yield from _below(number, place, "", limit_bytes, never)


def put(root: Path, path: str, data: bytes) -> None:
    """Write the file below `root`, whole or not at all; folders on the way are made. An existing
    file keeps its mode and owner, a new one has its folder's owner and mode 0640. Twice is safe.

    Raises ConflictError when something on the way is a link, or it cannot be written.
    """
    with _parent(root, path, make=True) as (number, name):
        beside = f".{name}.{os.urandom(6).hex()}"
        folder = os.fstat(number)
        try:
            old = os.stat(name, dir_fd=number, follow_symlinks=False)
        except FileNotFoundError:
            old = None
        if old is not None and not stat.S_ISREG(old.st_mode):
            raise ConflictError(f"{root / path} is no plain file; it was left as it is")
        try:
            out = os.open(
                beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=number
            )
            with os.fdopen(out, "wb") as file:
                file.write(data)
                file.flush()
                if os.geteuid() == 0:
                    owner = old or folder
                    os.fchown(out, owner.st_uid, owner.st_gid)
                os.fchmod(out, stat.S_IMODE(old.st_mode) if old else 0o640)
                os.fsync(out)
            os.rename(beside, name, src_dir_fd=number, dst_dir_fd=number)
        except OSError as error:
            raise ConflictError(f"cannot write {root / path}: {error.strerror}") from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=number)


def get(root: Path, path: str) -> bytes | None:
    """The file's content now, None when it is not there. Raises ConflictError."""
    try:
        with _parent(root, path, make=False) as (number, name):
            found = _read(number, name, path, MAX_BYTES)
    except FileNotFoundError:
        return None
    if found.data is None and found.why != "gone":
        raise ConflictError(f"{root / path}: {found.why}")
    return found.data


def remove(root: Path, path: str) -> None:
    """Take the file away, and folders that are empty after it. Twice is safe."""
    try:
        with _parent(root, path, make=False) as (number, name):
            os.unlink(name, dir_fd=number)
        for above in list(PurePosixPath(path).parents)[:-1]:
            with _parent(root, str(above), make=False) as (number, name):
                os.rmdir(name, dir_fd=number)
    except FileNotFoundError:
        return
    except OSError as error:
        if path and error.errno not in {39, 17}:  # not empty: it stays
            raise ConflictError(f"cannot remove {root / path}: {error.strerror}") from error


def _below(
    number: int, place: Path, inside: str, limit_bytes: int, never: tuple[Path, ...]
) -> Iterator[Found]:
    for name in sorted(os.listdir(number)):
        path = f"{inside}{name}"
        if name in NEVER_FOLDERS or place / name in never:
            continue
        try:
            mode = os.stat(name, dir_fd=number, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                child = os.open(name, FOLDER, dir_fd=number)
                try:
                    yield from _below(child, place / name, f"{path}/", limit_bytes, never)
                finally:
                    os.close(child)
            elif stat.S_ISREG(mode):
                yield _read(number, name, path, limit_bytes)
            elif stat.S_ISLNK(mode):
                yield Found(path=path, data=None, why="a link")
        except FileNotFoundError:
            continue
        except OSError as error:
            yield Found(path=path, data=None, why=error.strerror or str(error))


def _read(parent: int, name: str, path: str, limit_bytes: int) -> Found:
    try:
        number = os.open(name, FILE, dir_fd=parent)
    except FileNotFoundError:
        return Found(path=path, data=None, why="gone")
    except OSError as error:
        return Found(path=path, data=None, why=error.strerror or str(error))
    with os.fdopen(number, "rb") as file:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            return Found(path=path, data=None, why="no plain file")
        if found.st_nlink > 1 and found.st_uid != os.fstat(parent).st_uid:
            return Found(path=path, data=None, why="a second name of somebody else's file")
        if found.st_size > limit_bytes:
            return Found(path=path, data=None, why=f"{found.st_size} bytes are too many")
        data = file.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            return Found(path=path, data=None, why="too many bytes")
        return Found(path=path, data=data, executable=bool(found.st_mode & stat.S_IXUSR))


@contextlib.contextmanager
def _entered(path: Path) -> Iterator[tuple[int, Path]]:
    """A descriptor of the folder and where it really is."""
    real = _real(path)
    number = os.open("/", FOLDER)
    try:
        try:
            for part in real.parts[1:]:
                deeper = os.open(part, FOLDER, dir_fd=number)
                os.close(number)
                number = deeper
        except OSError as error:
            raise ConflictError(f"{path} is not there, or is no folder") from error
        yield number, real
    finally:
        os.close(number)


def _real(path: Path) -> Path:
    """`path` without links. Raises ConflictError for one that neither we nor root made."""
    for part in [*reversed(path.parents), path]:
        try:
            found = part.lstat()
        except OSError:
            break
        if stat.S_ISLNK(found.st_mode) and found.st_uid not in {0, os.geteuid()}:
            raise ConflictError(f"{part} is a link that somebody else made")
    return path.resolve()


@contextlib.contextmanager
def _parent(root: Path, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
    """A descriptor of the folder in which the file lies, and its name there."""
    whole = PurePosixPath(root.name) / path if path else PurePosixPath(root.name)
    with _entered(root.parent) as (above, _):
        number = os.dup(above)
        try:
            for part in whole.parts[:-1]:
                owner = os.fstat(number)
                try:
                    deeper = os.open(part, FOLDER, dir_fd=number)
                except FileNotFoundError:
                    if not make:
                        raise
                    os.mkdir(part, 0o750, dir_fd=number)
                    deeper = os.open(part, FOLDER, dir_fd=number)
                    if os.geteuid() == 0:
                        os.fchown(deeper, owner.st_uid, owner.st_gid)
                except OSError as error:
                    raise ConflictError(f"{root / path}: {part} is no folder") from error
                os.close(number)
                number = deeper
            yield number, whole.parts[-1]
        finally:
            os.close(number)
