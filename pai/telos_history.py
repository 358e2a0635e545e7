"""Every text that a TELOS file had when a process of ours saw it.

`TELOS/history/<sha256>.md` is the text, `index.jsonl` says when which file had it. Many processes
may see a change at once: a lock lets one of them write it down.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from base import modes

FOLDER = "history"
INDEX = "index.jsonl"
DIGEST_CHARS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One text of one file. at: when it was first seen, ISO 8601 in UTC; size in bytes."""

    at: str
    name: str
    digest: str
    size_bytes: int


def keep(place: Path, raw: Mapping[str, bytes]) -> None:
    """Write down what differs from the last text of its file. Safe to call any number of times."""
    folder = place / FOLDER
    if not place.is_dir():
        return
    last = {one.name: one.digest for one in versions(place)}
    new = {name: text for name, text in raw.items() if last.get(name) != _digest(text)}
    if not new:
        return
    folder.mkdir(mode=modes.FOLDER, exist_ok=True)
    with _locked(folder):
        last = {one.name: one.digest for one in versions(place)}
        with open(os.open(folder / INDEX, _APPEND, modes.COMMON), "a", encoding="utf-8") as index:
            for name, text in new.items():
                digest = _digest(text)
                if last.get(name) == digest:
                    continue
                _put(folder / f"{digest}.md", text)
                at = datetime.now(UTC).isoformat(timespec="seconds")
                row = {"at": at, "name": name, "digest": digest, "size_bytes": len(text)}
                index.write(json.dumps(row) + "\n")


def versions(place: Path, name: str | None = None) -> list[Version]:
    """What was seen, oldest first; of one file when it is named. A torn line is passed over."""
    try:
        lines = (place / FOLDER / INDEX).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            found.append(Version(**json.loads(line)))
    return [one for one in found if name in {None, one.name}]


def text(place: Path, version: Version) -> str:
    """That version's text. Raises FileNotFoundError when somebody took it away."""
    return (place / FOLDER / f"{version.digest}.md").read_text(encoding="utf-8", errors="replace")


_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:DIGEST_CHARS]


def _put(path: Path, raw: bytes) -> None:
    """Whole or not at all."""
    if path.exists():
        return
    new = path.with_suffix(f".{os.getpid()}")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, modes.COMMON), "wb") as file:
        file.write(raw)
    new.replace(path)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, modes.COMMON)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
