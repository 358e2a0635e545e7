"""Where the parts of a plan stand when it is drawn: in layers, from what comes first to the last.

A part stands one layer after the last of those it depends on. Within a layer, parts are ordered by
where those stand, which keeps lines short and mostly uncrossed. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SWEEPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """at: each part's layer and its place in it, from 0. edges: (before, after), drawn ones only.
    places: how many stand in the fullest layer.
    """

    at: Mapping[str, tuple[int, float]]
    edges: tuple[tuple[str, str], ...]
    layers: int
    places: int


def layout(parts: Sequence[str], after: Mapping[str, Sequence[str]]) -> Layout:
    """Place `parts`. after: what each depends on; what is unknown, or closes a circle, is left out
    of the drawing. The same input gives the same layout.
    """
    known = dict.fromkeys(parts)
    layer: dict[str, int] = {}
    edges: list[tuple[str, str]] = []
    for part in known:
        _settle(part, known, after, layer, edges)
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for part in known:
        rows[layer[part]].append(part)
    _sort(rows, edges)
    places = max((len(row) for row in rows), default=0)
    at = {
        part: (number, place + (places - len(row)) / 2)
        for number, row in enumerate(rows)
        for place, part in enumerate(row)
    }
    return Layout(at=at, edges=tuple(edges), layers=len(rows), places=places)


def _settle(
    first: str,
    known: Mapping[str, None],
    after: Mapping[str, Sequence[str]],
    layer: dict[str, int],
    edges: list[tuple[str, str]],
) -> None:
    """Give `first` its layer, and before it all that it depends on; without recursion."""
    open_ones: dict[str, list[str]] = {}
    stack = [first]
    while stack:
        part = stack[-1]
        if part in layer:
            stack.pop()
            continue
        if part not in open_ones:
            open_ones[part] = [
                one for one in dict.fromkeys(after.get(part, ())) if one in known and one != part
            ]
        waits = [one for one in open_ones[part] if one not in layer and one not in open_ones]
        if waits:
            stack.append(waits[0])
            continue
        before = [one for one in open_ones[part] if one in layer]
        layer[part] = max((layer[one] + 1 for one in before), default=0)
        edges += [(one, part) for one in before]
        stack.pop()


def _sort(rows: list[list[str]], edges: Sequence[tuple[str, str]]) -> None:
    """Order each layer by the middle of its neighbours, forwards and backwards in turn."""
    behind: dict[str, list[str]] = {}
    ahead: dict[str, list[str]] = {}
    for before, part in edges:
        behind.setdefault(part, []).append(before)
        ahead.setdefault(before, []).append(part)
    for sweep in range(SWEEPS):
        neighbours = behind if sweep % 2 == 0 else ahead
        place = {part: number for row in rows for number, part in enumerate(row)}
        for row in rows if sweep % 2 == 0 else reversed(rows):
            middle = {
                part: sum(place[one] for one in near) / len(near)
                for part in row
                if (near := neighbours.get(part))
            }
            row.sort(key=lambda part: (middle.get(part, place[part]), place[part]))
            place |= {part: number for number, part in enumerate(row)}
