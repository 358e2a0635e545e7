"""Pages given back are away, and nothing of them is lost."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from pai.pages import let_go

SIZE_BYTES = 8 << 20


def _resident(path: Path) -> int:
    """Bytes of the file's mapping that are resident here."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) << 10
    return found


def test_shared_pages_go_and_what_was_written_stays(tmp_path: Path) -> None:
    path, other = tmp_path / "wal" / "open-1", tmp_path / "other"
    path.parent.mkdir()
    maps = []
    for one in (path, other):
        one.write_bytes(bytes(SIZE_BYTES))
        with one.open("r+b") as file:
            maps.append(mmap.mmap(file.fileno(), SIZE_BYTES))
        maps[-1][:] = b"x" * SIZE_BYTES
    assert _resident(path) == SIZE_BYTES
    assert let_go(path.parent) == SIZE_BYTES
    assert _resident(path) == 0
    assert _resident(other) == SIZE_BYTES
    assert maps[0][SIZE_BYTES - 1 :] == b"x"
    assert path.read_bytes() == b"x" * SIZE_BYTES
    for one in maps:
        one.close()


def test_pages_of_a_private_mapping_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "private"
    path.write_bytes(bytes(mmap.PAGESIZE))
    with path.open("r+b") as file:
        own = mmap.mmap(file.fileno(), mmap.PAGESIZE, flags=mmap.MAP_PRIVATE)
    own[0:1] = b"y"
    assert let_go(tmp_path) == 0
    assert own[0:1] == b"y"
    own.close()
    assert os.path.getsize(path) == mmap.PAGESIZE
