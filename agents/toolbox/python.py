"""Run Python code as a program of its own, in the shell's folder and with its variables."""

from __future__ import annotations

import os
import shlex
import sys
import time

from .files import Files
from .shell import Shell

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from typing import Any

LIMIT_S = 120.0
_PLACE = "/tmp/python"


class Python:
    """The last ten programs stay in /tmp/python, where tracebacks point."""

    def __init__(self, files: Files, shell: Shell) -> None:
        self._files = files
        self._shell = shell
        self._count = 0

    def run(
        self, code: str, at_s: float, number: int, *, limit_s: float = LIMIT_S
    ) -> dict[str, Any]:
        self._count += 1
        path = f"{_PLACE}/{self._count}.py"
        os.makedirs(_PLACE, exist_ok=True)
        if self._count > 10 and os.path.lexists(old := f"{_PLACE}/{self._count - 10}.py"):
            os.unlink(old)
        with open(path, "w", encoding="utf-8") as file:
            file.write(code)
        known = 'PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1'
        command = f"{known} {shlex.quote(self._interpreter())} -X utf8 {path}"
        ran = self._shell.run(command, min(at_s, time.monotonic() + limit_s), number)
        return {"ok": ran["ok"], "text": ran["text"]}

    def _interpreter(self) -> str:
        own = os.path.join(self._files.workspace, ".venv/bin/python")
        for path in (own, "/usr/bin/python3", "/usr/local/bin/python3"):
            if os.access(path, os.X_OK):
                return path
        return sys.executable
