"""Find files by name and text by pattern, with ripgrep where it is installed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from .files import Files
from .processes import Processes
from .wire import Refused, clean, clean_output

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from typing import Any

GLOB_MAX = 1_000
GREP_MAX = 500
LINE_MAX_CHARS = 400
_SKIPPED = {".git", "__pycache__", "node_modules", ".venv"}


class Search:
    """`env` is the environment of the ripgrep that is started."""

    def __init__(self, files: Files, processes: Processes, env: dict[str, str]) -> None:
        self._files = files
        self._processes = processes
        self._env = env
        self.ripgrep: str | None = _program("rg", env["PATH"])

    def glob(self, pattern: str, path: str = ".") -> dict[str, Any]:
        """Files below `path`, newest first; hidden ones too, but no version control folders."""
        top = self._folder(path)
        matches = name_pattern(pattern)
        found = [
            (os.lstat(real).st_mtime, real)
            for real in _walk(top)
            if matches.match(os.path.relpath(real, top))
        ]
        found.sort(reverse=True)
        shown = [self._files.shown(real) for _, real in found[:GLOB_MAX]]
        if len(found) > GLOB_MAX:
            shown.append(f"[{GLOB_MAX} of {len(found)} files shown: narrow the pattern]")
        return {"ok": True, "text": "\n".join(shown) or f"no file matches {pattern}"}

    def grep(
        self,
        pattern: str,
        path: str = ".",
        glob: str | None = None,
        ignore_case: bool = False,
        *,
        at_s: float,
        number: int,
    ) -> dict[str, Any]:
        real = self._files.inside(path, scratch=True)
        if not os.path.exists(real):
            raise Refused(f"{path}: no such file or folder")
        if self.ripgrep:
            lines, more = self._with_ripgrep(pattern, real, glob, ignore_case, at_s, number)
        else:
            lines, more = self._without(pattern, real, glob, ignore_case)
        if more:
            lines.append(f"[only the first {len(lines)} matches are shown: narrow the search]")
        return {"ok": True, "text": "\n".join(lines) or f"nothing matches {pattern}"}

    def _folder(self, path: str) -> str:
        top = self._files.inside(path, scratch=True)
        if not os.path.isdir(top):
            raise Refused(f"{path}: no such folder")
        return top

    def _with_ripgrep(
        self, pattern: str, real: str, glob: str | None, ignore_case: bool, at_s: float, no: int
    ) -> tuple[list[str], bool]:
        argv = [str(self.ripgrep), "--no-config", "--no-heading", "--line-number", "--hidden"]
        argv += ["--color=never", "--with-filename", "--sort=path", "--no-messages", "--no-ignore"]
        argv += [f"--max-columns={LINE_MAX_CHARS}", "--max-columns-preview", "--max-count=200"]
        argv += [f"--glob=!{name}" for name in sorted(_SKIPPED)]
        argv += [f"--glob={glob}"] if glob else []
        argv += ["--ignore-case"] if ignore_case else []
        running = self._processes.start([*argv, f"--regexp={pattern}", "--", real], self._env)
        how = self._processes.wait(running, at_s, no)
        if how != "exited":
            raise Refused(f"the search was killed: {how}")
        text = clean_output(running.output.raw())
        if running.code not in {0, 1}:
            reason = text.strip().rpartition("error: ")[2] or text.strip() or "unknown reason"
            raise Refused(f"grep: {reason[:300]}")
        lines = [self._line(line) for line in text.splitlines()[:GREP_MAX]]
        return lines, running.output.total_bytes > len(running.output.raw()) or (
            text.count("\n") > GREP_MAX
        )

    def _line(self, line: str) -> str:
        prefix = self._files.workspace.rstrip("/") + "/"
        return line.removeprefix(prefix)

    def _without(
        self, pattern: str, real: str, glob: str | None, ignore_case: bool
    ) -> tuple[list[str], bool]:
        wanted = compiled(pattern, re.IGNORECASE if ignore_case else 0)
        named = name_pattern(glob) if glob else None
        top = real if os.path.isdir(real) else os.path.dirname(real)
        lines: list[str] = []
        for file in sorted(_walk(real)) if os.path.isdir(real) else [real]:
            if named and not named.match(os.path.relpath(file, top)):
                continue
            try:
                raw = self._files.load(file)
            except Refused:
                continue
            if b"\0" in raw[:8192]:
                continue
            shown = self._files.shown(file)
            for number, line in enumerate(raw.decode("utf-8", "replace").split("\n"), 1):
                if wanted.search(line):
                    lines.append(f"{shown}:{number}:{clean(line)[:LINE_MAX_CHARS]}")
                    if len(lines) >= GREP_MAX:
                        return lines, True
        return lines, False


def compiled(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """Refused when it is no regular expression."""
    try:
        return re.compile(pattern, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise Refused(f"not a regular expression: {error}") from error


def name_pattern(glob: str) -> re.Pattern[str]:
    """`**/` any folders, `*` and `?` inside a name, `[ab]`, `{a,b}`; no slash: in any folder."""
    glob = glob.removeprefix("./")
    glob = glob if "/" in glob else f"**/{glob}"
    out, place, depth = "", 0, 0
    while place < len(glob):
        char, rest = glob[place], glob[place:]
        place += 1
        if rest.startswith("**/"):
            out, place = out + "(?:[^/]+/)*", place + 2
        elif rest.startswith("**"):
            out, place = out + ".*", place + 1
        elif char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[" and "]" in glob[place + 1 :]:
            end = glob.index("]", place + 1)
            inner = glob[place:end].replace("\\", "\\\\").replace("[", "\\[")
            out += "[^" + inner[1:] + "]" if inner[0] in "!^" else f"[{inner}]"
            place = end + 1
        elif char == "{" and "}" in glob[place:]:
            out, depth = out + "(?:", depth + 1
        elif char == "}" and depth:
            out, depth = out + ")", depth - 1
        elif char == "," and depth:
            out += "|"
        else:
            out += re.escape(char)
    return compiled(f"(?s:{out}){')' * depth}\\Z")


def _program(name: str, path: str) -> str | None:
    for folder in path.split(":"):
        if os.access(os.path.join(folder, name), os.X_OK):
            return os.path.join(folder, name)
    return None


def _walk(top: str) -> Iterator[str]:
    """Every file below `top`, links not followed."""
    for folder, names, files in os.walk(top):
        names[:] = [name for name in names if name not in _SKIPPED]
        for name in files:
            yield os.path.join(folder, name)
