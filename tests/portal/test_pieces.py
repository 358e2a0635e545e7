"""A document in pieces: nothing lost, nothing too long, cut where people would."""

from __future__ import annotations

import pytest

from portal.pieces import pieces

SENTENCES = " ".join(f"This is sentence number {index}." for index in range(200))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  \n\n \n", []),
        ("one line", ["one line"]),
        ("a\n\nb", ["a\n\nb"]),
        ("a\r\n\r\nb", ["a\n\nb"]),
        ("# Ports\n\nThe portal has 8000.", ["# Ports\n\nThe portal has 8000."]),
        ("intro\n\n# One\n\na\n\n# Two\n\nb", ["intro", "# One\n\na", "# Two\n\nb"]),
        ("# Guide\n\n## Ports\n\n8000", ["# Guide\n\n## Ports\n\n8000"]),
        ("x" * 2500, ["x" * 1000, "x" * 1000, "x" * 500]),
    ],
)
def test_pieces(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


@pytest.mark.parametrize("limit_chars", [80, 300, 1000])
def test_a_long_paragraph_is_cut_between_sentences(limit_chars: int) -> None:
    found = pieces(SENTENCES, limit_chars)
    assert all(len(piece) <= limit_chars for piece in found)
    assert " ".join(found) == SENTENCES
    assert all(piece.endswith(".") for piece in found)


def test_lines_are_cut_between_lines() -> None:
    text = "\n".join(f"key_{index} = {index}" for index in range(300))
    found = pieces(text)
    assert "\n".join(found) == text
    assert all(len(piece) <= 1000 for piece in found)
