"""A number agrees with its noun, wherever the product counts something."""

from __future__ import annotations

import re
from pathlib import Path

import house

from base.plural import counted

ROOT = Path(__file__).resolve().parents[2]
#: `{…} model calls` in an f-string: it is wrong for one. Limits, which are many, may be so.
LOOSE = re.compile(
    r"\{[^{}A-Z]+\} (?:(?:model|tool|tracked|signed|dead) \w+s|steps|days left|approvals|sites"
    r"|migrations|messages wait|agents ·|files (?:to|from|written))\b"
    r"|[{]'s' (?:if|\*)|'' if [^{}]* else 's'[}]"
)


def test_one_is_one() -> None:
    assert counted(1, "model call") == "1 model call"
    assert [counted(n, "model call") for n in (0, 2)] == ["0 model calls", "2 model calls"]
    assert counted(1_204, "token") == "1,204 tokens"
    assert counted(1, "memory", "memories") == "1 memory"
    assert counted(3, "memory", "memories") == "3 memories"


def test_nobody_writes_a_plural_of_its_own() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in house.python_files(ROOT)
        if path.relative_to(ROOT).parts[0] not in {"tests", "bench"}
        for match in LOOSE.finditer(path.read_text())
    ]
    assert found == []
