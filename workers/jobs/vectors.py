"""Cosine of many rows at once: fast in fp32, then certain in fp64 where fp32 cannot tell.

Pure functions over tensors. A product of unit rows in fp32 is off by at most `slack(dim)`, so
whatever lies closer to a limit than that is computed again, row by row in the same order: equal
rows then have equal scores wherever they stand.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Rows whose fp64 products are made at once.
EXACT_ROWS = 8_192
COLUMNS = 8_192
#: Two vectors of one text, computed in batches of other shapes, differ by less than this.
AT_SLACK = 1e-6
TINY = torch.finfo(torch.float64).tiny


def unit(matrix: Tensor) -> Tensor:
    """Each row at length 1, in fp32; a row of zeros stays, and has cosine 0 to everything."""
    found = torch.empty_like(matrix, dtype=torch.float32)
    for start in range(0, len(matrix), EXACT_ROWS):  # in fp32 a large number's square is infinite
        part = matrix[start : start + EXACT_ROWS].double()
        lengths = torch.linalg.vector_norm(part, dim=1, keepdim=True).clamp_min(TINY)
        found[start : start + EXACT_ROWS] = part / lengths
    return found


def slack(dim: int) -> float:
    """How far a fp32 product of two unit rows of `dim` numbers can be off (twice n * 2^-24)."""
    return dim * 2.0**-23


def nearest(matrix: Tensor, queries: Tensor, ks: list[int]) -> list[tuple[list[int], list[float]]]:
    """For each query row its `k` best rows of `matrix` by cosine: row numbers and scores, best
    first, the lower row number first among equals. Both must be of unit length.
    """
    rows, dim = matrix.shape
    scores = queries @ matrix.T
    most = min(rows, max(ks) + 1)
    values, places = torch.topk(scores, most, dim=1)
    found = []
    for at, k in enumerate(ks):
        limit = float(values[at, min(k, rows) - 1]) - slack(dim)
        if most == rows or float(values[at, -1]) < limit:
            candidates = places[at][values[at] >= limit]
        else:  # more rows are as near to the limit as fp32 can tell
            candidates = (scores[at] >= limit).nonzero().flatten()
        candidates = candidates.sort().values
        exact = cosines(matrix, candidates, queries[at])
        order = torch.sort(exact, descending=True, stable=True).indices[:k]
        found.append((candidates[order].tolist(), exact[order].tolist()))
    return found


def cosines(matrix: Tensor, places: Tensor, query: Tensor) -> Tensor:
    """Cosine of `query` to those rows, in fp64."""
    other = query.double()
    other = other / torch.linalg.vector_norm(other).clamp_min(TINY)
    return torch.cat([_cosines(matrix[part], other) for part in _parts(places)])


def _cosines(rows: Tensor, other: Tensor) -> Tensor:
    exact = rows.double()
    lengths = torch.linalg.vector_norm(exact, dim=1).clamp_min(TINY)
    found: Tensor = ((exact * other).sum(dim=1) / lengths).clamp(-1.0, 1.0)
    return found


def _parts(places: Tensor) -> list[Tensor]:
    return [places[start : start + EXACT_ROWS] for start in range(0, len(places), EXACT_ROWS)]


def near(
    matrix: Tensor, first: int, last: int, at: float, most: int
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Pairs (i, j), first <= i < last, i < j, of unit rows with cosine >= `at`: i, j, cosine.

    None: more than `most`. Holds `last - first` x COLUMNS products at a time.
    """
    rows, dim = matrix.shape
    block, limit = matrix[first:last], at - slack(dim)
    own = torch.arange(first, last, device=matrix.device)[:, None]
    lefts, rights, exacts, total = [], [], [], 0
    for start in range(first, rows, COLUMNS):
        others = torch.arange(start, min(rows, start + COLUMNS), device=matrix.device)
        maybe = (block @ matrix[start : start + COLUMNS].T >= limit) & (others > own)
        if total + int(maybe.sum()) > 4 * most:
            return None
        left, right = (
            part + base
            for part, base in zip(maybe.nonzero(as_tuple=True), (first, start), strict=True)
        )
        exact = _pairs(matrix, left, right)
        sure = exact >= at - AT_SLACK
        lefts.append(left[sure])
        rights.append(right[sure])
        exacts.append(exact[sure])
        total += len(lefts[-1])
        if total > most:
            return None
    return torch.cat(lefts), torch.cat(rights), torch.cat(exacts)


def _pairs(matrix: Tensor, left: Tensor, right: Tensor) -> Tensor:
    parts = [torch.empty(0, dtype=torch.float64, device=matrix.device)]
    for here, there in zip(_parts(left), _parts(right), strict=True):
        one, two = matrix[here].double(), matrix[there].double()
        lengths = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(two, dim=1)
        parts.append(((one * two).sum(dim=1) / lengths.clamp_min(TINY)).clamp(-1.0, 1.0))
    return torch.cat(parts)
