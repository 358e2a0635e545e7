"""What a command prints: both ends for the model, up to a limit on disk, all of it counted."""

from __future__ import annotations

import contextlib
import os

from .wire import TEXT_MAX_BYTES, clean_output, clip

_HALF_BYTES = TEXT_MAX_BYTES // 2
_READ_BYTES = 1 << 20


class Output:
    """Reads a pipe. `path` is where the disk copy goes once the text is too long to show."""

    def __init__(self, fd: int, path: str, disk_max_bytes: int) -> None:
        self.fd = fd
        self.open = True
        self.total_bytes = 0
        self._head = bytearray()
        self._tail = bytearray()
        self._path = path
        self._disk: int | None = None
        self._disk_left_bytes = disk_max_bytes
        self._disk_bytes = 0
        self._new = bytearray()
        self._new_bytes = 0

    def pump(self) -> int:
        """Read once without waiting. Bytes read; 0 when there is nothing now or for ever."""
        try:
            piece = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return 0
        if not piece:
            self.close()
            return 0
        self.total_bytes += len(piece)
        self._new = (self._new + piece)[-_HALF_BYTES:]
        self._new_bytes += len(piece)
        if self.total_bytes > TEXT_MAX_BYTES:
            self._spill(piece if self._tail else bytes(self._head) + piece)
        shown = piece[: TEXT_MAX_BYTES - len(self._head)] if not self._tail else b""
        self._head += shown
        self._tail += piece[len(shown) :][-_HALF_BYTES:]
        del self._tail[:-_HALF_BYTES]
        return len(piece)

    def drain(self) -> None:
        """Read what is in the pipe now, and no more than a pipe holds: a flood has no end."""
        left = 1 << 20
        while self.open and left > 0:
            count = self.pump()
            if not count:
                return
            left -= count

    def close(self) -> None:
        """Safe to call twice."""
        if self.open:
            self.open = False
            os.close(self.fd)
        if self._disk is not None:
            os.close(self._disk)
            self._disk = None

    def text(self) -> str:
        if self.total_bytes <= TEXT_MAX_BYTES:
            return clip(clean_output(bytes(self._head)), TEXT_MAX_BYTES - 1000)
        left_out = self.total_bytes - 2 * _HALF_BYTES
        kept = f"the first {self._disk_bytes:,} bytes are in {self._path}"
        note = f"[… {left_out:,} of {self.total_bytes:,} bytes left out here; "
        note += f"{kept if self._disk_bytes else 'none of it kept on disk'} …]"
        head = clean_output(bytes(self._head[:_HALF_BYTES]))
        tail = clean_output(self.raw()[-_HALF_BYTES:])
        half = _HALF_BYTES - 1000
        return f"{_cut(head, half)}\n{note}\n{_cut(tail, -half)}"

    def take(self) -> str:
        """What came since the last `take`: the end of it, when it is more than 32 kB."""
        left_out = self._new_bytes - len(self._new)
        text = clean_output(bytes(self._new))
        self._new, self._new_bytes = bytearray(), 0
        if left_out:
            kept = f"; the first {self._disk_bytes:,} bytes of all are in {self._path}"
            note = f"[… {left_out:,} bytes left out here{kept if self._disk_bytes else ''} …]"
            text = f"{note}\n{text}"
        return text

    def raw(self) -> bytes:
        """Both ends as they came: everything when it is no more than is shown."""
        return bytes(self._head + self._tail)

    def _spill(self, piece: bytes) -> None:
        if self._disk is None and self._disk_bytes == 0 and self._disk_left_bytes:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            try:
                os.makedirs(os.path.dirname(self._path), exist_ok=True)
                self._disk = os.open(self._path, flags, 0o600)
            except OSError:
                self._disk_left_bytes = 0
        if self._disk is None:
            return
        piece = piece[: self._disk_left_bytes]
        with contextlib.suppress(OSError):
            self._disk_bytes += os.write(self._disk, piece)
        self._disk_left_bytes -= len(piece)
        if not self._disk_left_bytes:
            os.close(self._disk)
            self._disk = None


def _cut(text: str, limit_bytes: int) -> str:
    """The first `limit_bytes` of text; the last ones when negative."""
    raw = text.encode("utf-8", "replace")
    part = raw[:limit_bytes] if limit_bytes > 0 else raw[limit_bytes:]
    return part.decode("utf-8", "ignore")
