"""Lines of JSON between the hands and this program, and text that is safe to show."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from typing import Any

TEXT_MAX_BYTES = 64_000

_COLOURS = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)")
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_VISIBLE[0x7F] = 0x2421
_VISIBLE.update(dict.fromkeys(range(0x80, 0xA0), 0xFFFD))


class Refused(Exception):
    """A tool's own failure. `str(error)` is what the model reads."""


class OutOfTime(Exception):
    """The deadline of the call passed inside this program."""


@contextmanager
def alarm(at_s: float) -> Iterator[None]:
    """Raise OutOfTime at `at_s` (monotonic) in whatever runs, a regular expression too."""

    def ring(*_: object) -> None:
        raise OutOfTime

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, at_s - time.monotonic()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def clean(text: str) -> str:
    """Control characters (C0 but newline and tab, DEL, C1) become visible, harmless ones."""
    return text.translate(_VISIBLE)


def clean_output(raw: bytes) -> str:
    """What a terminal would show: colours dropped, line ends made plain, the rest cleaned."""
    text = _COLOURS.sub("", raw.decode("utf-8", "replace"))
    return clean(text.replace("\r\n", "\n").replace("\r", "\n"))


def clip(text: str, limit_bytes: int = TEXT_MAX_BYTES) -> str:
    """`text`, or its two ends with a note between when it has more than `limit_bytes`."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit_bytes:
        return text
    half = (limit_bytes - 200) // 2
    head = raw[:half].decode("utf-8", "ignore")
    tail = raw[-half:].decode("utf-8", "ignore")
    return f"{head}\n[… {len(raw) - 2 * half:,} of {len(raw):,} bytes left out here …]\n{tail}"


class Lines:
    """JSON lines from one descriptor. `ended` is set when the other side is gone."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.ended = False
        self._rest = b""
        self._ready: deque[dict[str, Any]] = deque()

    def fill(self) -> None:
        """Read what is there; call it when the descriptor is readable."""
        pieces: list[bytes] = [self._rest]
        while not self.ended:
            piece = os.read(self.fd, 1 << 20)
            self.ended = not piece
            pieces.append(piece)
            if b"\n" in piece or not select.select([self.fd], [], [], 0)[0]:
                break
        *whole, self._rest = b"".join(pieces).split(b"\n")
        self._ready.extend(json.loads(line) for line in whole if line.strip())

    def take(self) -> dict[str, Any] | None:
        return self._ready.popleft() if self._ready else None

    def stopped(self, number: int) -> bool:
        """Whether the call `number` shall stop: told so, or nobody is left to hear its result."""
        stop = {"stop": number}
        if stop in self._ready:
            self._ready.remove(stop)
            return True
        return self.ended


def send(fd: int, reply: dict[str, Any]) -> None:
    data = json.dumps(reply).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]
