"""The text of a patch: a unified diff, or the envelope of add, update, delete and move."""

from __future__ import annotations

import re

from .wire import Refused, clean

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_FILE = re.compile(r"\*\*\* (Add|Update|Delete) File: (.+)")
_BEGIN, _END, _TO = "*** Begin Patch", "*** End Patch", "*** Move to: "
_FOOT = "*** End of File"
_NO_NEWLINE = "\\ No newline at end of file"


class Hunk:
    """`lines`: (sign, text), sign one of space, minus, plus. `line`: where it was, from 1."""

    def __init__(self, line: int | None = None) -> None:
        self.lines: list[tuple[str, str]] = []
        self.line = line
        self.after: list[str] = []
        self.at_end = False
        self.no_end = False
        self.gets_end = False
        self.blank = 0

    def end(self) -> None:
        """Empty lines without a sign before a head only set it apart."""
        if self.blank:
            del self.lines[-self.blank :]
            self.blank = 0


class Change:
    """One file. `kind` is add, update or delete; `to` is its new path when it is moved."""

    def __init__(self, kind: str, path: str) -> None:
        self.kind = kind
        self.path = path
        self.to: str | None = None
        self.hunks: list[Hunk] = []
        self.text = ""


def parse(patch: str) -> list[Change]:
    """Refused, with the line, for a text that is no patch."""
    lines = patch.replace("\r\n", "\n").strip("\n").split("\n")
    if lines and lines[0].startswith("```"):
        lines = lines[1:-1] if lines[-1].startswith("```") else lines[1:]
    if lines and lines[0].strip() == _BEGIN:
        changes = _envelope(lines)
    else:
        changes = _unified(lines)
    for change in changes:
        if change.kind == "update" and not change.hunks and change.to is None:
            raise Refused(f"{change.path}: the patch has nothing to change in it")
    if not changes:
        raise Refused("the patch names no file: give a unified diff or a *** Begin Patch envelope")
    return changes


def _envelope(lines: list[str]) -> list[Change]:
    changes: list[Change] = []
    for number, line in enumerate(lines[1:], 2):
        if line.startswith(("*** ", "@@")) and changes and changes[-1].hunks:
            changes[-1].hunks[-1].end()
        if line.strip() == _END:
            if any(rest.strip() for rest in lines[number:]):
                raise Refused(f"patch line {number}: there is more after *** End Patch")
            return changes
        if (found := _FILE.fullmatch(line.rstrip())) is not None:
            changes.append(Change(found[1].lower(), found[2].strip()))
            continue
        if not changes:
            raise Refused(
                f"patch line {number}: *** Add File, *** Update File or *** Delete File must come "
                f"before {clean(line)[:80]!r}"
            )
        _inside(changes[-1], line, number)
    raise Refused("the patch is cut: *** End Patch is missing")


def _inside(change: Change, line: str, number: int) -> None:
    """One line of a file's part of the envelope."""
    if line.startswith(_TO) and change.kind == "update":
        change.to = line[len(_TO) :].strip()
    elif change.kind == "add":
        if not line.startswith("+"):
            raise Refused(f"patch line {number}: each line of an added file begins with +")
        change.text += line[1:] + "\n"
    elif change.kind == "delete":
        if line.strip():
            raise Refused(f"patch line {number}: a deleted file has no lines in the patch")
    elif line.startswith("@@"):
        found = _HUNK.match(line)
        fresh = not change.hunks or bool(change.hunks[-1].lines) or found is not None
        if fresh:
            change.hunks.append(Hunk(int(found[1]) if found else None))
        anchor = "" if found else line[2:].strip().removesuffix("@@").strip()
        if anchor:
            change.hunks[-1].after.append(anchor)
    elif line.strip() == _FOOT and change.hunks:
        change.hunks[-1].at_end = True
    else:
        if not change.hunks:
            change.hunks.append(Hunk())
        _line(change.hunks[-1], line, number)


def _line(hunk: Hunk, line: str, number: int) -> None:
    if line == _NO_NEWLINE:
        if hunk.lines and hunk.lines[-1][0] != "-":
            hunk.no_end = True
        else:
            hunk.gets_end = True
    elif line == "":
        hunk.lines.append((" ", ""))
        hunk.blank += 1
        return
    elif line[0] in " +-":
        hunk.lines.append((line[0], line[1:]))
    else:
        raise Refused(
            f"patch line {number}: {clean(line)[:80]!r} begins with neither space, + nor -"
        )
    hunk.blank = 0


def _unified(lines: list[str]) -> list[Change]:
    changes: list[Change] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.startswith("diff --git "):
            at = _git_header(lines, at, changes)
        elif line.startswith("--- ") and at + 1 < len(lines) and lines[at + 1].startswith("+++ "):
            _paths(changes, _path(line[4:], "a/"), _path(lines[at + 1][4:], "b/"))
            at += 2
        elif _HUNK.match(line) is not None:
            if not changes:
                raise Refused(f"patch line {at + 1}: a hunk before any --- and +++ line")
            at = _unified_hunk(lines, at, changes[-1])
        elif line.startswith("@@"):
            raise Refused(
                f"patch line {at + 1}: {clean(line)[:80]!r} is no hunk of a unified diff "
                "(@@ -1,3 +1,4 @@); without numbers use the *** Begin Patch envelope"
            )
        elif line.startswith(("GIT binary patch", "Binary files ")):
            raise Refused(f"patch line {at + 1}: binary files cannot be patched")
        else:
            at += 1  # prose, index and mode lines
    return changes


def _git_header(lines: list[str], at: int, changes: list[Change]) -> int:
    """A rename without hunks is told only here."""
    was = to = ""
    at += 1
    while at < len(lines) and not lines[at].startswith(("--- ", "diff --git ", "@@", "Binary")):
        if lines[at].startswith("rename from "):
            was = lines[at][12:]
        elif lines[at].startswith("rename to "):
            to = lines[at][10:]
        at += 1
    if was and to:
        changes.append(Change("update", was))
        changes[-1].to = to
    return at


def _paths(changes: list[Change], old: str | None, new: str | None) -> None:
    if old is None and new is None:
        raise Refused("the patch has a file that is /dev/null on both sides")
    if old is None:
        changes.append(Change("add", str(new)))
    elif new is None:
        changes.append(Change("delete", old))
    elif not (changes and changes[-1].path == old and changes[-1].to == new):
        changes.append(Change("update", old))
        changes[-1].to = new if new != old else None


def _path(text: str, prefix: str) -> str | None:
    path = text.split("\t", maxsplit=1)[0].strip().strip('"')
    return None if path == "/dev/null" else path.removeprefix(prefix)


def _unified_hunk(lines: list[str], at: int, change: Change) -> int:
    """Read a hunk by the counts of its head, as `patch` does. The line after it."""
    found = _HUNK.match(lines[at])
    assert found is not None
    hunk = Hunk(int(found[1]))
    old, new = int(found[2] or 1), int(found[4] or 1)
    at += 1
    while at < len(lines):
        line = lines[at]
        done = old <= 0 and new <= 0
        if line != _NO_NEWLINE and (done or line.startswith(("diff --git ", "@@ "))):
            break
        if line.startswith("--- ") and lines[at + 1 : at + 2] and old <= 0:
            break
        _line(hunk, line, at + 1)
        sign = hunk.lines[-1][0] if line != _NO_NEWLINE else ""
        old -= sign in {" ", "-"}
        new -= sign in {" ", "+"}
        at += 1
    if change.kind == "add":
        change.text += "".join(f"{text}\n" for sign, text in hunk.lines if sign == "+")
        if hunk.no_end:
            change.text = change.text.removesuffix("\n")
    else:
        change.hunks.append(hunk)
    return at
