"""What the embedded warm store knows of itself: `state.json` and the lock, below its folder."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from base.errors import ConflictError, TornError
from pai.warm import COLLECTIONS, Places

FILE = "state.json"
SHARDS = "shards"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """names: the vectors that may exist in the shards. folders: below `shards`, by collection.
    holes: how many places of removed points a collection's shard still has, roughly.
    """

    places: Places
    names: tuple[str, ...] = ()
    folders: Mapping[str, str] = field(
        default_factory=lambda: {str(name): f"{name}-1" for name in COLLECTIONS}
    )
    holes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> State | None:
        """None: nothing was ever stored here. TornError when it cannot be read."""
        path = folder / FILE
        try:
            found = json.loads(path.read_text())
            return cls(
                places=Places.load(found["places"]),
                names=tuple(found["names"]),
                folders={str(name): str(found["folders"][name]) for name in COLLECTIONS},
                holes=dict(found["holes"]),
            )
        except FileNotFoundError:
            if (folder / SHARDS).exists():
                raise TornError(f"the warm store {folder} was never finished") from None
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TornError(f"{path} cannot be read: {error}") from error

    def write(self, folder: Path) -> None:
        """Whole or not at all, and on the disk."""
        new = folder / "state.new"
        with new.open("w") as file:
            json.dump({**asdict(self), "places": self.places.dump()}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / FILE)
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def sweep(self, folder: Path) -> None:
        """Remove shards that are not ours: what a death in `tidy` left."""
        for path in (folder / SHARDS).iterdir():
            if path.name not in self.folders.values():
                shutil.rmtree(path)


def remove(folder: Path) -> None:
    """Everything but the lock; the state last, until then missing shards read as torn."""
    if (folder / SHARDS).exists():
        shutil.rmtree(folder / SHARDS)
    (folder / FILE).unlink(missing_ok=True)


def lock(folder: Path) -> int:
    """The open lock. ConflictError when another process has it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise ConflictError(
            f"another process has the warm store {folder} open; only one keeper can"
        ) from error
    return handle
