"""Weights from questions whose answers are known: a plain convex fit, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
STEPS, RATE, PULL = 400, 0.05, 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question. parts: (candidates, features); gold: which of them are evidence, of `wanted`
    turns in all (those that no look found count as missed).
    """

    group: str
    category: int
    parts: Floats
    gold: np.ndarray[Any, np.dtype[np.bool_]]
    wanted: int


def hits(case: Case, weights: Floats, limit: int) -> list[bool]:
    order = np.argsort(-(case.parts @ weights), kind="stable")[:limit]
    return [bool(case.gold[at]) for at in order]


def fit(cases: Sequence[Case]) -> Floats:
    """Least sum over questions of the mean over evidence of log(1 + sum over the rest of
    exp(rest - evidence)), and `PULL` times the weights' squares.
    """
    cases = [case for case in cases if case.gold.any()]
    most = max(len(case.gold) for case in cases)
    count = cases[0].parts.shape[1]
    parts = np.zeros((len(cases), most, count))
    rest = np.zeros((len(cases), most), dtype=bool)
    gold = np.zeros((len(cases), most))
    for at, case in enumerate(cases):
        parts[at, : len(case.gold)] = case.parts
        rest[at, : len(case.gold)] = ~case.gold
        gold[at, : len(case.gold)] = case.gold / case.gold.sum()
    weights, mean, square = np.zeros(count), np.zeros(count), np.zeros(count)
    for step in range(1, STEPS + 1):
        scores = parts @ weights
        among = np.where(rest, scores, -np.inf)
        top = among.max(1, keepdims=True)
        share = np.exp(among - top)
        total = share.sum(1, keepdims=True)
        missed = gold / (1 + np.exp(scores - top - np.log(total)))
        pull = share / total * missed.sum(1, keepdims=True) - missed
        slope = np.einsum("qn,qnf->f", pull, parts) / len(cases) + 2 * PULL * weights
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        weights = weights - RATE * (mean / (1 - 0.9**step)) / (
            np.sqrt(square / (1 - 0.999**step)) + 1e-9
        )
    return weights


def held_out(cases: Sequence[Case]) -> list[tuple[Case, Floats]]:
    """Each case with weights that were fitted without any question of its group."""
    found = []
    for group in dict.fromkeys(case.group for case in cases):
        weights = fit([case for case in cases if case.group != group])
        found += [(case, weights) for case in cases if case.group == group]
    return found
