"""What the broker writes down about one thing: a small JSON file, whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from base.errors import ConflictError
from provision.disk import sync, write

Model = TypeVar("Model", bound=BaseModel)


def keep(path: Path, thing: BaseModel) -> None:
    """After it returns the file survives a power cut; a kill before leaves the old one."""
    write(path, f"{thing.model_dump_json(indent=2)}\n".encode(), mode=0o600)


def forget(path: Path) -> None:
    """Twice is safe."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync(path.parent)


def read(path: Path, kind: type[Model]) -> Model | None:
    """None when it is not there. Raises ConflictError for a file that is none of these."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        why = error.errors(include_input=False, include_url=False)[0]["msg"]
        raise ConflictError(f"{path} is damaged ({why}): mend it or take it away") from error


def each(folder: Path, kind: type[Model]) -> Iterator[Model]:
    """Those that can be read, by name; a damaged one is left out, it must not stop the others."""
    for path in sorted(folder.glob("*.json")):
        with suppress(ConflictError):
            if (found := read(path, kind)) is not None:
                yield found
