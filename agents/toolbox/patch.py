"""Change several files at once: all of a patch or none of it."""

from __future__ import annotations

import os

from .files import Files
from .patch_text import Change, Hunk, parse
from .wire import Refused, clean

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from typing import Any

FILES_MAX = 200
#: Longer files are not searched for what is most like a hunk that does not fit.
NEAR_MAX_LINES = 50_000


class Patch:
    """Reads and writes through `files`, so paths obey the same rules."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def apply(self, patch: str) -> dict[str, Any]:
        changes = parse(patch)
        if len(changes) > FILES_MAX:
            raise Refused(f"the patch has {len(changes)} files; at most {FILES_MAX} at once")
        after: dict[str, bytes | None] = {}
        moved: dict[str, str] = {}
        told: list[str] = []
        faults: list[str] = []
        for change in changes:
            try:
                told.append(self._one(change, after, moved))
            except Refused as error:
                faults.append(str(error))
        if faults:
            listed = "\n".join(f"- {fault}" for fault in faults)
            raise Refused(f"nothing was changed; the patch does not fit:\n{listed}")
        self._store(after, moved)
        files = [self._files.shown(real) for real, data in after.items() if data is not None]
        return {"ok": True, "text": "\n".join(told), "files": files}

    def _one(self, change: Change, after: dict[str, bytes | None], moved: dict[str, str]) -> str:
        """Work out one file into `after`, and `moved` (to: from); says what is done."""
        real = self._files.inside(change.path)
        shown = self._files.shown(real)
        there = after[real] is not None if real in after else os.path.lexists(real)
        if change.kind == "add":
            if there:
                raise Refused(f"{change.path}: it exists already; update it, or delete it first")
            after[real] = change.text.encode()
            return f"added {shown}"
        if not there:
            raise Refused(f"{change.path}: no such file")
        known = after.get(real)
        raw = self._files.load(change.path) if known is None else known
        if change.kind == "delete":
            if change.hunks:
                _patched(change.path, raw, change.hunks)
            after[real] = None
            return f"deleted {shown}"
        new = _patched(change.path, raw, change.hunks) if change.hunks else raw
        if change.to is None or self._files.inside(change.to) == real:
            after[real] = new
            return f"changed {shown} ({_places(change)})"
        target = self._files.inside(change.to)
        taken = after[target] is not None if target in after else os.path.lexists(target)
        if taken:
            raise Refused(f"{change.to}: it exists already, {change.path} cannot be moved there")
        after[real], after[target], moved[target] = None, new, real
        more = f", changed ({_places(change)})" if change.hunks else ""
        return f"moved {shown} to {self._files.shown(target)}{more}"

    def _store(self, after: dict[str, bytes | None], moved: dict[str, str]) -> None:
        """Write everything; when one of them fails put back what was there."""
        before: list[tuple[str, bytes | None, int]] = []
        try:
            for real, data in after.items():
                old, mode = None, 0o644
                if os.path.lexists(real):
                    old, mode = self._files.load(real), os.lstat(real).st_mode & 0o777
                before.append((real, old, mode))
                if data is None:
                    os.unlink(real)
                else:
                    self._files.store(self._files.shown(real), real, data)
                    if real in moved:
                        os.chmod(real, next(was[2] for was in before if was[0] == moved[real]))
        except (OSError, Refused) as error:
            for real, old, mode in reversed(before):
                self._restore(real, old, mode)
            raise Refused(f"nothing was changed: {error}") from error

    def _restore(self, real: str, old: bytes | None, mode: int) -> None:
        if old is not None:
            self._files.store(self._files.shown(real), real, old)
            os.chmod(real, mode)
        elif os.path.lexists(real):
            os.unlink(real)


def _places(change: Change) -> str:
    count = len(change.hunks)
    return "1 place" if count == 1 else f"{count} places"


def _patched(path: str, raw: bytes, hunks: list[Hunk]) -> bytes:
    """`raw` with every hunk carried out. Refused names each hunk that does not fit."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Refused(f"{path}: is no UTF-8 text; change it with the shell") from None
    ending = "\r\n" if "\r\n" in text else "\n"
    lines = text.replace("\r\n", "\n").split("\n")
    last = lines.pop() if lines[-1] == "" else None
    shift, start = 0, 0
    faults = []
    for number, hunk in enumerate(hunks, 1):
        named = f"{path}: hunk {number} of {len(hunks)}"
        try:
            place, old = _place(lines, hunk, start, shift)
        except Refused as error:
            faults.append(f"{named} {error}")
            continue
        new = _merged(lines[place : place + len(old)], hunk)
        lines[place : place + len(old)] = new
        if hunk.line is not None:
            shift = place + 1 - hunk.line + len(new) - len(old)
        start = place + len(new)
    if faults:
        raise Refused("\n- ".join(faults))
    if hunks[-1].no_end and start == len(lines):
        last = None
    elif last is None and (not raw or hunks[-1].gets_end):
        last = ""
    return ending.join([*lines, ""] if last is not None and lines else lines).encode()


def _merged(there: list[str], hunk: Hunk) -> list[str]:
    """The new lines; those that stay keep the file's own white space."""
    out, at = [], 0
    for sign, line in hunk.lines:
        if sign == "+":
            out.append(line)
        else:
            if sign == " ":
                out.append(there[at])
            at += 1
    return out


def _place(lines: list[str], hunk: Hunk, start: int, shift: int) -> tuple[int, list[str]]:
    """Where the hunk's old lines are, from line `start` on, and what they are."""
    old = [line for sign, line in hunk.lines if sign != "+"]
    for anchor in hunk.after:
        found = [at for at in range(start, len(lines)) if lines[at].strip() == anchor.strip()] or [
            at for at in range(start, len(lines)) if anchor.strip() in lines[at]
        ]
        if not found:
            raise Refused(f"does not fit: no line {_quoted(anchor)} (after @@) was found")
        start = found[0] + 1
    if not old:
        if hunk.line is not None:
            return min(max(hunk.line + shift, 0), len(lines)), old
        return (start if hunk.after else len(lines)), old
    for same in (_exact, _loose):
        wanted = [same(line) for line in old]
        have = [same(line) for line in lines]
        found = [
            at
            for at in range(start, len(lines) - len(old) + 1)
            if have[at] == wanted[0] and have[at : at + len(old)] == wanted
        ]
        if hunk.at_end:
            found = found[-1:]
        if found and hunk.line is not None:
            hint = hunk.line - 1 + shift
            return min(found, key=lambda at: abs(at - hint)), old
        if len(found) == 1 or (found and (hunk.after or start)):
            return found[0], old
        if found:
            listed = ", ".join(str(at + 1) for at in found[:10])
            raise Refused(
                f"fits {len(found)} places (lines {listed}): give more lines around it, or a "
                "line before it after @@"
            )
    raise Refused(f"does not fit: {_nearest(lines, old, start)}")


def _exact(line: str) -> str:
    return line


def _loose(line: str) -> str:
    return line.rstrip()


def _nearest(lines: list[str], old: list[str], start: int) -> str:
    """What is most like the hunk's old lines, and the first line that differs."""
    if not lines:
        return "the file is empty"
    if len(lines) > NEAR_MAX_LINES:
        return "its lines were not found"
    wanted = [" ".join(line.split()) for line in old]
    have = [" ".join(line.split()) for line in lines]
    words = {line for line in wanted if line}
    score: dict[int, int] = {}
    for number, line in enumerate(have):
        if line not in words:
            continue
        for at, one in enumerate(wanted):
            if one == line:
                score[number - at] = score.get(number - at, 0) + 1
    if not score:
        return f"none of its lines is in the file, such as {_quoted(old[0])}"
    best = max(score, key=lambda at: (score[at], at >= start, -at))
    for at, line in enumerate(old):
        place = best + at
        there = lines[place] if 0 <= place < len(lines) else None
        if there is None:
            return f"it is most like line {best + 1}, but the file has no line {place + 1}"
        if there.rstrip() != line.rstrip():
            return (
                f"it is most like line {best + 1}, but line {place + 1} is {_quoted(there)}, "
                f"not {_quoted(line)}"
            )
    return f"its lines are at line {best + 1}, before the end of the hunk above: order the hunks"


def _quoted(line: str) -> str:
    shown = clean(line)
    return repr(shown if len(shown) <= 120 else f"{shown[:120]}…")
