"""What a PAI folder holds: which file is what, and what memory makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from base.errors import InputError
from pai import passport_pages as pages
from pai import passport_rows as rows
from pai import tree
from pai.passport_rows import Implicit
from pai.shapes import Memory, Signal
from pai.tree import Original

FILES_MAX = 100_000
TOTAL_BYTES = 4 << 30
FILE_BYTES = 512 << 20
#: A file above this is kept and not read.
READ_BYTES = 32 << 20
#: What lies beside MEMORY in Claude Code's folder or in our home, and is none: transcripts,
#: caches, keys. It is named, not taken.
LEAVE = frozenset({
    ".git", ".env", ".credentials.json", ".DS_Store", "node_modules", "projects", "todos",
    "shell-snapshots", "statsig", "plugins", "ide", "cache", "debug", "file-history",
    "paste-cache", "telemetry", "session-env", "sessions", "history.jsonl",
    "secrets", "data", "run", "logs", "workspaces", "config", "MEMORY/Imported",
})  # fmt: skip
#: Where `write` puts memories that PAI has no form for.
OWN = "MEMORY/AI-INFRA/memories.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """line: from 1; 0: the whole file."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.file}:{self.line}: {self.reason}"
            if self.line
            else f"{self.file}: {self.reason}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What `read` found; nothing of it has been done yet.

    signals: explicit ratings only, scale 10; implicit: guessed moods, which are no ratings; telos:
    text by topic (`goals` makes our five of them); files: all that `keep` will keep, byte for
    byte; left: what is no memory and is not taken; places: file and line (0: all) of each memory,
    of one of our own under its first id, too; first: that id by the one that it has in `memories`.
    """

    folder: Path
    user_id: str
    memories: tuple[Memory, ...]
    signals: tuple[Signal, ...]
    implicit: tuple[Implicit, ...]
    telos: Mapping[str, str]
    files: tuple[Original, ...]
    left: tuple[str, ...]
    faults: tuple[Fault, ...]
    places: Mapping[str, tuple[str, int]]
    first: Mapping[str, str]


class _Pile:
    """What has been found so far. telos: text and file by topic; understood: how many files."""

    def __init__(self) -> None:
        self.memories: dict[str, Memory] = {}
        self.signals: list[Signal] = []
        self.implicit: list[Implicit] = []
        self.telos: dict[str, tuple[str, str]] = {}
        self.faults: list[Fault] = []
        self.places: dict[str, tuple[str, int]] = {}
        self.first: dict[str, str] = {}
        self.understood = 0

    def add(self, memory: Memory, file: str, line: int = 0) -> None:
        self.memories[memory.id] = memory
        self.places[memory.id] = (file, line)


def read(folder: Path, user_id: str, *, empty: bool = False) -> Imported:
    """Everything in the PAI folder `folder`, as that user's. Changes nothing, asks nobody.

    The folder holds MEMORY and TELOS (as `~/.claude` does), or is MEMORY itself. A broken row or
    file is a fault and stays among `files`; a symbolic link is a fault, neither followed nor
    kept. Raises InputError when there is no folder, too much of it, or (but for `empty`) nothing
    of PAI in it.
    """
    root = _root(folder)
    files: list[Original] = []
    pile = _Pile()
    total_bytes = 0
    for found in tree.walk(root, LEAVE):
        if isinstance(found, str):
            pile.faults.append(
                Fault(file=_shown(found), line=0, reason="a link or no plain file: not taken")
            )
            continue
        if _shown(found.path) != found.path:
            pile.faults.append(
                Fault(file=_shown(found.path), line=0, reason="its name is no UTF-8: not taken")
            )
            continue
        files.append(found)
        total_bytes += found.size_bytes
        if found.size_bytes > FILE_BYTES:
            raise InputError(f"{found.path} is larger than {FILE_BYTES >> 20} MiB")
        if len(files) > FILES_MAX or total_bytes > TOTAL_BYTES:
            raise InputError(
                f"{folder} has more than {FILES_MAX:,} files or {TOTAL_BYTES >> 30} GiB"
            )
        _file(root, found, user_id, pile)
    left = sorted(one for one in LEAVE if (root / one).exists())
    if not pile.understood and not empty:
        raise InputError(f"{folder} is no PAI folder: nothing of MEMORY or TELOS is in it")
    return Imported(
        folder=root,
        user_id=user_id,
        memories=tuple(pile.memories.values()),
        signals=tuple(pile.signals),
        implicit=tuple(pile.implicit),
        telos={topic: text for topic, (text, _) in pile.telos.items()},
        files=tuple(files),
        left=tuple(left),
        faults=tuple(pile.faults),
        places=pile.places,
        first=pile.first,
    )


def kind(path: str) -> str:
    """What a file is by its path: prd, ratings, reflections, own, learning, research, telos or "".

    PAI has moved them from version to version; the name and the folders around it tell.
    """
    pure = PurePosixPath(path)
    above = [part.upper() for part in pure.parts[:-1]]
    if pure.name == "PRD.md" and "WORK" in above:
        return "prd"
    if pure.name == "ratings.jsonl":
        return "ratings"
    if pure.suffix == ".jsonl" and ("REFLECTIONS" in above or pure.stem == "algorithm-reflections"):
        return "reflections"
    if pure.name == PurePosixPath(OWN).name and "AI-INFRA" in above:
        return "own"
    if pure.name == "TELOS.md" or (above[-1:] == ["TELOS"] and pure.suffix == ".md"):
        return "" if pure.stem.upper() == "README" else "telos"
    if "LEARNING" in above and not {"SIGNALS", "REFLECTIONS"} & set(above):
        if "FAILURES" in above and pure.name != "CONTEXT.md":
            return ""
        return "learning" if pure.suffix in {".md", ".json"} and pure.stem != "README" else ""
    if "RESEARCH" in above and pure.suffix == ".md":
        return "research"
    return ""


def _file(root: Path, found: Original, user_id: str, pile: _Pile) -> None:
    what, path = kind(found.path), found.path
    if not what:
        return
    pile.understood += 1
    if found.size_bytes > READ_BYTES:
        pile.faults.append(Fault(file=path, line=0, reason="too large to be read; kept as it is"))
        return
    written = datetime.fromtimestamp(max(0, found.mtime_ns) / 1e9, UTC)
    try:
        raw = tree.content(root, path) or b""
        if what in {"ratings", "reflections", "own"}:
            _rows(what, path, raw, user_id, written, pile)
        elif what == "telos":
            _telos(path, raw.decode("utf-8-sig"), pile)
        else:
            for memory in _pages(what, path, raw, user_id, written):
                pile.add(memory, path)
    except UnicodeDecodeError:
        pile.faults.append(Fault(file=path, line=0, reason="no UTF-8; kept as it is"))
    except (ValueError, InputError) as error:
        pile.faults.append(Fault(file=path, line=0, reason=str(error)))


def _pages(what: str, path: str, raw: bytes, user_id: str, written: datetime) -> Iterator[Memory]:
    if path.endswith(".json"):
        return pages.learning_json(raw, user_id, path, written)
    make = {"prd": pages.work, "learning": pages.learning, "research": pages.research}[what]
    return make(raw.decode("utf-8-sig"), user_id, path, written)


def _telos(path: str, text: str, pile: _Pile) -> None:
    for topic, said in pages.topics(text, path).items():
        if (other := pile.telos.get(topic)) is not None:
            reason = f"{topic} is told in {other[1]} too, which counts"
            pile.faults.append(Fault(file=path, line=0, reason=reason))
        else:
            pile.telos[topic] = (said, path)


def _rows(what: str, path: str, raw: bytes, user_id: str, written: datetime, pile: _Pile) -> None:
    for number, line, before in rows.lines(raw):
        key = (what, line.decode("utf-8", "replace"), str(before))
        try:
            row = rows.decode(line)
            if what == "reflections":
                file = rows.shown(path)
                pile.add(rows.reflection(row, user_id, file, key, written), path, number)
            elif what == "own":
                memory = rows.own(row, user_id, key)
                pile.add(memory, path, number)
                if isinstance(row.get("id"), str):
                    pile.first[memory.id] = row["id"]
                    pile.places[row["id"]] = (path, number)
            elif isinstance(rated := rows.rating(row, user_id, key), Implicit):
                pile.implicit.append(rated)
            else:
                pile.signals.append(rated)
        except ValueError as error:
            pile.faults.append(Fault(file=path, line=number, reason=str(error)))


def _root(folder: Path) -> Path:
    root = folder.expanduser()
    if not root.is_dir():
        raise InputError(f"{folder} is no folder")
    return root.resolve()


def _shown(path: str) -> str:
    return path.encode("utf-8", "replace").decode()
