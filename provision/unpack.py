"""Unpacks an archive into the folder it is started in, as nobody: `python -I unpack.py UID NAME`.

The archive is standard input; it comes from whoever may upload. This program has no right worth
having, little memory and little time, and makes nothing but plain files and folders. What it
refuses it says in one line, and ends with 3. Only the standard library, as it stands alone.
"""

from __future__ import annotations

import bz2  # noqa: F401
import encodings.cp437  # noqa: F401
import gzip  # noqa: F401
import lzma
import os
import resource
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

FILES_MAX = 50_000
TOTAL_MAX_BYTES = 1_000_000_000
MEMORY_MAX_BYTES = 1_000_000_000
CPU_MAX_S = 120
DEPTH_MAX = 40
REFUSED = 3
PIECE_BYTES = 1 << 20
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".tbz2", ".txz", ".zst", ".7z", ".rar")
#: What file managers leave in archives.
LITTER = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db"})


class Refused(Exception):
    """Why the archive is not taken, in words."""


class Folder:
    """Where the files go; counts what it is given."""

    def __init__(self) -> None:
        self._files = self._bytes = 0

    def take(self, name: str, content: IO[bytes] | None) -> None:
        """content None: a folder."""
        path = place(name)
        if path is None:
            return
        self._files += 1
        if self._files > FILES_MAX:
            raise Refused(f"more than {FILES_MAX:,} files")
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("xb")
        except FileExistsError as error:
            raise Refused(f"{shown(name)} is in it twice") from error
        with file:
            while piece := content.read(PIECE_BYTES):
                self._bytes += len(piece)
                if self._bytes > TOTAL_MAX_BYTES:
                    raise Refused(f"unpacked it is larger than {TOTAL_MAX_BYTES:,} bytes")
                file.write(piece)


def place(name: str) -> Path | None:
    """Where that entry goes, below this folder; None: nowhere, it is litter. Raises Refused."""
    if "\\" in name or any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise Refused(f"{shown(name)} is no name of a file of a site")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise Refused(f"{shown(name)} leads out of the archive")
    if len(path.parts) > DEPTH_MAX or any(len(part.encode()) > 255 for part in path.parts):
        raise Refused(f"{shown(name)} is too deep or too long")
    return None if not path.parts or set(path.parts) & LITTER else Path(*path.parts)


def shown(name: str) -> str:
    return ascii(name[:100])


def from_zip(archive: zipfile.ZipFile) -> Iterator[tuple[str, IO[bytes] | None]]:
    for entry in archive.infolist():
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise Refused(f"{shown(entry.filename)} is a link or a device")
        if entry.flag_bits & 1:
            raise Refused("it is encrypted")
        if entry.is_dir():
            yield entry.filename, None
        else:
            with archive.open(entry) as content:
                yield entry.filename, content


def from_tar(archive: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes] | None]]:
    for entry in archive:
        if entry.isdir():
            yield entry.name, None
        elif entry.type in {tarfile.REGTYPE, tarfile.AREGTYPE} and not entry.issparse():
            yield entry.name, archive.extractfile(entry)
        else:
            raise Refused(f"{shown(entry.name)} is a link, a device or another special file")


def unpack(source: IO[bytes], name: str) -> None:
    """Raises Refused, and what the libraries raise for damaged archives."""
    folder = Folder()
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for entry, content in from_zip(archive):
                folder.take(entry, content)
        return
    source.seek(0)
    try:
        tar = tarfile.open(fileobj=source, mode="r:*")  # noqa: SIM115
    except tarfile.ReadError as error:
        if name.lower().endswith(ARCHIVES):
            raise Refused("it is neither a zip nor a tar archive that can be read") from error
        source.seek(0)
        folder.take(name, source)
        return
    with tar:
        for entry, content in from_tar(tar):
            folder.take(entry, content)


def confine(uid: int) -> None:
    """Give up every right, before a byte of the archive is read."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_MAX_S, CPU_MAX_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    uid, name = int(sys.argv[1]), sys.argv[2]
    confine(uid)
    try:
        unpack(sys.stdin.buffer, name)
    except Refused as error:
        said = str(error)
    except (
        *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError),
        *(shutil.Error, RuntimeError, NotImplementedError, UnicodeError, MemoryError, ValueError),
    ) as error:
        said = f"it cannot be read: {error or type(error).__name__}"
    else:
        return 0
    print(said.encode("ascii", "backslashreplace").decode(), file=sys.stderr)
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
