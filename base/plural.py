"""A number with its noun, as people write it."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """`1 model call`, `1,204 model calls`. many: where it is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
