"""Texts to token numbers, by the folder's own tokenizer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.folder import Recipe

#: Its own pool of threads would fight with the computing ones.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """ids: of each text, the special ones included. cut: how many texts were too long."""

    ids: list[Ids]
    cut: int


class Tokenizer:
    """Of a folder. Safe from any thread, one call at a time."""

    def __init__(self, recipe: Recipe) -> None:
        from tokenizers import Tokenizer as Fast

        self._recipe = recipe
        path = recipe.root / "tokenizer.json"
        if path.is_file():
            fast: Any = Fast.from_file(str(path))
        else:  # only an older format is there: transformers knows how to convert it
            from transformers import AutoTokenizer

            fast = AutoTokenizer.from_pretrained(str(recipe.root)).backend_tokenizer
        fast.no_padding()
        fast.enable_truncation(recipe.max_tokens)
        self._fast = fast

    def encode(self, texts: Sequence[str]) -> Tokens:
        prefix = self._recipe.prefix
        ready = [prefix + (one.lower() if self._recipe.lower else one) for one in texts]
        found = self._fast.encode_batch_fast(ready)
        return Tokens(
            ids=[np.asarray(one.ids, dtype=np.int64) for one in found],
            cut=sum(bool(one.overflowing) for one in found),
        )
