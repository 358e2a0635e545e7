"""A model of a folder, on this machine: tokenised in a thread, computed in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from base import log
from base.settings import Settings
from workers.batch import Core, Work
from workers.device import Device
from workers.encoder import Encoder
from workers.encoder_bert import Bert
from workers.folder import read
from workers.takeover import take_over
from workers.tokens import Ids, Tokenizer

#: Fewer characters are tokenised on the spot: a thread would cost more.
SPOT_CHARS = 4_000
WARM_LENGTHS_TOKENS = (8, 24, 64)

logger = log.get("embed")


class Local:
    """Make it with `open`, which returns when it is warm."""

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer, core: Core, device: Device) -> None:
        recipe = encoder.recipe
        self.name, self.dim, self.max_tokens = recipe.name, encoder.dim, recipe.max_tokens
        self._encoder = encoder
        self._core = core
        self._tokenizer = tokenizer
        self._device = device
        self._cut = 0
        self._work: Work[Ids, NDArray[np.float32]] = core.work(
            "embed",
            lambda ids: list(self._encoder.encode(ids)),
            budget_tokens=lambda: device.budget_tokens(encoder.token_bytes),
            padded=encoder.padded,
            parallel=True,
        )

    @classmethod
    async def open(cls, settings: Settings, core: Core, device: Device) -> Local:
        """Raises SettingsError for a folder that is no model."""
        recipe = read(settings.embed_model)

        def load() -> tuple[Encoder, Tokenizer]:
            encoder, tokenizer = Encoder(recipe, device), Tokenizer(recipe)
            for length in (*WARM_LENGTHS_TOKENS, recipe.max_tokens):
                some = np.zeros(min(length, recipe.max_tokens), dtype=np.int64)
                for count in (1, 4):
                    encoder.encode([some] * count)
            return encoder, tokenizer

        encoder, tokenizer = await core.call(load)
        return cls(encoder, tokenizer, core, device)

    async def improve(self, settings: Settings) -> None:
        """What need not be done before READY. Returns when it is done."""
        trunk = self._encoder.trunk
        if isinstance(trunk, Bert):
            await take_over(settings, self._encoder.recipe, trunk, self._core, self._device)

    async def vectors(self, texts: Sequence[str], *, bulk: bool) -> NDArray[np.float32]:
        ids = await self._tokens(texts)
        found = await self._work.submit(ids, [len(one) for one in ids], bulk=bulk)
        return np.stack(found)

    async def _tokens(self, texts: Sequence[str]) -> list[Ids]:
        if sum(map(len, texts)) <= SPOT_CHARS:
            tokens = self._tokenizer.encode(texts)
        else:
            tokens = await asyncio.to_thread(self._tokenizer.encode, texts)
        self._cut += tokens.cut
        return tokens.ids

    def about(self) -> dict[str, Any]:
        work, trunk = self._work, self._encoder.trunk
        return {
            "device": self._device.name,
            "dtype": self._device.dtype,
            "compiled": isinstance(trunk, Bert) and trunk.graph is not None,
            "tokens_per_s": round(work.tokens_per_s, 1),
            "batch": round(work.batch_items, 2),
            "batches": work.batches,
            "budget_tokens": work.budget_tokens,
            "waiting": len(work.waiting),
            "texts_cut": self._cut,
        }
