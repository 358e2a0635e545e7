"""A local sequence-classification model: loaded when it is first asked, in batches by length.

transformers is imported only here, and only when a folder is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from base import log
from base.errors import SettingsError
from workers.batch import Work
from workers.jobs.bench import Bench

WINDOW_TOKENS = 512
#: Bytes that one token takes in the fullest layer, in widths of the model: attention and
#: the widened middle, read and written.
WIDTHS = 40

Tokens = dict[str, list[int]]
logger = log.get("classifier")


class Classifier:
    """The model of one setting. Texts or pairs of texts in, one list of logits each out."""

    def __init__(self, bench: Bench, setting: str, folder: Path) -> None:
        self._bench, self._setting, self._folder = bench, setting, folder
        self._one_at_a_time = asyncio.Lock()
        self._model: Any = None
        self._tokenizer: Any = None
        self._work: Work[Tokens, list[float]] = bench.core.work(
            setting, self._forward, budget_tokens=self._budget_tokens
        )
        self.labels: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Loaded. Until then the first question waits for it."""
        return self._model is not None

    async def load(self) -> None:
        """Safe twice. Raises SettingsError for a folder that is no such model."""
        async with self._one_at_a_time:
            if self._model is None:
                await asyncio.to_thread(self._load)

    def _load(self) -> None:
        if not (self._folder / "config.json").is_file():
            raise SettingsError([f"{self._setting}: {self._folder} has no config.json"])
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils import logging as told_by_transformers

        told_by_transformers.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
            model = AutoModelForSequenceClassification.from_pretrained(
                self._folder,
                local_files_only=True,
                use_safetensors=True,  # a pickle could run code
                dtype=self._bench.device.torch_dtype,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            first = str(error).strip().partition("\n")[0]
            raise SettingsError([f"{self._setting}: {self._folder}: {first}"]) from error
        model = model.eval().to(self._bench.device.torch_device)
        labels: Mapping[int, str] = model.config.id2label
        self.labels = tuple(str(labels[at]) for at in range(len(labels)))
        self._tokenizer, self._model = tokenizer, model
        logger.info("loaded", setting=self._setting, folder=str(self._folder), labels=self.labels)

    async def logits(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[list[float]]:
        """One list a text (or a text with its pair), one number a label. What is too long for
        the model is cut, of a pair the longer side first.
        """
        await self.load()
        items = await self._bench.core.call(lambda: self._cut(texts, pairs))
        return await self._work.submit(items, [len(one["input_ids"]) for one in items])

    def _cut(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[Tokens]:
        told = self._tokenizer(
            list(texts),
            None if pairs is None else list(pairs),
            truncation="longest_first",
            max_length=self._window_tokens,
        )
        return [{key: values[at] for key, values in told.items()} for at in range(len(texts))]

    @property
    def _window_tokens(self) -> int:
        config = self._model.config
        places = int(getattr(config, "max_position_embeddings", 0) or WINDOW_TOKENS)
        if config.model_type in {"roberta", "xlm-roberta", "camembert"}:
            places -= 2  # their places begin after the padding's
        return min(places, WINDOW_TOKENS, int(self._tokenizer.model_max_length))

    def _budget_tokens(self) -> int:
        width = int(getattr(self._model.config, "hidden_size", 1024))
        return self._bench.device.budget_tokens(width * WIDTHS * self._model.dtype.itemsize)

    @torch.inference_mode()
    def _forward(self, items: list[Tokens]) -> list[list[float]]:
        batch = self._tokenizer.pad(items, return_tensors="pt").to(self._bench.device.torch_device)
        found: list[list[float]] = self._model(**batch).logits.float().cpu().tolist()
        return found
