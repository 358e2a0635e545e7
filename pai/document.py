"""Markdown with flat front matter and H2 sections, taken apart without losing a byte.

Front matter is read as PAI v4.0.3 reads it: a line is split on its first `:`, nothing is nested,
and a section ends at the next line that begins with `## `. What is not understood is kept as it
stands: `render` of an untouched document is the text it was read from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

FENCE = "---"
HEADING = "## "
_KEY = re.compile(r"[A-Za-z][\w .-]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """`heading`: the whole line, its end included; `body`: all lines up to the next section."""

    heading: str
    body: str

    @property
    def title(self) -> str:
        return self.heading.strip().removeprefix("##").strip()

    @property
    def text(self) -> str:
        return self.body.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """`front`: the raw lines between the fences; None: there is no front matter. `head`: what
    stands before the first section.
    """

    opening: str = ""
    front: tuple[str, ...] | None = None
    closing: str = ""
    head: str = ""
    sections: tuple[Section, ...] = ()

    @property
    def keys(self) -> Mapping[str, str]:
        """Every key with its value, quotes around it taken off; the last of a name counts."""
        pairs = (_pair(line) for line in self.front or ())
        return {key: value for key, value in pairs if key}

    def section(self, title: str) -> str | None:
        """The text of the first section of that title, in any case; None: there is none."""
        found = (one.text for one in self.sections if one.title.lower() == title.lower())
        return next(found, None)

    def put(self, key: str, value: str) -> Document:
        """With that key at that value, in its place or as the last one. A value is one line."""
        end = "\r\n" if self.opening.endswith("\r\n") else "\n"
        line = f"{key}: {' '.join(value.split())}{end}"
        lines = list(self.front or ())
        places = [at for at, one in enumerate(lines) if _pair(one)[0] == key]
        if places:
            lines[places[-1]] = line
        else:
            lines.append(line)
        if self.front is None:
            return replace(self, opening=f"{FENCE}\n", front=tuple(lines), closing=f"{FENCE}\n")
        return replace(self, front=tuple(lines))

    def put_section(self, title: str, text: str) -> Document:
        """With that section's text, in its place or as the last one."""
        new = Section(heading=f"{HEADING}{title}\n", body=f"\n{text.strip()}\n\n")
        sections = list(self.sections)
        for at, one in enumerate(sections):
            if one.title.lower() == title.lower():
                sections[at] = replace(new, heading=one.heading)
                return replace(self, sections=tuple(sections))
        if sections and not sections[-1].body.endswith("\n\n"):
            sections[-1] = replace(sections[-1], body=sections[-1].body.rstrip("\n") + "\n\n")
        return replace(self, sections=(*sections, new))

    def render(self) -> str:
        """The whole text."""
        front = [self.opening, *(self.front or ()), self.closing]
        return "".join([*front, self.head, *(one.heading + one.body for one in self.sections)])


def parse(text: str) -> Document:
    """Never fails: a text without front matter or sections is all head."""
    lines = _lines(text)
    opening, front, closing, rest = "", None, "", lines
    if lines and lines[0].rstrip() == FENCE:
        ends = (at for at, line in enumerate(lines[1:], 1) if line.rstrip() == FENCE)
        if (end := next(ends, None)) is not None:
            opening, front, closing = lines[0], tuple(lines[1:end]), lines[end]
            rest = lines[end + 1 :]
    starts = [at for at, line in enumerate(rest) if line.startswith(HEADING)]
    head = "".join(rest[: starts[0]] if starts else rest)
    sections = tuple(
        Section(heading=rest[start], body="".join(rest[start + 1 : end]))
        for start, end in pairwise([*starts, len(rest)])
    )
    return Document(opening=opening, front=front, closing=closing, head=head, sections=sections)


def _lines(text: str) -> list[str]:
    """Only a line feed ends a line: `splitlines` knows ten ways, and would change the text."""
    return [line for line in re.split(r"(?<=\n)", text) if line]


def _pair(line: str) -> tuple[str, str]:
    key, colon, value = line.partition(":")
    if not colon or not _KEY.fullmatch(key):
        return "", ""
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return key.strip(), value
