"""Words as weights: what stays of a text, and that the sum an engine makes of them is BM25."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from snowballstemmer.english_stemmer import EnglishStemmer
from Stemmer import Stemmer

from pai import words
from pai.warm import Keep, Look, Point, Sparse
from pai.warm_edge import EdgeWarm

TEXTS = [
    "Melanie paints sunsets at the lake, mostly in the evening.",
    "Caroline went to a support group last week and felt heard.",
    "The lake was frozen when they went skating in the winter.",
    "She painted the kitchen and the hall, then painted the hall again.",
    "A group of painters met at the lake; painting, painters, paint everywhere!",
    "Running shoes: she runs every morning before work.",
]
QUERIES = [
    "Who paints at the lake?",
    "What group did Caroline go to?",
    "painting the hall",
    "When does she run?",
    "lake lake winter",
]


def test_the_compiled_stemmer_says_what_the_plain_one_does() -> None:
    """Stored weights are of both: which one is used must not change a stem."""
    compiled, plain = Stemmer("english"), EnglishStemmer()
    ends = ("", "s", "ed", "ing", "ies", "ly", "ness", "ization", "fulness", "'s")
    said = {word for text in TEXTS for word in re.findall("[a-z]+", text.lower())}
    for word in (
        f"{stem}{end}" for stem in (*said, "caf\u00e9", "generous", "sky") for end in ends
    ):
        assert compiled.stemWord(word) == plain.stemWord(word)
    assert isinstance(words._STEMMER, Stemmer)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cats were RUNNING, and the cat runs!", ["cat", "run", "cat", "run"]),
        ("I don't know; it isn\u2019t O'Brien's", ["know", "obrien"]),
        ("open_warm(settings) raised HTTP 404", ["open", "warm", "set", "rais", "http", "404"]),
        ("Gr\u00fc\u00dfe aus K\u00f6ln", ["gr\u00fcsse", "aus", "k\u00f6ln"]),
        ("Caf\u00e9 cafe\u0301", ["caf\u00e9", "caf\u00e9"]),
        ("\u4e1c\u4eac\u5854 tower", ["\u4e1c\u4eac", "\u4eac\u5854", "tower"]),
        ("\u732b", ["\u732b"]),
        ("of the and it's", []),
        ("", []),
        ("\u2014 \U0001f600 ...", []),
    ],
)
def test_stems(text: str, expected: list[str]) -> None:
    assert words.stems(text) == expected


def test_a_word_has_the_same_number_everywhere() -> None:
    """What is stored was numbered by another process, maybe years ago."""
    code = "from pai import words; print(*words.document('lake certificates').indices)"
    root = Path(__file__).parents[2]
    env = {"PYTHONHASHSEED": "7"}
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=root, env=env, text=True)
    assert [int(one) for one in printed.split()] == [1040733258, 4140036657]
    assert words.document("lake certificates").indices == (1040733258, 4140036657)


def test_more_of_a_word_weighs_more_and_ever_less_so() -> None:
    one, two, ten = (words.weigh(["lake"] * n + ["x"] * (20 - n)).values[0] for n in (1, 2, 10))
    assert one < two < ten < words.K1 + 1
    assert two - one > ten - two - (two - one)
    short, long = words.weigh(["lake"]).values[0], words.weigh(["lake", *["x"] * 60]).values[0]
    assert short > long


def test_a_text_of_stop_words_has_no_weights() -> None:
    assert not words.document("it was the")
    assert words.query("what is it?") == Sparse(indices=(), values=())


async def test_an_engine_ranks_as_bm25(tmp_path: Path) -> None:
    """Against the formula written out plainly, with the same average length."""
    warm = EdgeWarm(tmp_path / "qdrant")
    await warm.prepare(4, "none")
    ids = [f"00000000-0000-0000-0000-{n:012}" for n in range(len(TEXTS))]
    await warm.put(
        "memories",
        [
            Point(id=id, payload={"user_id": "ann"}, sparse={"words": words.document(text)})
            for id, text in zip(ids, TEXTS, strict=True)
        ],
    )
    for query in QUERIES:
        look = Look(name="words", vector=words.query(query), limit=10)
        [hits] = await warm.search("memories", [look], Keep(any_of={"user_id": ["ann"]}))
        expected = {
            id: score for id, score in zip(ids, _bm25(query, TEXTS), strict=True) if score > 0
        }
        assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, rel=1e-4)
    await warm.close()


def _bm25(query: str, texts: list[str]) -> list[float]:
    """Robertson and Zaragoza; idf as in Lucene, which is never negative."""
    bags = [Counter(words.stems(text)) for text in texts]
    found = []
    for bag in bags:
        score = 0.0
        for stem in words.stems(query):
            n = sum(stem in one for one in bags)
            idf = math.log(1 + (len(bags) - n + 0.5) / (n + 0.5))
            f = bag[stem]
            norm = words.K1 * (1 - words.B + words.B * bag.total() / words.AVERAGE_LENGTH)
            score += idf * f * (words.K1 + 1) / (f + norm)
        found.append(score)
    return found
