"""What the broker writes down about one thing: a small JSON file, whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


def write(path: Path, text: str, *, mode: int = 0o600) -> None:
    """After it returns the file survives a power cut; a kill before leaves the old one."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(number, "w") as out:
            out.write(text)
            out.flush()
            os.fsync(number)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    _sync(path.parent)


def keep(path: Path, thing: BaseModel) -> None:
    write(path, thing.model_dump_json(indent=2) + "\n")


def forget(path: Path) -> None:
    """Twice is safe."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        _sync(path.parent)


def read(path: Path, kind: type[Model]) -> Model | None:
    """None when it is not there. Raises ValueError for a file that is none of these."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ValueError(f"{path} is damaged: {error.errors()[0]['msg']}") from error


def each(folder: Path, kind: type[Model]) -> Iterator[Model]:
    """Those that can be read, by name; a damaged one is left out, it must not stop the others."""
    for path in sorted(folder.glob("*.json")):
        with suppress(ValueError):
            if (found := read(path, kind)) is not None:
                yield found


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
