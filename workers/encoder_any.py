"""Any encoder that transformers knows, padded. Slower than our own graph, and larger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from base.errors import SettingsError
from workers.device import Device
from workers.folder import Recipe
from workers.tokens import Ids


class AnyModel:
    """The layers of a folder, loaded by transformers. Code that a folder brings is never run."""

    def __init__(self, recipe: Recipe, device: Device) -> None:
        from transformers import AutoModel

        try:
            model: Any = AutoModel.from_pretrained(
                str(recipe.root),
                dtype=device.torch_dtype,
                local_files_only=True,
                use_safetensors=True,
            )
        except (OSError, ValueError, ImportError) as error:
            told = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SettingsError([f"embed_model: {recipe.root} cannot be loaded: {told}"]) from error
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        self._model = model.to(device.torch_device).eval()
        self._device = device.torch_device
        width = int(getattr(model.config, "hidden_size", 0) or 768)
        size_bytes = 2 if device.dtype == "bf16" else 4
        self.padded = True
        self.token_bytes = float(24 * width * size_bytes)

    def states(self, ids: Sequence[Ids]) -> list[torch.Tensor]:
        longest = max(len(one) for one in ids)
        table = np.zeros((len(ids), longest), dtype=np.int64)
        mask = np.zeros((len(ids), longest), dtype=np.int64)
        for row, one in enumerate(ids):
            table[row, : len(one)] = one
            mask[row, : len(one)] = 1
        found = self._model(
            input_ids=torch.from_numpy(table).to(self._device),
            attention_mask=torch.from_numpy(mask).to(self._device),
        ).last_hidden_state
        return [found[row, : len(one)] for row, one in enumerate(ids)]
