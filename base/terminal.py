"""Text from models, tools and people, made safe to show in a terminal."""

from __future__ import annotations

import re

#: C0 but tab and newline, DEL, C1, and the marks that reorder or hide text.
UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
SHORT_CHARS = 160


def neutral(text: str) -> str:
    """`text` with control characters made visible; newlines and tabs stay."""
    return UNSAFE.sub(_visible, text.replace("\r\n", "\n"))


def short(text: str, chars: int = SHORT_CHARS) -> str:
    """One neutral line of at most `chars` characters."""
    line = " ".join(neutral(text[: 4 * chars]).split())
    return line if len(line) <= chars else line[: chars - 1] + "…"


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨{code:02x}⟩"
