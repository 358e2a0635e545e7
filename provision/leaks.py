"""What must not leave this machine in a repository: keys and secrets, by name and by content."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch

from base.redact import KEY_BLOCK, redact

#: Files that hold secrets or keys by their nature: never pushed, whatever is in them.
BY_NAME = (
    ".env", ".env.*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "*.keystore",
    "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", ".netrc", ".pgpass", ".npmrc", ".pypirc",
    ".git-credentials", "credentials", "credentials.json", "htpasswd", ".htpasswd", "*.gpg",
)  # fmt: skip
#: Nobody can look into these, so nobody can say that they hold none.
SHUT = (
    "*.gz", "*.zip", "*.tar", "*.tgz", "*.bz2", "*.xz", "*.zst", "*.7z", "*.rar",
    "*.db", "*.sqlite", "*.sqlite3", "*.rdb", "*.dump",
)  # fmt: skip
FOLDERS = {"secrets", ".ssh", ".aws", ".gnupg", "credentials", "private"}
LINES_TOLD = 3
#: One piece is looked through at a time, for nothing else runs meanwhile; a secret that two
#: pieces would part is whole in one of them.
PIECE_CHARS, OVERLAP_CHARS = 65_536, 4_096
HEAD_BYTES = 8_192
PRINTED = re.compile(rb"[ -~]{8,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """path: in the repository; lines: where, counted from 1, none in what is no text. What it is
    is never said.
    """

    path: str
    lines: tuple[int, ...]

    def __str__(self) -> str:
        if not self.lines:
            return self.path
        more = "…" if len(self.lines) > LINES_TOLD else ""
        return f"{self.path}:{','.join(str(line) for line in self.lines[:LINES_TOLD])}{more}"


def kept_back(path: str) -> str | None:
    """Why a file of that name is never pushed; None: it may be."""
    *above, name = path.split("/")
    if FOLDERS & set(above) or any(fnmatch(name.lower(), one) for one in BY_NAME):
        return "holds secrets, by its name"
    if any(fnmatch(name.lower(), one) for one in SHUT):
        return "cannot be looked into"
    return None


def found(path: str, data: bytes) -> Leak | None:
    """Where `data` has something that is, or looks like, a secret. What `base.redact` remembers
    is found literally, also in the middle of bytes that are no text.
    """
    binary = b"\0" in data[:HEAD_BYTES]
    text = b"\n".join(PRINTED.findall(data)).decode() if binary else data.decode(errors="replace")
    lines: set[int] = set()
    above = 0
    for at in range(0, len(text), PIECE_CHARS):
        piece = text[at : at + PIECE_CHARS + OVERLAP_CHARS]
        if redact(piece) != piece:
            lines |= {above + number for number in _lines(piece)} or {above + 1}
        above += text.count("\n", at, at + PIECE_CHARS)
    if not lines:
        return None
    return Leak(path=path, lines=() if binary else tuple(sorted(lines)))


def _lines(piece: str) -> Iterator[int]:
    for number, line in enumerate(piece.split("\n"), 1):
        if KEY_BLOCK in line or redact(line) != line:
            yield number
