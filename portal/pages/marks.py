"""Characters that are not seen, or that reorder what is seen, made visible in HTML.

The text stays as it is, for copying and searching: each such character gets an element of its
own, which isolates it and shows its number beside it (`portal.css`).
"""

from __future__ import annotations

import re

#: Joiners (emoji, Persian, Indic scripts) and variation selectors stay; so do the flags of
#: England, Scotland and Wales, which are spelled with tag characters.
HIDDEN = re.compile(
    "\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f|"
    "([\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e"
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U000e0000-\U000e0fff])"
)
#: Our own HTML and that of the renderers escapes `<` and `>` everywhere else.
TAG = re.compile(r"(<[^>]*>)")


def shown(html: str) -> str:
    """`html` with hidden characters marked in its text, and replaced in its attributes."""
    if not HIDDEN.search(html):
        return html
    return "".join(
        HIDDEN.sub(_replaced, part) if at % 2 else HIDDEN.sub(_marked, part)
        for at, part in enumerate(TAG.split(html))
    )


def _marked(match: re.Match[str]) -> str:
    char = match[1]
    if char is None:
        return match[0]
    return f'<span class="unseen" title="U+{ord(char):04X}">{char}</span>'


def _replaced(match: re.Match[str]) -> str:
    return "\ufffd" if match[1] else match[0]
