"""Text as weighted words: the lexical half of recall, the same for every engine.

A text becomes its stems; a stem is a number (a stable hash) and its weight BM25's saturated term
frequency at a fixed average length. The engine multiplies by inverse document frequency (its IDF
modifier), which makes the sum BM25 as Robertson and Zaragoza write it (2009, formula 3.15).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from unicodedata import normalize

from snowballstemmer import stemmer

from pai.warm import Sparse

K1 = 1.2
B = 0.75
#: In stems. A constant, because a true average would change every stored weight with each memory;
#: between a turn and a page, so that turns are hardly told apart by length (recall@10 of words
#: on LoCoMo: 0.635; with the true average, 14, it is 0.617).
AVERAGE_LENGTH = 64

#: Scripts that are written without spaces: pairs of neighbours stand for words.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\u0e00-\u0e7f"
_TOKEN = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
#: The same in a text of ASCII alone, where nothing else is to be looked at.
_PLAIN_TOKEN = re.compile(r"[a-z0-9]+")
_FIRST_UNSPACED = re.compile(rf"[{_UNSPACED}]")
_APOSTROPHE = re.compile(r"(?<=\w)['\u2019](?=\w)")
#: PyStemmer's, which is compiled: a word that is new takes 3 us, not 47.
_STEMMER = stemmer("english")

#: Apostrophes are gone before these are looked up.
_STOPS = """
    a about above after again against all also am an and any are arent as at be because been before
    being below between both but by can cant cannot could couldnt did didnt do does doesnt doing
    dont down during each few for from further had hadnt has hasnt have havent having he hed hell
    her here heres hers herself hes him himself his how hows i id if ill im in into is isnt it itll
    its itself ive just let lets me more most mustnt my myself no nor not of off on once only or
    other ought our ours ourselves out over own same shall shant she shed shes should shouldnt so
    some such than that thats the their theirs them themselves then there theres these they theyd
    theyll theyre theyve this those through to too under until up us very was wasnt we wed well were
    werent weve what whats when whens where wheres which while who whom whos whose why whys will
    with wont would wouldnt you youd youll your youre yours yourself yourselves youve
"""
STOP_WORDS = frozenset(_STOPS.split())


def stems(text: str) -> list[str]:
    """The text's words in their order: lower case, stop words out, stemmed."""
    if text.isascii():
        plain = text.lower()
        tokens: Iterable[str] = _PLAIN_TOKEN.findall(
            _APOSTROPHE.sub("", plain) if "'" in plain else plain
        )
    else:
        tokens = _tokens(text)
    return [stem for token in tokens if (stem := _stem(token))]


def document(text: str) -> Sparse:
    """How a stored text weighs its words."""
    return weigh(stems(text))


def weigh(words: Sequence[str], *, average_length: float = AVERAGE_LENGTH) -> Sparse:
    """The weights of these stems; what they occur in is as long as all of them together."""
    norm = K1 * (1 - B + B * len(words) / average_length)
    counts: dict[int, int] = {}
    for stem, often in Counter(words).items():
        number = _number(stem)
        counts[number] = max(often, counts[number]) if number in counts else often
    weight = {often: often * (K1 + 1) / (often + norm) for often in set(counts.values())}
    return Sparse(indices=tuple(counts), values=tuple(map(weight.__getitem__, counts.values())))


def query(text: str) -> Sparse:
    """How a question weighs its words: each counts as often as it occurs."""
    often = Counter(_number(stem) for stem in stems(text))
    return Sparse(indices=tuple(often), values=tuple(float(count) for count in often.values()))


def _tokens(text: str) -> Iterator[str]:
    for match in _TOKEN.finditer(_APOSTROPHE.sub("", normalize("NFKC", text).casefold())):
        token = match[0]
        if len(token) > 2 and _FIRST_UNSPACED.match(token):
            yield from (token[at : at + 2] for at in range(len(token) - 1))
        else:
            yield token


@lru_cache(maxsize=100_000)
def _stem(token: str) -> str:
    """Empty for a stop word."""
    return "" if token in STOP_WORDS else str(_STEMMER.stemWord(token))


@lru_cache(maxsize=100_000)
def _number(stem: str) -> int:
    """The same on every machine, for ever: vectors that are stored depend on it."""
    return int.from_bytes(blake2b(stem.encode(), digest_size=4).digest(), "little")
