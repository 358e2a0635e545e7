"""Folders that are put in place together: what was there is kept aside, and all can be undone.

Only renames within a file system happen here, so a death in between leaves a list that says what
is where; `back` makes it as it was, however far it came.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from base.messages import Wire


class Move(Wire):
    """new None: what is at `at` only goes aside. had: something was there before."""

    at: str
    aside: str
    new: str | None
    had: bool


def plan(at: Path, new: Path | None, aside: Path) -> Move:
    """A move, with what is there now."""
    told = None if new is None else str(new)
    return Move(at=str(at), aside=str(aside), new=told, had=os.path.lexists(at))


def ahead(moves: Sequence[Move]) -> None:
    """Make all of them. Raises OSError; then `back`."""
    for move in moves:
        at, aside = Path(move.at), Path(move.aside)
        aside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        at.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if move.had:
            at.rename(aside)
        if move.new is not None:
            Path(move.new).rename(at)


def back(moves: Sequence[Move]) -> None:
    """As it was before `ahead`, which may have been cut off anywhere. Safe twice."""
    for move in reversed(moves):
        at, aside = Path(move.at), Path(move.aside)
        arrived = move.new is None or not os.path.lexists(move.new)
        if move.had and not os.path.lexists(aside):
            continue  # it never went
        if move.new is not None and arrived and os.path.lexists(at):
            at.rename(move.new)
        elif move.new is None and os.path.lexists(at):
            _remove(at)  # what the program made anew meanwhile
        if move.had:
            aside.rename(at)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
