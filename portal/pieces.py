"""A document in pieces that can be remembered one by one: by headings, paragraphs, sentences."""

from __future__ import annotations

import re

#: About what an embedding model reads of a text (256 word pieces).
PIECE_CHARS = 1_000
HEADING = re.compile(r"#{1,6} .+")
#: Where to cut what is too long, best first; each keeps what it matched.
CUTS = (re.compile(r"\n"), re.compile(r"(?<=[.!?;:]) "), re.compile(r" "))


def pieces(text: str, limit_chars: int = PIECE_CHARS) -> list[str]:
    """The text in order, each piece at most `limit_chars`, none of it lost but blank lines.

    A heading begins a piece of its own and stands above what follows it.
    """
    found: list[str] = []
    piece = ""
    for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        for part in _cut(paragraph.strip("\n"), limit_chars):
            if not part.strip():
                continue
            joined = f"{piece}\n\n{part}" if piece else part
            alone = HEADING.match(part) and not HEADING.fullmatch(piece)
            if piece and (alone or len(joined) > limit_chars):
                found.append(piece)
                joined = part
            piece = joined
    return [*found, piece] if piece else found


def _cut(paragraph: str, limit_chars: int) -> list[str]:
    """One paragraph in parts: between lines if that does, else sentences, words, anywhere."""
    parts, start = [], 0
    while len(paragraph) - start > limit_chars:
        head = paragraph[start : start + limit_chars + 1]
        at = next((found for cut in CUTS if (found := _last(cut, head, limit_chars))), limit_chars)
        parts.append(head[:at].rstrip())
        start += at
        while start < len(paragraph) and paragraph[start].isspace():
            start += 1
    return [*parts, paragraph[start:]]


def _last(cut: re.Pattern[str], text: str, limit_chars: int) -> int:
    """The end of the last match that leaves a fair part before it; 0 when there is none."""
    ends = [match.end() for match in cut.finditer(text, limit_chars // 3, limit_chars + 1)]
    return ends[-1] if ends else 0
