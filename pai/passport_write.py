"""A PAI folder out of what was kept and what is new since.

Nothing of the person's is lost: rows are added to a file of rows, any other file that differs is
given another name beside it before ours takes its place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from base.errors import InputError
from pai import document, telos, tree
from pai import passport_pages as pages
from pai import passport_rows as rows
from pai.passport_read import LEAVE, OWN, Imported, kind, read
from pai.shapes import Collection, Memory, Signal

RATINGS = "MEMORY/LEARNING/SIGNALS/ratings.jsonl"
ROWS = {"ratings", "reflections", "own"}

_TITLE = re.compile(r"\A\s*# .*\n")
#: A heading inside a section stands below it.
_HEADING = re.compile(r"(?m)^(#{1,4} )")
#: Which of PAI's topics make ours, when there is none of its name.
FROM = {
    "mission": (),
    "vision": ("narratives",),
    "values": ("beliefs", "models", "wisdom"),
    "priorities": ("goals", "projects", "strategies", "challenges", "problems"),
    "success": ("metrics",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Paths in the folder, each in one of the first three. backed_up: where the file that was
    there now is; superseded: kept twice with other content, the later one was taken.
    """

    written: tuple[str, ...]
    appended: tuple[str, ...]
    unchanged: tuple[str, ...]
    backed_up: Mapping[str, str]
    superseded: tuple[str, ...]


class _Plan:
    """What each path shall hold: made when it is its turn, so that one file at a time is held."""

    def __init__(self) -> None:
        self.make: dict[str, Callable[[], bytes]] = {}
        self.mtime_ns: dict[str, int] = {}
        self.superseded: list[str] = []

    def add(self, path: str, make: Callable[[], bytes]) -> None:
        self.make[tree.safe(path)] = make
        self.mtime_ns.pop(path, None)


def write(
    folder: Path,
    *,
    user_id: str,
    memories: Iterable[Memory] = (),
    learnings: Iterable[Memory] = (),
    signals: Iterable[Signal] = (),
    telos: Mapping[str, str] | None = None,
    work: Mapping[str, Path] | None = None,
    originals: Sequence[Path] = (),
) -> Exported:
    """Make or complete the PAI folder at `folder`.

    originals: kept folders (`kept`), oldest first; they leave byte for byte. Of `memories`,
    `learnings` and `signals` (explicit ratings; others have no place in PAI) what came out of
    the originals is left out. telos: our files by name; what is unchanged since the import or
    says nothing (a template) is left out. work: PRD.md files by the name of their task's
    folder. Safe twice. Raises InputError when a link or no folder is in the way; what had been
    written by then stays.
    """
    plan = _Plan()
    came: list[Imported] = []
    for kept in originals:
        came.append(_original(plan, kept, user_id))
    known = {one.id for imported in came for one in imported.memories}
    known |= {one.id for imported in came for one in imported.signals}
    given = {one.id: one for one in (*memories, *learnings) if one.id not in known}
    _signals(plan, [one for one in signals if one.id not in known])
    fresh = [one for one in given.values() if one.user_id == user_id]
    _rows(plan, OWN, [rows.own_row(m) for m in fresh if m.collection != Collection.LEARNINGS])
    for memory in fresh:
        if memory.collection == Collection.LEARNINGS:
            path, text = pages.learning_page(memory)
            plan.add(f"MEMORY/LEARNING/{path}", _bytes(text))
    for name, file in (work or {}).items():
        plan.add(f"MEMORY/WORK/{name}/PRD.md", file.read_bytes)
    _telos(plan, telos or {}, came)
    return _carry_out(folder, plan)


def adopt(texts: Mapping[str, str], folder: Path) -> Exported:
    """Write `goals` into our TELOS folder (`telos.folder(settings)`); what stood there and differs
    is given another name beside it.
    """
    plan = _Plan()
    for name, text in texts.items():
        if name not in telos.NAMES:
            raise InputError(f"{name!r} is none of {', '.join(telos.NAMES)}")
        plan.add(f"{name}.md", _bytes(text))
    return _carry_out(folder, plan)


def goals(topics: Mapping[str, str]) -> dict[str, str]:
    """Our five TELOS texts out of PAI's topics; those that nothing is said of are left out."""
    found = {}
    for name, others in FROM.items():
        told = [
            (one.title(), _TITLE.sub("", topics[one], count=1)) for one in others if one in topics
        ]
        parts = [f"## {title}\n\n{said.strip()}" for title, said in told if said.strip()]
        if text := topics.get(name) or "\n\n".join(parts):
            found[name] = text.strip() + "\n"
    return found


def _original(plan: _Plan, kept: Path, user_id: str) -> Imported:
    """All files of a kept folder. Of two kept files the later one counts, rows are joined."""
    imported = read(kept, user_id, empty=True)
    for file in imported.files:
        path, mine = file.path, _kept(kept, file.path)
        if (before := plan.make.get(path)) is not None:
            if kind(path) in ROWS:
                plan.add(path, _joined(before, mine))
                continue
            if before() != mine():
                plan.superseded.append(path)
        plan.add(path, mine)
        plan.mtime_ns[path] = file.mtime_ns
    return imported


def _signals(plan: _Plan, signals: Iterable[Signal]) -> None:
    path = next((path for path in plan.make if kind(path) == "ratings"), RATINGS)
    _rows(plan, path, [rows.rating_row(one) for one in signals if one.rating is not None])


def _rows(plan: _Plan, path: str, new: list[rows.Row]) -> None:
    if not new:
        return
    lines = b"".join(rows.dump(row) for row in new)
    before = plan.make.get(path)
    plan.add(path, (lambda: lines) if before is None else _joined(before, lambda: lines))


def _telos(plan: _Plan, ours: Mapping[str, str], came: Sequence[Imported]) -> None:
    topics: dict[str, str] = {}
    for imported in came:
        topics.update(imported.telos)
    since = goals(topics)
    where = {PurePosixPath(path).stem.lower(): path for path in plan.make if kind(path) == "telos"}
    for name, text in ours.items():
        if name not in telos.NAMES:
            raise InputError(f"{name!r} is none of {', '.join(telos.NAMES)}")
        if not telos.spoken(text, name) or text.strip() == since.get(name, "").strip():
            continue
        single = where.get("telos")
        if single and name not in where:
            whole = document.parse(plan.make[single]().decode("utf-8"))
            said = _HEADING.sub(r"##\1", _TITLE.sub("", text, count=1))
            plan.add(single, _bytes(whole.put_section(name.title(), said).render()))
            continue
        beside = PurePosixPath(next(iter(where.values()), "TELOS/-")).parent
        inside = beside if beside.name.upper() == "TELOS" else beside / "TELOS"
        plan.add(where.get(name, str(inside / f"{name.upper()}.md")), _bytes(text))


def _carry_out(folder: Path, plan: _Plan) -> Exported:
    root = folder.expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InputError(f"{folder}: {(error.strerror or str(error)).lower()}") from error
    root = root.resolve()
    suffix = f".bak-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    written: list[str] = []
    appended: list[str] = []
    unchanged: list[str] = []
    backed_up: dict[str, str] = {}
    for path in sorted(plan.make):
        if PurePosixPath(path).parts[0] in LEAVE:
            raise InputError(f"{path} is no place of memory")
        ours, theirs = plan.make[path](), tree.content(root, path)
        mtime_ns = plan.mtime_ns.get(path)
        if theirs is not None and kind(path) in ROWS:
            whole = _join(theirs, ours)
            (unchanged if whole == theirs else appended).append(path)
            if whole != theirs:
                tree.put(root, path, whole)
            continue
        if theirs == ours:
            unchanged.append(path)
            continue
        if theirs is not None:
            backed_up[path] = path + _free(root, path, suffix)
            tree.twin(root, path, PurePosixPath(backed_up[path]).name)
        tree.put(root, path, ours, mtime_ns=mtime_ns)
        written.append(path)
    return Exported(
        written=tuple(written),
        appended=tuple(appended),
        unchanged=tuple(unchanged),
        backed_up=backed_up,
        superseded=tuple(plan.superseded),
    )


def _join(first: bytes, second: bytes) -> bytes:
    """`first` as it is, and the lines of `second` that it has not, as often as they stand there."""
    if second.startswith(first):
        return second
    there = Counter(line.strip() for line in first.split(b"\n"))
    missing = []
    for line in second.split(b"\n"):
        if not line.strip():
            continue
        if there[line.strip()]:
            there[line.strip()] -= 1
        else:
            missing.append(line.rstrip(b"\r") + b"\n")
    if not missing:
        return first
    return first + (b"" if first.endswith(b"\n") or not first else b"\n") + b"".join(missing)


def _joined(first: Callable[[], bytes], second: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: _join(first(), second())


def _kept(kept: Path, path: str) -> Callable[[], bytes]:
    def make() -> bytes:
        if (found := tree.content(kept, path)) is None:
            raise InputError(f"{path} has gone from {kept}")
        return found

    return make


def _bytes(text: str) -> Callable[[], bytes]:
    raw = text.encode("utf-8", "replace")
    return lambda: raw


def _free(root: Path, path: str, suffix: str) -> str:
    """A suffix under which nothing stands yet."""
    tried, number = suffix, 1
    while tree.content(root, path + tried) is not None:
        number += 1
        tried = f"{suffix}-{number}"
    return tried
