"""Where a `git push` would go, read by the system from the repository's own configuration."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agents.tool_need import host_of
from base.errors import InputError

CONFIG_MAX_BYTES = 200_000
#: What makes an address mean another one, pulls in files that nobody looked at, or spells the name
#: of a remote in another way.
_BENDS = re.compile(
    r"insteadof|worktreeconfig|^\s*\[\s*include|^\s*\[\s*remote\s*\.|^\s*\[[^\]\n]*\\|^\ufeff",
    re.IGNORECASE | re.MULTILINE,
)
_SECTION = re.compile(r'^\s*\[\s*remote\s+"([^"\n]*)"\s*\]', re.IGNORECASE)
_ADDRESS = re.compile(r"^\s*(push)?url\s*=\s*(\S+)\s*$", re.IGNORECASE)
_KEY = re.compile(r"url\s*=", re.IGNORECASE)
#: Without what git's own reading of a configuration or of an address would take for something else.
_PLAIN = re.compile(r"https://[A-Za-z0-9._~:/@%+\[\]-]+", re.IGNORECASE)


def destination(given: dict[str, Any], workspace: Path) -> tuple[str, str]:
    """The "host:port" of a push, and its whole address without a name and password.

    Raises InputError when it cannot be told for certain.
    """
    url = str(given.get("url") or "")
    if not url:
        name = str(given.get("remote") or "origin")
        url = _configured(workspace / str(given.get("folder") or "."), name, workspace)
    found = host_of(url) if _PLAIN.fullmatch(url) else None
    if found is None:
        raise InputError("git push goes to a plain https:// address only; give it as `url`")
    return found, f"https://{found.removesuffix(':443')}{urlsplit(url).path}"


def _configured(folder: Path, name: str, workspace: Path) -> str:
    """The address that the repository in `folder` has for a remote."""
    text = _read(folder / ".git" / "config", workspace)
    if _BENDS.search(text) or len(text) >= CONFIG_MAX_BYTES:
        raise InputError("the repository's configuration rewrites addresses; give `url` for a push")
    inside = False
    urls: list[str] = []
    pushes: list[str] = []
    for line in text.split("\n"):  # where git ends one, and nowhere else
        match = _ADDRESS.match(line)
        if _KEY.search(line) and match is None:
            raise InputError("the repository's configuration is not plain; give `url` for a push")
        if line.lstrip().startswith("["):
            section = _SECTION.match(line)
            inside = section is not None and section[1] == name
        elif inside and match:
            (pushes if match[1] else urls).append(match[2])
    addresses = pushes or urls
    if len(addresses) != 1:
        raise InputError(f"the remote {name[:80]!r} has no single address; give `url` for a push")
    return addresses[0].strip('"')


def _read(path: Path, workspace: Path) -> str:
    """A plain file that lies, links resolved, in the workspace."""
    try:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(os.path.realpath(workspace)):
            raise InputError(f"{path} leads out of the workspace")
        handle = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InputError(f"{path} is no plain file")
            return file.read(CONFIG_MAX_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise InputError(f"there is no git repository there: {error.strerror}") from error
