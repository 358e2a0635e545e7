"""BERT, RoBERTa and XLM-RoBERTa without padding: all tokens of a batch are rows of one matrix.

The matrix products see real tokens, and a few rows to reach one of not too many sizes: oneDNN makes
a program for each size that it meets. Attention runs over bins of several texts (`bins`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from base.errors import SettingsError
from workers.bins import STEP, STEP_FP32, Bins, binned, rounded
from workers.device import Device
from workers.folder import Recipe
from workers.graph import LONGEST_TOKENS, Run
from workers.linear import Activation, Linear, all_of, faster
from workers.tokens import Ids

TYPES = ("bert", "roberta", "xlm-roberta", "camembert")
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}
#: Length of the text on which the layout of the weights is tried.
TRIED_TOKENS = 20
Pair = tuple[torch.Tensor, torch.Tensor]
#: Names that the weights may have before those of the bare model.
PREFIXES = ("bert.", "roberta.", "model.", "")


def knows(config: dict[str, Any]) -> bool:
    """Whether a config.json is of a model that this file computes."""
    return (
        config.get("model_type") in TYPES
        and config.get("position_embedding_type", "absolute") in ("absolute", None)
        and config.get("hidden_act", "gelu") in ACTIVATIONS
        and not config.get("is_decoder")
        and not config.get("add_cross_attention")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Weights and biases of one layer; query, key and value are one matrix."""

    qkv: Linear
    out: Linear
    out_norm: Pair
    up: Linear
    down: Linear
    down_norm: Pair


class Bert:
    """The layers of a folder on a device. `graph`: takes a short text alone, once it is there."""

    def __init__(self, recipe: Recipe, device: Device) -> None:
        from safetensors.torch import load_file

        config = recipe.config
        path = recipe.root / "model.safetensors"
        if not path.is_file():
            raise SettingsError([f"embed_model: {recipe.root} has no model.safetensors"])
        given = load_file(str(path))
        prefix = next(
            (one for one in PREFIXES if f"{one}embeddings.LayerNorm.weight" in given), None
        )
        if prefix is None:
            raise SettingsError([f"embed_model: the weights in {path} are not of a BERT"])
        self._device = device.torch_device
        self.heads = int(config["num_attention_heads"])
        self.epsilon = float(config.get("layer_norm_eps", 1e-12))
        self.activation = ACTIVATIONS[config.get("hidden_act", "gelu")]
        self._first = (
            0 if config["model_type"] == "bert" else int(config.get("pad_token_id", 1)) + 1
        )

        def pair(name: str) -> Pair:
            return tuple(  # type: ignore[return-value]
                given[f"{prefix}{name}.{part}"].to(self._device, device.torch_dtype)
                for part in ("weight", "bias")
            )

        table = {name: given[f"{prefix}embeddings.{name}_embeddings.weight"] for name in
                 ("word", "position", "token_type")}  # fmt: skip
        self._words = table["word"].to(self._device, device.torch_dtype)
        self.vocabulary = len(self._words)
        places = table["position"].float() + table["token_type"][0].float()
        self._places = places.to(self._device, device.torch_dtype)
        self._counted = np.arange(self._first, len(places), dtype=np.int64)
        self.norm = pair("embeddings.LayerNorm")
        self.width = self._words.shape[1]
        self.layers = [
            self._layer(partial(_joined, pair), f"encoder.layer.{number}.")
            for number in range(int(config["num_hidden_layers"]))
        ]
        inner = self.layers[0].up.out
        size_bytes = self._words.element_size()
        self.padded = False
        self.graph: Run | None = None
        self._step = STEP if device.dtype == "bf16" else STEP_FP32
        if device.name == "cpu" and (device.dtype == "fp32" or device.fast):
            some = [np.full(TRIED_TOKENS, self._first, dtype=np.int64)]
            faster(all_of(*self.layers), lambda: self.forward(some, [TRIED_TOKENS], None))
        self.token_bytes = float((8 * self.width + 2 * inner) * size_bytes)

    @staticmethod
    def _layer(pair: Callable[..., Pair], at: str) -> Layer:
        own = f"{at}attention.self."
        return Layer(
            qkv=Linear(*pair(f"{own}query", f"{own}key", f"{own}value")),
            out=Linear(*pair(f"{at}attention.output.dense")),
            out_norm=pair(f"{at}attention.output.LayerNorm"),
            up=Linear(*pair(f"{at}intermediate.dense")),
            down=Linear(*pair(f"{at}output.dense")),
            down_norm=pair(f"{at}output.LayerNorm"),
        )

    def states(self, ids: Sequence[Ids]) -> list[torch.Tensor]:
        order = sorted(range(len(ids)), key=lambda at: -len(ids[at]))
        lengths = [len(ids[at]) for at in order]
        rows = self.forward([ids[at] for at in order], lengths, self.graph)[: sum(lengths)]
        found: list[torch.Tensor] = [rows] * len(ids)
        for at, part in zip(order, torch.split(rows, lengths), strict=True):
            found[at] = part
        return found

    def forward(self, ids: list[Ids], lengths: list[int], graph: Run | None) -> torch.Tensor:
        """All states, (rows, width): the texts one after the other, longest first, then rows of no
        text. `graph` takes what it can.
        """
        count = sum(lengths)
        if len(lengths) > 1 or not 2 <= count <= LONGEST_TOKENS:
            graph = None
        words = np.zeros(count if graph else rounded(count, self._step), dtype=np.int64)
        places = np.full(len(words), self._first, dtype=np.int64)
        np.concatenate(ids, out=words[:count])
        np.concatenate([self._counted[:one] for one in lengths], out=places[:count])
        rows = functional.embedding(torch.from_numpy(words).to(self._device), self._words)
        shift = functional.embedding(torch.from_numpy(places).to(self._device), self._places)
        if graph:
            return graph(rows, shift)
        rows = rows + shift
        rows = self._normed(rows, self.norm)
        found = binned(lengths, self._device, self._words.dtype)
        for layer in self.layers:
            mixed = self._attend(layer.qkv(rows), found)
            rows = self._normed(layer.out.onto(mixed, rows), layer.out_norm)
            inner = layer.up(rows, self.activation)
            rows = self._normed(layer.down.onto(inner, rows), layer.down_norm)
        return rows

    def _attend(self, qkv: torch.Tensor, found: list[Bins]) -> torch.Tensor:
        mixed = qkv.new_zeros(len(qkv), self.width)
        for one in found:
            part = qkv[one.rows] if one.take is None else qkv.index_select(0, one.take)
            query, key, value = part.view(one.count, one.width, 3, self.heads, -1).permute(
                2, 0, 3, 1, 4
            )
            states = functional.scaled_dot_product_attention(query, key, value, attn_mask=one.mask)
            flat = states.transpose(1, 2).reshape(-1, self.width)
            mixed[one.rows] = flat if one.put is None else flat.index_select(0, one.put)
        return mixed

    def _normed(self, rows: torch.Tensor, norm: Pair) -> torch.Tensor:
        return functional.layer_norm(rows, (self.width,), *norm, self.epsilon)


def _joined(pair: Callable[[str], Pair], *names: str) -> Pair:
    parts = [pair(name) for name in names]
    if len(parts) == 1:
        return parts[0]
    return torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])
