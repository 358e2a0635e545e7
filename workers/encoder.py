"""A model in memory: token numbers in, vectors of length 1 out.

BERT-like ones run on our own short graph (`encoder_bert`), everything else on transformers, which
is loaded for that alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from base import log
from base.errors import SettingsError
from workers.device import Device
from workers.folder import Recipe
from workers.tokens import Ids

logger = log.get("encoder")

Vectors = NDArray[np.float32]


class Trunk(Protocol):
    """The layers. `token_bytes`: memory that one token takes at the fullest moment; `padded`:
    every text of a batch is made as long as the longest.
    """

    token_bytes: float
    padded: bool

    def states(self, ids: Sequence[Ids]) -> list[torch.Tensor]:
        """The last hidden states of each text, (tokens, width), in order."""
        ...


class Encoder:
    """Trunk, pooling, dense layers. `encode` may run in several threads."""

    def __init__(self, recipe: Recipe, device: Device) -> None:
        from workers import encoder_bert

        self.recipe = recipe
        self._device = device
        if encoder_bert.knows(recipe.config):
            self._trunk: Trunk = encoder_bert.Bert(recipe, device)
        else:
            from workers.encoder_any import AnyModel

            self._trunk = AnyModel(recipe, device)
        self._dense = [Dense(folder, device) for folder in recipe.dense]
        self.dim = self.encode([np.array([0, 0], dtype=np.int64)]).shape[1]

    @property
    def trunk(self) -> Trunk:
        return self._trunk

    @property
    def token_bytes(self) -> float:
        return self._trunk.token_bytes

    @property
    def padded(self) -> bool:
        return self._trunk.padded

    def encode(self, ids: Sequence[Ids]) -> Vectors:
        """(texts, dim), float32, each row of length 1."""
        with torch.inference_mode():
            states = self._trunk.states(ids)
            pooled = torch.stack([self._pool(one) for one in states])
            for dense in self._dense:
                pooled = dense(pooled)
            found: Vectors = functional.normalize(pooled.float(), dim=1).cpu().numpy()
        return found

    def _pool(self, states: torch.Tensor) -> torch.Tensor:
        found = [pool(mode, states.float()) for mode in self.recipe.poolings]
        return found[0] if len(found) == 1 else torch.cat(found)


def pool(mode: str, states: torch.Tensor) -> torch.Tensor:
    """One vector out of a text's states, (tokens, width) → (width)."""
    match mode:
        case "mean":
            return states.mean(0)
        case "cls":
            return states[0]
        case "max":
            return states.amax(0)
        case "lasttoken":
            return states[-1]
        case "mean_sqrt_len_tokens":
            return states.sum(0) / math.sqrt(len(states))
        case "weightedmean":
            weights = torch.arange(1, len(states) + 1, device=states.device, dtype=states.dtype)
            return torch.sum(states * weights[:, None], 0) / torch.sum(weights)
        case _:
            raise SettingsError([f"embed_model: pooling {mode!r} is not known here"])


class Dense:
    """A layer after the pooling, as sentence-transformers saves it."""

    def __init__(self, folder: Path, device: Device) -> None:
        import json

        from safetensors.torch import load_file

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name = str(config.get("activation_function", "torch.nn.modules.linear.Identity"))
        activation = getattr(torch.nn, name.rpartition(".")[2], None)
        if activation is None or not issubclass(activation, torch.nn.Module):
            raise SettingsError([f"embed_model: activation {name!r} is not known here"])
        weights = load_file(str(folder / "model.safetensors"))
        self._weight = weights["linear.weight"].to(device.torch_device, torch.float32)
        bias = weights.get("linear.bias")
        self._bias = None if bias is None else bias.to(device.torch_device, torch.float32)
        self._activation: Any = activation()

    def __call__(self, pooled: torch.Tensor) -> torch.Tensor:
        joined = functional.linear(pooled, self._weight, self._bias)
        found: torch.Tensor = self._activation(joined)
        return found
