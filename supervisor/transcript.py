"""Window 0: what the supervisor does, for people to read. Plain ANSI, 80 columns.

Everything shown may hold text from models, agents or users: control characters never pass, and
secrets never stay in the scrollback.
"""

from __future__ import annotations

import sys
import textwrap
from datetime import datetime
from typing import TextIO

from base.redact import redact
from base.terminal import neutral

WIDTH = 80
STAMP = "%H:%M:%S"
INDENT = " " * 9
DIM, RESET = "\x1b[2m", "\x1b[0m"


class Transcript:
    """Writes lines to `out`; colours only on a terminal. A closed pipe ends the writing."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._colour = self._out.isatty()
        self._broken = False

    def tell(self, text: str) -> None:
        """One entry with the time of day, wrapped and indented."""
        indent = INDENT + ("    " if text.startswith("  ") else "  ")
        stamp = datetime.now().strftime(STAMP)
        lines = textwrap.wrap(
            neutral(redact(text)).strip(),
            WIDTH,
            initial_indent=INDENT + (INDENT[:2] if text.startswith("  ") else ""),
            subsequent_indent=indent,
        ) or [INDENT]
        head = f"{DIM}{stamp}{RESET}" if self._colour else stamp
        lines[0] = head + lines[0][len(stamp) :]
        if self._broken:
            return
        try:
            self._out.write("\n".join(lines) + "\n")
            self._out.flush()
        except (OSError, ValueError):
            self._broken = True
