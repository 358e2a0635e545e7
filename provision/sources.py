"""Where the files of a release come from: a folder, a git repository, an upload.

Whatever others can write is laid down by somebody without rights, then copied file by file.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from base.errors import ForbiddenError, InputError, NotFoundError
from base.verbs import Folder, Git, Upload
from provision import checkout, tree, unpack
from provision.box import Box
from provision.child import command

UNPACK_S = 180.0
NOBODY = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """folder: what is to be published, reached from `root`. told: where it is from."""

    folder: Path
    root: Path
    told: str


@asynccontextmanager
async def laid(source: Folder | Git | Upload, box: Box, owner: str | None) -> AsyncIterator[Laid]:
    """The files of `source`, until the end of the block. owner: the user in whose workspaces a
    folder must lie; None: in anybody's. Raises InputError, NotFoundError and ForbiddenError.
    """
    if isinstance(source, Folder):
        yield _folder(source, box, owner)
        return
    with _staging(box) as folder:
        uid = pwd.getpwnam(NOBODY).pw_uid
        if os.geteuid() == 0:
            os.chown(folder, uid, -1)
        if isinstance(source, Git):
            commit = await checkout.fetch(source, box, folder, uid)
            inner = folder / source.folder if source.folder else folder
            tree.within(inner, (folder.parent,))
            yield Laid(folder=inner, root=folder, told=f"{source.url} at {commit[:12]}")
        else:
            await _unpacked(source, box, folder, uid)
            yield Laid(folder=_inner(folder), root=folder, told=f"upload {source.name}")


def _folder(source: Folder, box: Box, owner: str | None) -> Laid:
    path = Path(source.path)
    root = tree.within(path, box.folders)
    if owner is not None and root != box.www and path.relative_to(root).parts[0] != owner:
        raise ForbiddenError(f"{path} is in somebody else's workspace")
    return Laid(folder=path, root=root, told=str(path))


async def _unpacked(source: Upload, box: Box, folder: Path, uid: int) -> None:
    try:
        with tree.opened(box.inbox, box.inbox) as inbox:
            file = os.open(source.name, tree.FILE, dir_fd=inbox)
    except OSError as error:
        raise NotFoundError(f"there is no upload {source.name}") from error
    # By its path and alone: nobody cannot read where the product and its packages lie.
    argv = [sys.executable, "-I", str(Path(unpack.__file__)), str(uid), source.name]
    try:
        ended = await command(argv, deadline_s=UNPACK_S, folder=folder, stdin=file)
    finally:
        os.close(file)
    if ended.code == unpack.REFUSED:
        raise InputError(f"{source.name} is not taken: {ended.said.strip()}")
    if not ended.well:
        last = "".join(ended.said.strip().splitlines()[-1:]) or f"exit code {ended.code}"
        raise InputError(f"{source.name} cannot be unpacked within the limits: {last}")


def _inner(folder: Path) -> Path:
    """The one folder that all of an archive lies in, as most archivers make it."""
    found = list(folder.iterdir())
    alone = len(found) == 1 and found[0].is_dir() and not found[0].is_symlink()
    return found[0] if alone else folder


@contextmanager
def _staging(box: Box) -> Iterator[Path]:
    """An empty folder; what a killed broker left of others goes."""
    mark = hashlib.sha256(str(box.state).encode()).hexdigest()[:8]
    for left in box.staging.glob(f"ai-infra-{mark}-*"):
        if not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"ai-infra-{mark}-", dir=box.staging))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
