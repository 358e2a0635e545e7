"""Who taught what a task is told: nobody may teach it all. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pai.shapes import Item


def guarded(items: Sequence[Item], places: int) -> list[Item]:
    """The best of `items` (best first) of which no task and no agent supplied more than a fifth.

    The fifth is of what is taken, at most `places`. Of fewer than five it would be less than
    one: then each task and each agent may supply one. What has no task or agent counts for none.
    """
    most = max(1, places // 5)
    while True:
        taken = _at_most(items, places, most)
        fifth = max(1, len(taken) // 5)
        if fifth >= most:
            return taken
        most = fifth


def _at_most(items: Sequence[Item], places: int, most: int) -> list[Item]:
    taken: list[Item] = []
    given: dict[str, int] = {}
    for one in items:
        named = [
            f"{name} {value}"
            for name, value in (("task", one.memory.task_id), ("agent", one.memory.agent))
            if value
        ]
        if len(taken) < places and all(given.get(name, 0) < most for name in named):
            taken.append(one)
            for name in named:
                given[name] = given.get(name, 0) + 1
    return taken
