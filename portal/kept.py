"""Which secrets there are and where each comes from, for people: never what they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from base import secrets, secrets_files
from base.errors import AIError
from base.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A secret that there is, or that cannot be read: then `fault` says why. source: aws,
    credential, file, environment, or - where it is unknown.
    """

    name: str
    source: str
    since: datetime | None = None
    fault: str | None = None


def kept(settings: Settings) -> list[Kept]:
    """Every secret there is, and every one that cannot be had. Asks AWS where it is set up."""
    found = []
    if os.environ.get("ANTHROPIC_API_KEY", "").strip():
        found.append(Kept(name=secrets.ANTHROPIC_API_KEY, source="environment"))
    names = {*secrets.NAMES, *_names(settings.secrets), *_names(_credentials())}
    for name in sorted(names):
        try:
            one = secrets.of(settings).find(name)
        except AIError as error:
            found.append(Kept(name=name, source="-", fault=str(error)))
            continue
        if one:
            found.append(Kept(name=name, source=one.source, since=one.since))
    return found


def _names(folder: Path | None) -> Iterator[str]:
    found = folder.iterdir() if folder and folder.is_dir() else ()
    return (path.name for path in found if secrets_files.NAME.fullmatch(path.name))


def _credentials() -> Path | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return Path(folder) if folder.startswith("/") else None
