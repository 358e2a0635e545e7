"""Where web_search asks: `config/search.toml`, the owner's laid over key by key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from base.errors import SettingsError
from base.settings import Settings

SHIPPED = Path(__file__).resolve().parent.parent / "config" / "search.toml"


class Endpoint(BaseModel):
    """`config/search.toml`. url: without one Brave's own; secret: name of Brave's key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["none", "searxng", "brave"]
    url: str = ""
    secret: str = "brave-search-api-key"


def endpoint(settings: Settings) -> Endpoint:
    """The shipped file with the owner's laid over. Raises SettingsError with every fault."""
    own = settings.config / "search.toml"
    table: dict[str, Any] = {}
    for path in (SHIPPED, own):
        try:
            table |= tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise SettingsError([f"{path}: {error}"]) from error
    try:
        found = Endpoint.model_validate(table)
    except ValidationError as error:
        raise SettingsError([f"{own}: {_fault(one)}" for one in error.errors()]) from error
    if found.kind == "searxng" and not found.url:
        raise SettingsError([f"{own}: url: SearXNG needs the address of your instance"])
    if found.url and not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", found.url):
        raise SettingsError([f"{own}: url: {found.url!r} is no http or https address"])
    return found


def _fault(error: ErrorDetails) -> str:
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
