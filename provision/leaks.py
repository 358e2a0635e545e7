"""What must not leave this machine in a repository: keys and secrets, by name and by content."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """path: in the repository; lines: where, counted from 1. What it is is never said."""

    path: str
    lines: tuple[int, ...]

    def __str__(self) -> str:
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
    text = data.decode("utf-8", errors="replace")
    if redact(text) == text:
        return None
    lines = tuple(
        number
        for number, line in enumerate(text.split("\n"), 1)
        if KEY_BLOCK in line or redact(line) != line
    )
    return Leak(path=path, lines=lines or (1,))
