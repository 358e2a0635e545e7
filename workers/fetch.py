"""`python -m workers fetch NAME`: a Whisper from a model hub into a folder of the home.

The hub is the one that huggingface_hub is set to (HF_ENDPOINT names a mirror). Only what is
needed is fetched; what was cut off goes on where it ended; the folder counts once it is whole.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from base.errors import AIError, InputError, NotFoundError, NotRunningError, SettingsError
from base.settings import Settings, load
from workers.folder import check_whisper

SIZES = ("tiny", "base", "small", "medium", "large-v3", "large-v3-turbo")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
#: Weights as safetensors alone: the other formats can run code when they are loaded.
FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "normalizer.json",
    "added_tokens.json", "special_tokens_map.json",
    "model.safetensors", "model.safetensors.index.json", "model-*.safetensors",
)  # fmt: skip


def repository(name: str) -> str:
    """The hub's name of a model: `small` is openai/whisper-small. Raises InputError."""
    if name in SIZES:
        return f"openai/whisper-{name}"
    if not NAME.fullmatch(name) or ".." in name:
        raise InputError(f"{name!r} is no model; write one of {', '.join(SIZES)}, or OWNER/NAME")
    return name


def fetch(settings: Settings, name: str) -> Path:
    """The folder. Safe to repeat: what is there is not fetched again.

    Raises InputError also when what came is no Whisper, NotFoundError, and NotRunningError when
    the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = repository(name)
    folder = settings.home / "models" / wanted.rpartition("/")[2]
    if folder.is_dir():
        check_whisper(folder)
        return folder
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    try:
        snapshot_download(wanted, local_dir=part, allow_patterns=list(FILES), token=False)
    except LocalEntryNotFoundError as error:
        _dropped_if_empty(part)
        raise NotRunningError(
            "the model hub cannot be reached; on a machine that reaches it, run the same and copy "
            f"the folder here, or set HF_ENDPOINT to a mirror ({_first(error)})"
        ) from error
    except HfHubHTTPError as error:
        _dropped_if_empty(part)
        if error.response.status_code in {401, 403, 404}:
            raise NotFoundError(f"the model hub has no {wanted} that is open to all") from error
        raise NotRunningError(f"the model hub failed: {_first(error)}") from error
    try:
        check_whisper(part)
    except SettingsError as error:
        shutil.rmtree(part)
        raise InputError(f"{wanted} is no Whisper that can be used: {error}") from error
    part.rename(folder)
    return folder


def main(name: str) -> None:
    """Fetch, and say what to set. Exits 1 with one line when it could not be."""
    try:
        settings = load()
        settings.prepare()
        folder = fetch(settings, name)
    except (AIError, OSError) as error:
        sys.exit(f"ai-infra: {error}")
    print(f"{folder} is there. To use it, in {settings.config / 'settings.toml'}:")
    print(f'    whisper_model = "{folder}"')
    print("then: ai-infra down, ai-infra up")


def _first(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def _dropped_if_empty(part: Path) -> None:
    """What was fetched so far stays, for the next time."""
    if not any(one.is_file() and ".cache" not in one.parts for one in part.rglob("*")):
        shutil.rmtree(part)
