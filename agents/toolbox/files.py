"""Read, write and edit text files of the workspace."""

from __future__ import annotations

import os
import stat

from .wire import TEXT_MAX_BYTES, Refused, clean

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from typing import Any

READ_MAX_BYTES = 20_000_000
LINE_MAX_CHARS = 2_000
LINES_DEFAULT = 2_000
#: Scratch space of the sandbox: it can be read like the workspace, long outputs lie there.
SCRATCH = "/tmp"


class Files:
    """Paths are relative to `workspace` or absolute inside it; a link may not lead out of it."""

    def __init__(self, workspace: str) -> None:
        self.workspace = workspace

    def inside(self, path: str, *, scratch: bool = False) -> str:
        """The real path. Refused when it is outside; the end of it need not exist."""
        real = os.path.realpath(os.path.join(self.workspace, path))
        roots = (self.workspace, SCRATCH) if scratch else (self.workspace,)
        if not any(real == root or real.startswith(root.rstrip("/") + "/") for root in roots):
            led = "leads outside" if os.path.islink(os.path.join(self.workspace, path)) else "is"
            led = led if led != "is" else "is outside"
            raise Refused(f"{path} {led} the workspace {self.workspace}")
        return real

    def shown(self, real: str) -> str:
        """A path as the model reads it: relative to the workspace where that is possible."""
        prefix = self.workspace.rstrip("/") + "/"
        return clean(real.removeprefix(prefix))

    def load(self, path: str) -> bytes:
        """The bytes of a regular file. Refused when it is none, or larger than 20 MB."""
        real = self.inside(path, scratch=True)
        try:
            fd = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Refused(f"{path}: {error.strerror}") from error
        try:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                raise Refused(f"{path} is a folder; list it with glob")
            if not stat.S_ISREG(status.st_mode):
                raise Refused(f"{path} is no regular file")
            self.inside(os.readlink(f"/proc/self/fd/{fd}"), scratch=True)
            if status.st_size > READ_MAX_BYTES:
                raise Refused(
                    f"{path} has {status.st_size:,} bytes; at most {READ_MAX_BYTES:,} are read: "
                    "take a part with the shell (head, tail, sed -n)"
                )
            with open(fd, "rb", closefd=False) as file:
                return file.read(READ_MAX_BYTES)
        finally:
            os.close(fd)

    def read(self, path: str, offset: int = 1, limit: int = LINES_DEFAULT) -> dict[str, Any]:
        raw = self.load(path)
        if b"\0" in raw[:8192]:
            raise Refused(f"{path} is binary ({len(raw):,} bytes): look at it with the shell")
        lines = raw.split(b"\n")
        if lines[-1] == b"":
            lines.pop()
        if not lines:
            return {"ok": True, "text": "(the file is empty)"}
        if offset > len(lines):
            raise Refused(f"{path} has {len(lines)} lines; offset {offset} is past its end")
        shown: list[str] = []
        left_bytes = TEXT_MAX_BYTES - 1_000
        for number, line in enumerate(lines[offset - 1 : offset - 1 + limit], offset):
            numbered = f"{number:>6}\t{_line(line)}"
            left_bytes -= len(numbered.encode()) + 1
            if left_bytes < 0 and shown:
                break
            shown.append(numbered)
        last = offset + len(shown) - 1
        if last < len(lines):
            shown.append(
                f"[lines {offset} to {last} of {len(lines)}; go on with offset {last + 1}]"
            )
        return {"ok": True, "text": "\n".join(shown)}

    def write(self, path: str, content: str) -> dict[str, Any]:
        real = self.inside(path)
        existed = os.path.lexists(real)
        data = content.encode()
        self.store(path, real, data)
        what = "replaced" if existed else "wrote"
        shown = self.shown(real)
        return {"ok": True, "text": f"{what} {shown} ({len(data):,} bytes)", "files": [shown]}

    def edit(self, path: str, old: str, new: str, *, replace_all: bool = False) -> dict[str, Any]:
        real = self.inside(path)
        raw = self.load(path)
        before, after = old.encode(), new.encode()
        if b"\r\n" in raw and b"\r" not in before:
            before, after = before.replace(b"\n", b"\r\n"), after.replace(b"\n", b"\r\n")
        if before == after:
            raise Refused("old and new are the same: nothing to change")
        count = raw.count(before)
        if count == 0:
            raise Refused(f"old was not found in {path}{_near(raw, old)}")
        numbers = _line_numbers(raw, before)
        if count > 1 and not replace_all:
            raise Refused(
                f"old was found {count} times in {path} (lines {numbers}): give more of the text "
                "around it, or set replace_all"
            )
        self.store(path, real, raw.replace(before, after))
        shown = self.shown(real)
        places = "1 place" if count == 1 else f"{count} places"
        text = f"changed {places} in {shown} (line {numbers})"
        return {"ok": True, "text": text, "files": [shown]}

    @staticmethod
    def store(path: str, real: str, data: bytes) -> None:
        """Replace or make the file in one step; an existing one keeps its mode."""
        folder, name = os.path.split(real)
        scratch = os.path.join(folder, f".{name[:200]}.{os.urandom(4).hex()}")
        try:
            os.makedirs(folder, exist_ok=True)
            mode = 0o644
            if os.path.lexists(real):
                status = os.lstat(real)
                if not stat.S_ISREG(status.st_mode):
                    raise Refused(f"{path} is a folder or no regular file")
                mode = stat.S_IMODE(status.st_mode) & 0o777
            fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                with open(fd, "wb") as file:
                    file.write(data)
                    os.fchmod(fd, mode)
                os.replace(scratch, real)
            except BaseException:
                os.unlink(scratch)
                raise
        except OSError as error:
            raise Refused(f"{path}: {error.strerror}") from error


def _line(raw: bytes) -> str:
    text = clean(raw.rstrip(b"\r").decode("utf-8", "replace"))
    if len(text) <= LINE_MAX_CHARS:
        return text
    return f"{text[:LINE_MAX_CHARS]} [… {len(text) - LINE_MAX_CHARS:,} more characters]"


def _line_numbers(raw: bytes, part: bytes) -> str:
    """The lines on which `part` begins, the first ten of them."""
    numbers: list[str] = []
    place = raw.find(part)
    while place >= 0 and len(numbers) < 10:
        numbers.append(str(raw.count(b"\n", 0, place) + 1))
        place = raw.find(part, place + len(part))
    return ", ".join(numbers) + (", …" if place >= 0 else "")


def _near(raw: bytes, old: str) -> str:
    """A hint when the text is there with other white space."""
    wanted = [" ".join(line.split()) for line in old.strip().splitlines()]
    there = [" ".join(line.split()) for line in raw.decode("utf-8", "replace").splitlines()]
    if not wanted or not wanted[0]:
        return ""
    for number, line in enumerate(there):
        if wanted[0] in line and all(
            number + at < len(there) and one in there[number + at] for at, one in enumerate(wanted)
        ):
            return f"; line {number + 1} is like it but for white space"
    return ": read the file and copy the text exactly"
