"""Text from models, tools and people, made safe to show in a terminal."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence

#: C0 but tab and newline, DEL, C1, and the marks that reorder or hide text.
UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb"
    r"\U000e0000-\U000e0fff]"
)
SHORT_CHARS = 160
#: Categories that draw nothing, reorder what is drawn, or mean nothing: control, format,
#: surrogate, private, unassigned, line and paragraph separators.
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
#: Letters and marks that look like nothing or like a plain space.
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
VARIANTS = re.compile("[\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")


def neutral(text: str) -> str:
    """`text` with control characters made visible; newlines and tabs stay."""
    return UNSAFE.sub(_visible, text.replace("\r\n", "\n"))


def short(text: str, chars: int = SHORT_CHARS) -> str:
    """One neutral line of at most `chars` characters."""
    line = " ".join(neutral(text[: 4 * chars]).split())
    return line if len(line) <= chars else line[: chars - 1] + "…"


def visible(text: str) -> str:
    """One line in which nothing hides: every control character, newlines too, as its symbol
    (`␛`), every mark that is not seen or reorders, and every unusual space as `⟨U+202E⟩`. Safe
    to repeat.
    """
    return "".join(shown(char) for char in text)


def shown(char: str) -> str:
    """One character as `visible` shows it; itself when it is plain."""
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    kind = unicodedata.category(char)
    odd = kind in UNSEEN or char in BLANK or (kind == "Zs" and char != " ")
    return f"⟨U+{code:04X}⟩" if odd or VARIANTS.match(char) else char


def clipped(text: str, chars: int) -> str:
    """`text` with its middle left out and counted when it has more than `chars` characters."""
    if len(text) <= chars:
        return text
    tail = chars // 3
    head = chars - tail
    return f"{text[:head]}…({len(text) - chars:,} characters left out)…{text[-tail:]}"


def exact(argv: Sequence[str]) -> str:
    """A command line without any doubt: each argument quoted, all but plain ASCII escaped."""
    return " ".join(json.dumps(one, ensure_ascii=True).replace("\x7f", "\\u007f") for one in argv)


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨{code:02x}⟩"
