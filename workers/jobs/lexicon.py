"""How a text sounds by its words: `config/sentiment.toml`, the owner's laid over it.

Each word that is known counts its weight; a degree before it makes it stronger or weaker, a
negation within three words before it turns it round and weakens it, capitals and exclamation
marks make it stronger, and after a "but" a clause counts more than the one before. The sum is
brought into -1..1 by tanh, so that several words say more than one and none says all.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from base.errors import SettingsError
from base.settings import Settings

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "sentiment.toml"
TEXT_CHARS = 4_000
REACH_WORDS = 3
NEGATED = -0.7
LOUD = 1.25
MARK = 0.1
MARKS_MAX = 3
BEFORE_BUT, AFTER_BUT = 0.6, 1.3
LEAST_STEM = 3

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
CLAUSE = re.compile(r"[.!?;:\n]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """Weights by word, by beginning of a word, by phrase (a tuple of words) and by sign."""

    words: Mapping[str, float]
    stems: Mapping[str, float]
    phrases: Mapping[tuple[str, ...], float]
    signs: Mapping[str, float]
    degrees: Mapping[str, float]
    negations: frozenset[str]
    unless: frozenset[str]
    contrasts: frozenset[str]
    found_signs: re.Pattern[str]

    @classmethod
    def load(cls, settings: Settings | None = None) -> Lexicon:
        """Raises SettingsError for a file that cannot be read as one."""
        paths = [SHIPPED, *([settings.config / SHIPPED.name] if settings else [])]
        return cls.of(*(_read(path) for path in paths if path.exists()))

    @classmethod
    def of(cls, *tables: Mapping[str, Any]) -> Lexicon:
        """From what the files hold; of two weights for a word the later one counts."""
        words: dict[str, float] = {}
        phrases: dict[tuple[str, ...], float] = {}
        signs: dict[str, float] = {}
        degrees: dict[str, float] = {}
        single: dict[str, set[str]] = {"negation": set(), "unless": set(), "contrast": set()}
        try:
            for table in tables:
                for row in table.get("words", ()):
                    for word in f"{row.get('en', '')} {row.get('de', '')}".lower().split():
                        words[word] = _weight(row["weight"])
                for row in table.get("phrases", ()):
                    for phrase in row["all"]:
                        phrases[tuple(_words(phrase))] = _weight(row["weight"])
                for row in table.get("signs", ()):
                    signs |= dict.fromkeys(row["all"], _weight(row["weight"]))
                for row in table.get("degrees", ()):
                    degrees |= dict.fromkeys(row["words"].lower().split(), float(row["factor"]))
                for name, key in (
                    ("negation", "words"),
                    ("negation", "unless"),
                    ("contrast", "words"),
                ):
                    told = table.get(name, {}).get(key, "").lower().split()
                    single["unless" if key == "unless" else name].update(told)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SettingsError([f"sentiment.toml: {error!r}"]) from error
        longest_first = sorted(signs, key=len, reverse=True)
        return cls(
            words={word: weight for word, weight in words.items() if not word.endswith("*")},
            stems={word[:-1]: weight for word, weight in words.items() if word.endswith("*")},
            phrases=phrases,
            signs=signs,
            degrees=degrees,
            negations=frozenset(single["negation"]),
            unless=frozenset(single["unless"]),
            contrasts=frozenset(single["contrast"]),
            found_signs=re.compile("|".join(_sign(one) for one in longest_first) or r"(?!)"),
        )

    def score(self, text: str) -> float:
        """-1 to 1; 0 when no word in it is known. Only the first TEXT_CHARS count."""
        text = text[:TEXT_CHARS].replace("’", "'")
        total = sum(self.signs[sign] for sign in self.found_signs.findall(text))
        marks = min(MARKS_MAX, text.count("!"))
        for clause in CLAUSE.split(self.found_signs.sub(" ", text)):
            total += self._clause(WORD.findall(clause)) * (1 + MARK * marks)
        return math.tanh(total)

    def _clause(self, written: list[str]) -> float:
        words = [one.lower() for one in written]
        total, at = 0.0, 0
        while at < len(words):
            if words[at] in self.contrasts and total:
                return BEFORE_BUT * total + AFTER_BUT * self._clause(written[at + 1 :])
            length, weight = self._at(words, at)
            if weight:
                loud = LOUD if written[at].isupper() and len(written[at]) > 1 else 1.0
                negated = length == 1 and self._negated(words, at)
                degree = self.degrees.get(words[at - 1], 1.0) if at else 1.0
                total += weight * loud * degree * (NEGATED if negated else 1.0)
            at += length
        return total

    def _at(self, words: list[str], at: int) -> tuple[int, float]:
        """How many words count together at that place, and their weight."""
        for length in range(min(6, len(words) - at), 1, -1):
            if (weight := self.phrases.get(tuple(words[at : at + length]))) is not None:
                return length, weight
        return 1, self._word(words[at])

    def _word(self, word: str) -> float:
        if (weight := self.words.get(word)) is not None:
            return weight
        for length in range(len(word), LEAST_STEM - 1, -1):
            if (weight := self.stems.get(word[:length])) is not None:
                return weight
        return 0.0

    def _negated(self, words: list[str], at: int) -> bool:
        """An odd number of negations shortly before: two take each other back."""
        count = 0
        for place in range(max(0, at - REACH_WORDS), at):
            followed = words[place + 1] in self.unless
            count += words[place] in self.negations and not followed
        return count % 2 == 1


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError([f"sentiment.toml: {path}: {error}"]) from error


def _weight(told: object) -> float:
    if not isinstance(told, (int, float)) or not -1 <= told <= 1:
        raise ValueError(f"a weight is a number from -1 to 1, not {told!r}")
    return float(told)


def _words(text: str) -> Iterable[str]:
    return WORD.findall(text.lower())


def _sign(sign: str) -> str:
    """A sign of letters must not be found inside a word, one of marks not inside an address."""
    before = r"(?<!\w)" if sign[0].isalnum() else r"(?<![\w/])" if sign.isascii() else ""
    after = r"(?!\w)" if sign[-1].isalnum() else r"(?![\w/])" if sign.isascii() else ""
    return before + re.escape(sign) + after
