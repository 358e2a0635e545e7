"""Texts of a batch side by side in bins of one width, so that attention is a few large calls.

A bin holds one long text, or as many short ones as fit; a mask keeps each text to itself. The
kernels of attention are fastest at widths that are multiples of 16, and slow for a call each text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

STEP = 16
#: Of rows in fp32, which no unit takes sixteen at a time.
STEP_FP32 = 4
#: Texts up to half of this share bins as wide as this.
SHARED = 64
#: Up to so many rows a batch has a multiple of the step of them, above of four times that.
FINE_ROWS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """Neighbouring texts of a batch. rows: where they are in it. count, width: of the bins.

    take: the row of each place in the bins, (count * width); put: the place of each row, (rows);
    mask: (count, 1, width, width), what is added to the scores. All None for one text alone.
    """

    rows: slice
    count: int
    width: int
    take: torch.Tensor | None
    put: torch.Tensor | None
    mask: torch.Tensor | None


def rounded(count: int, step: int = STEP) -> int:
    """Rows that a batch of so many tokens is given."""
    step = step if count <= FINE_ROWS else 4 * step
    return math.ceil(count / step) * step


def binned(lengths: Sequence[int], device: torch.device, dtype: torch.dtype) -> list[Bins]:
    """The bins of texts of these lengths, longest first. Each text is in one bin."""
    found, start = [], 0
    for run in _runs(lengths):
        tokens = sum(map(sum, run))
        rows = slice(start, start + tokens)
        start += tokens
        if len(run) == len(run[0]) == 1:
            alone = Bins(rows=rows, count=1, width=tokens, take=None, put=None, mask=None)
            found.append(alone)
            continue
        width = math.ceil(max(map(sum, run)) / STEP) * STEP
        take = np.full((len(run), width), rows.start, dtype=np.int64)
        owner = np.full((len(run), width), -1)
        at = rows.start
        for number, texts in enumerate(run):
            filled = sum(texts)
            take[number, :filled] = np.arange(at, at + filled)
            owner[number, :filled] = np.repeat(np.arange(len(texts)), texts)
            at += filled
        mask = torch.zeros(len(run), 1, width, width, dtype=dtype)
        apart = owner[:, None, :, None] != owner[:, None, None, :]
        mask.masked_fill_(torch.from_numpy(apart), -math.inf)
        found.append(
            Bins(
                rows=rows, count=len(run), width=width, mask=mask.to(device),
                take=torch.from_numpy(take.ravel()).to(device),
                put=torch.from_numpy(np.flatnonzero(owner.ravel() >= 0)).to(device),
            )
        )  # fmt: skip
    return found


def _runs(lengths: Sequence[int]) -> Iterator[list[list[int]]]:
    """Neighbours of about one width, as bins of lengths."""
    run: list[list[int]] = []
    before = 0
    for length in lengths:
        width = SHARED if length <= SHARED // 2 else math.ceil(length / STEP) * STEP
        if run and width != before:
            yield run
            run = []
        before = width
        if run and sum(run[-1]) + length <= width:
            run[-1].append(length)
        else:
            run.append([length])
    if run:
        yield run
