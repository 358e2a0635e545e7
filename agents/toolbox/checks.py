"""What the system checks by itself: verdicts `passed`, `failed` or `unmeasured`, and why."""

from __future__ import annotations

import os
import re
import stat
import time

from .files import Files
from .search import compiled
from .shell import Shell
from .wire import OutOfTime, Refused, alarm, clean_output

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from typing import Any

#: How long a regular expression may take.
PATTERN_S = 5.0


class Checks:
    """A check leaves no trace in the shell's state and takes none from it."""

    def __init__(self, files: Files, shell: Shell) -> None:
        self._files = files
        self._shell = shell

    def command(
        self, command: str, pattern: str | None, at_s: float, number: int
    ) -> dict[str, Any]:
        wanted = None
        if pattern is not None:
            try:
                wanted = compiled(pattern, re.MULTILINE)
            except Refused as error:
                return _verdict(None, str(error))
        ran = self._shell.run(command, at_s, number, fresh=True)
        if ran["code"] is None:
            return _verdict(None, str(ran["text"]).splitlines()[0])
        printed = clean_output(ran["raw"])
        lines = [line.strip() for line in printed.splitlines() if line.strip()]
        evidence = str(ran["text"]).splitlines()[0] + (f": {lines[-1]}" if lines else ", no output")
        if ran["code"] == 0 and wanted is not None:
            try:
                with alarm(min(at_s, time.monotonic() + PATTERN_S)):
                    found = wanted.search(printed)
            except OutOfTime:
                return _verdict(None, f"{pattern} took too long")
            if found is None:
                return _verdict(False, f"{evidence}; output does not match {pattern}")
            return _verdict(True, f"exit code 0, output has {found[0].strip()!r}")
        return _verdict(ran["code"] == 0, evidence)

    def file(self, path: str) -> dict[str, Any]:
        try:
            real = self._files.inside(path)
        except Refused as error:
            return _verdict(False, str(error))
        try:
            status = os.stat(real)
        except OSError as error:
            return _verdict(False, f"{path}: {error.strerror}")
        kind = "folder" if stat.S_ISDIR(status.st_mode) else f"{status.st_size:,} bytes"
        return _verdict(True, f"{path} exists ({kind})")

    def pattern(self, path: str, pattern: str) -> dict[str, Any]:
        try:
            wanted = compiled(pattern, re.MULTILINE)
        except Refused as error:
            return _verdict(None, str(error))
        try:
            self._files.inside(path)
            text = self._files.load(path).decode("utf-8", "replace")
        except Refused as error:
            return _verdict(False, str(error))
        found = wanted.search(text)
        if found is None:
            return _verdict(False, f"{path} does not match {pattern}")
        line = text.count("\n", 0, found.start()) + 1
        return _verdict(True, f"{path} line {line}: {found[0].strip()!r}")

    @staticmethod
    def http(url: str, expect_status: int, limit_s: float) -> dict[str, Any]:
        """One GET on the sandbox's own loopback; `refused` is set when nothing listens there."""
        import http.client
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = http.client.HTTPConnection(
            parts.hostname or "127.0.0.1", parts.port or 80, timeout=limit_s
        )
        try:
            connection.request("GET", target)
            status = connection.getresponse().status
        except ConnectionRefusedError:
            return {**_verdict(False, "nothing listens there"), "refused": True}
        except (OSError, http.client.HTTPException) as error:
            return _verdict(False, f"in the sandbox: {type(error).__name__} {error}")
        finally:
            connection.close()
        text = f"in the sandbox: status {status}, {expect_status} wanted"
        return _verdict(status == expect_status, text)


def _verdict(passed: bool | None, evidence: str) -> dict[str, Any]:
    word = "unmeasured" if passed is None else "passed" if passed else "failed"
    return {"ok": True, "text": evidence, "verdict": word}
