"""TELOS: the owner's goals, five files that are part of every prompt.

`$AI_INFRA_HOME/TELOS/{mission,vision,values,priorities,success}.md` are the owner's to edit. What
stands in HTML comments is for the reader of the file; a file without more than headings adds
nothing. Every text that was seen is kept (`pai/telos_history.py`).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from base import modes
from base.errors import InputError, SettingsError
from base.settings import Settings

NAMES = ("mission", "vision", "values", "priorities", "success")
SHIPPED = Path(__file__).resolve().parent.parent / "config" / "telos"
#: What all five may take of a prompt, at four bytes a token.
TOKENS_MAX = 2_000
BYTES_PER_TOKEN = 4
FILE_MAX_BYTES = 256_000
HEAD = (
    "# The owner's goals (TELOS)\n"
    "What this installation is for, in its owner's words. Weigh your choices by them where the "
    "request leaves a choice. They are no task of their own and no permission, and the request "
    "says what is wanted now."
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_HEADING = re.compile(r"(#{1,6})\s+(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goals:
    """What a prompt says of them: `text` is "" when the owner has said nothing yet.

    version: of exactly this text; faults: what was left out, and why.
    """

    text: str = ""
    version: str = ""
    faults: tuple[str, ...] = ()


class Telos:
    """The goals of one home, read anew when a file changes. `tell` is told what is wrong."""

    def __init__(self, settings: Settings, tell: Callable[[str], None]) -> None:
        self._folder = folder(settings)
        self._tell = tell
        self._seen: tuple[object, ...] = ()
        self._goals = Goals()

    def now(self) -> Goals:
        """The goals as they are now; byte for byte the same until a file changes. Never raises."""
        seen = tuple(_stamp(self._folder / f"{name}.md") for name in NAMES)
        if seen != self._seen:
            self._seen = seen
            raw, faults = read(self._folder)
            self._goals = compose(raw, faults)
            for fault in (*self._goals.faults, *(_kept(self._folder, raw) if raw else ())):
                self._tell(f"TELOS: {fault}")
        return self._goals


def folder(settings: Settings) -> Path:
    return settings.home / "TELOS"


def prepare(settings: Settings) -> None:
    """Make the folder and lay a template where a file is missing; nothing is overwritten.

    Raises SettingsError when it cannot be made.
    """
    place = folder(settings)
    try:
        place.mkdir(mode=modes.FOLDER, exist_ok=True)
        for name in NAMES:
            try:
                fd = os.open(place / f"{name}.md", os.O_WRONLY | os.O_CREAT | os.O_EXCL, modes.FILE)
            except FileExistsError:
                continue
            with open(fd, "wb") as file:
                file.write((SHIPPED / f"{name}.md").read_bytes())
    except OSError as error:
        raise SettingsError([f"cannot prepare {error.filename}: {error.strerror}"]) from error


def read(place: Path) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Each file as it is on the disk, and what is wrong with those that are left out."""
    found: dict[str, bytes] = {}
    faults = []
    for name in NAMES:
        path = place / f"{name}.md"
        try:
            status = path.stat()
            fault = _unfit(status)
            if fault is None:
                found[name] = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            fault = error.strerror or type(error).__name__
        if fault is not None:
            faults.append(f"{name}.md is left out: {fault}")
    return found, tuple(faults)


def write(place: Path, name: str, raw: bytes) -> None:
    """Put a file's new text in its place, whole or not at all; where a link leads elsewhere, there.

    What it says now and what it says then are both kept. Raises InputError for a name that is
    none, a text too long or not UTF-8, SettingsError when it cannot be written.
    """
    from pai import telos_history

    if name not in NAMES:
        raise InputError(f"no file {name!r}; there are: {', '.join(NAMES)}")
    if len(raw) > FILE_MAX_BYTES:
        raise InputError(f"{name}.md: {len(raw):,} bytes; the limit is {FILE_MAX_BYTES:,}")
    if b"\0" in raw:
        raise InputError(f"{name}.md: text cannot hold a NUL character")
    path = (place / f"{name}.md").resolve()
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        place.mkdir(mode=modes.FOLDER, exist_ok=True)
        before, _ = read(place)
        telos_history.keep(place, {at: text for at, text in before.items() if at == name})
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, modes.FILE)
        with open(fd, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        telos_history.keep(place, {name: raw})
    except OSError as error:
        raise SettingsError([f"cannot write {error.filename}: {error.strerror}"]) from error


def compose(raw: Mapping[str, bytes], faults: tuple[str, ...] = ()) -> Goals:
    """What a prompt says of these files. Pure."""
    words = {name: raw[name].decode("utf-8", "replace") for name in NAMES if name in raw}
    said = {name: spoken(text, name) for name, text in words.items()}
    said = {name: text for name, text in said.items() if text}
    if not said:
        return Goals(faults=faults)
    allowed = _shares({name: len(text.encode()) for name, text in said.items()})
    parts = [HEAD]
    more = list(faults)
    for name, text in said.items():
        if len(text.encode()) > allowed[name]:
            kept = text.encode()[: allowed[name]].decode("utf-8", "ignore").rstrip() + " […]"
            more.append(
                f"{name}.md is cut: of {len(text):,} characters {len(kept):,} fit a prompt; all "
                f"five may take {TOKENS_MAX:,} tokens"
            )
        else:
            kept = text
        parts.append(f"## {name.capitalize()}\n{kept}")
    whole = "\n\n".join(parts)
    digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
    return Goals(text=whole, version=digest, faults=tuple(more))


def spoken(text: str, name: str) -> str:
    """What a file says without its comments, its title and headings under which nothing stands.

    A comment that is never closed hides the rest of the file.
    """
    text = _COMMENT.sub("", text.lstrip("\ufeff")).split("<!--")[0]
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\0", "").split("\n")]
    kept: list[str] = []
    for line in reversed(lines):
        heading = _HEADING.fullmatch(line)
        if heading is not None and not _speaks(kept, len(heading[1])):
            continue
        if line or (kept and kept[-1]):
            kept.append(f"##{line}" if heading is not None else line)
    while kept and not kept[-1]:
        kept.pop()
    kept.reverse()
    if kept and kept[0].lower() == f"### {name}":  # the prompt has that title already
        kept = kept[1:]
    return "\n".join(kept).strip()


def _speaks(below: list[str], depth: int) -> bool:
    """Whether something stands under a heading. `below` is backwards, its headings two deeper."""
    for line in reversed(below):
        if (heading := _HEADING.fullmatch(line)) is not None:
            return len(heading[1]) - 2 > depth
        if line:
            return True
    return False


def _shares(sizes_bytes: Mapping[str, int]) -> dict[str, int]:
    """How many bytes of each fit: short ones whole, the long ones an equal part of what is left."""
    left_bytes = TOKENS_MAX * BYTES_PER_TOKEN - len(HEAD) - 40 * len(NAMES)
    allowed: dict[str, int] = {}
    for done, (name, size_bytes) in enumerate(sorted(sizes_bytes.items(), key=lambda one: one[1])):
        allowed[name] = min(size_bytes, left_bytes // (len(sizes_bytes) - done))
        left_bytes -= allowed[name]
    return allowed


def _kept(place: Path, raw: Mapping[str, bytes]) -> tuple[str, ...]:
    """Keep what was seen; what went wrong with that."""
    from pai import telos_history

    try:
        telos_history.keep(place, raw)
    except OSError as error:
        return (f"this version is not kept: {error.strerror} ({error.filename})",)
    return ()


def _unfit(status: os.stat_result) -> str | None:
    """Why a file cannot be taken for the owner's own words."""
    if not stat.S_ISREG(status.st_mode):
        return "it is no file"
    if status.st_uid not in modes.owners():
        return "it belongs to somebody else"
    if status.st_mode & 0o022:
        return "others can write it: chmod 600"
    if status.st_size > FILE_MAX_BYTES:
        return f"it has more than {FILE_MAX_BYTES:,} bytes"
    return None


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode, found.st_uid)
