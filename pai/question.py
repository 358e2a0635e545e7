"""What a question says beside its words: whom it names, of which days, whether it asks when. Pure.

A name in a question is not looked for in texts: people are addressed by name in what others say
to them, so that the name finds the wrong speaker. It is matched with who said a thing instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from pai import words

ANY_CASE = re.IGNORECASE
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
_NUMBER = {name: at for at, month in enumerate(_MONTHS, 1) for name in (month, month[:3])}
_NUMBER |= {"sept": 9}
_MONTH = "|".join(sorted(_NUMBER, key=len, reverse=True))
_DAY = r"(?:3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?"
_YEAR = r"(?:19|20)\d\d"
_ISO = re.compile(rf"\b({_YEAR})-(\d\d)(?:-(\d\d))?\b")
#: 8 May 2023, the 8th of May, May 2023, May
_DAY_FIRST = re.compile(
    rf"\b(?:({_DAY})\s+(?:of\s+)?)?({_MONTH})\b\.?(?:,?\s+({_YEAR}))?", ANY_CASE
)
#: May 8th, 2023
_MONTH_FIRST = re.compile(rf"\b({_MONTH})\b\.?\s+({_DAY})\b(?!\s*:)(?:,?\s+({_YEAR}))?", ANY_CASE)
_ALONE = re.compile(rf"\b(?:in|of|during|since|by|around|year)\s+({_YEAR})\b", ANY_CASE)
#: Months that are words as well count only where a date would stand.
_WORDS_TOO = {"may", "march", "mar", "sep", "dec", "jan", "jun"}
_BEFORE_DATE = re.compile(
    r"\b(?:in|of|on|by|since|until|till|during|before|after|from|last|this|next|late|early|mid)"
    r"\s+$",
    ANY_CASE,
)
_RECENT = re.compile(r"\b(today|yesterday|(?:this|last|past)\s+(?:week|month|year))\b", ANY_CASE)
_WHEN = re.compile(
    r"\b(?:when|how\s+long|(?:what|which)\s+(?:date|day|week|month|year|time))\b", ANY_CASE
)
#: Spoken before "?", but for what stands in brackets after it.
_ASKS = re.compile(r"\?[\"'\u201d)\s]*(?:\[[^\]]*\]\s*)?$")
_TIMES = """
    yesterday today tonight tomorrow ago last next this since recently weekend week weeks month
    months year years monday tuesday wednesday thursday friday saturday sunday mon tues wed thurs
    fri sat sun january february march april may june july august september october november
    december morning night
"""
_TELLS_TIME = frozenset(_TIMES.split())
_WORD = re.compile(r"[a-z]+")
_DIGIT = re.compile(r"\d")
#: Of a long text its beginning and its end are looked at.
HEAD_CHARS, TAIL_CHARS = 1_500, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Some days: None is any. days: how many from that day on, when all three are given."""

    year: int | None = None
    month: int | None = None
    day: int | None = None
    days: int = 1

    def holds(self, when: date) -> bool:
        if self.days > 1 and self.year and self.month and self.day:
            return 0 <= (when - date(self.year, self.month, self.day)).days < self.days
        return (
            self.year in (None, when.year)
            and self.month in (None, when.month)
            and self.day in (None, when.day)
        )

    def around(self) -> Period | None:
        """Its month, for a day of which nothing is known; None for what is no single day."""
        return Period(year=self.year, month=self.month) if self.day and self.days == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """text: without the names of `people`, what is to be embedded; never empty. asks_when: the
    answer is a time.
    """

    text: str
    people: tuple[str, ...] = ()
    periods: tuple[Period, ...] = ()
    asks_when: bool = False

    @classmethod
    def of(cls, text: str, known: Iterable[str] = (), now: datetime | None = None) -> Question:
        """known: the names of those who ever spoke."""
        people, rest = _people(text, known)
        return cls(
            text=rest if words.stems(rest) else text,
            people=people,
            periods=_periods(text, (now or datetime.now(UTC)).date()),
            asks_when=bool(_WHEN.search(text)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a text is like. stems: how many. asks: it ends with a question."""

    stems: int
    asks: bool
    tells_time: bool

    @classmethod
    @lru_cache(maxsize=4_096)
    def of(cls, stems: int, asks: bool, tells_time: bool) -> Traits:
        """The same one for the same values: all memories have some."""
        return cls(stems=stems, asks=asks, tells_time=tells_time)


def traits(text: str, stems: int | None = None) -> Traits:
    """stems: how many the whole text has, when that is known already."""
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]} {text[-TAIL_CHARS:]}"
    return Traits.of(
        len(words.stems(text)) if stems is None else stems,
        bool(_ASKS.search(text.rstrip())),
        bool(_DIGIT.search(text)) or not _TELLS_TIME.isdisjoint(_WORD.findall(text.casefold())),
    )


def names(text: str, name: str) -> bool:
    """Whether it names them: as written, or all in small letters where nothing is large."""
    return bool(_name(name).search(text)) or (
        text == text.lower() and bool(_name(name.lower()).search(text))
    )


@lru_cache(maxsize=1_024)
def _name(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(name)}(?:['\u2019]s?)?(?!\w)")


def _people(text: str, known: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """(those named, the text without their names). A known name in small letters is none: agents
    are called as things are.
    """
    found: list[str] = []
    rest = text
    for name in sorted(known, key=lambda one: (-len(one), one)):
        called = next((part for part in (name, *name.split()[:1]) if _called(text, part)), None)
        if called is None:
            continue
        found.append(name)
        small = text == text.lower()
        rest = _name(called.lower() if small else called).sub(" ", rest)
    return tuple(found), " ".join(rest.split())


def _called(text: str, name: str) -> bool:
    return name[:1].isupper() and name.casefold() not in words.STOP_WORDS and names(text, name)


def _periods(text: str, today: date) -> tuple[Period, ...]:
    found: list[Period] = []
    rest = text
    for pattern, order in ((_ISO, (1, 2, 3)), (_MONTH_FIRST, (3, 1, 2)), (_DAY_FIRST, (3, 2, 1))):
        for match in pattern.finditer(rest):
            year, month, day = (match[group] for group in order)
            if _is_date(match, month, day, year):
                found.append(_period(year, month, day))
                rest = rest.replace(match[0], " ", 1)
    found += [Period(year=int(match[1])) for match in _ALONE.finditer(rest)]
    found += [
        _recent(" ".join(match[1].lower().split()), today) for match in _RECENT.finditer(rest)
    ]
    return tuple(dict.fromkeys(found))


def _is_date(match: re.Match[str], month: str, day: str | None, year: str | None) -> bool:
    if month.isdigit():
        return 1 <= int(month) <= 12
    if month.lower() not in _WORDS_TOO or day or year:
        return True
    return month[0].isupper() and bool(_BEFORE_DATE.search(match.string[: match.start()]))


def _period(year: str | None, month: str, day: str | None) -> Period:
    return Period(
        year=int(year) if year else None,
        month=int(month) if month.isdigit() else _NUMBER[month.lower()],
        day=int(re.sub(r"\D", "", day)) if day else None,
    )


def _recent(said: str, today: date) -> Period:
    match said.rsplit(maxsplit=1)[-1], said.split(maxsplit=1)[0]:
        case "today", _:
            return _of(today)
        case "yesterday", _:
            return _of(today - timedelta(days=1))
        case "week", "this":
            return _of(today - timedelta(days=today.weekday()), days=7)
        case "week", _:
            return _of(today - timedelta(days=today.weekday() + 7), days=7)
        case "month", "this":
            return Period(year=today.year, month=today.month)
        case "month", _:
            before = today.replace(day=1) - timedelta(days=1)
            return Period(year=before.year, month=before.month)
        case _, "this":
            return Period(year=today.year)
        case _:
            return Period(year=today.year - 1)


def _of(day: date, days: int = 1) -> Period:
    return Period(year=day.year, month=day.month, day=day.day, days=days)


def held(periods: Sequence[Period], when: Sequence[date]) -> list[bool]:
    """Which of those days the periods hold; for a day of which there is none, its month."""
    result = [False] * len(when)
    for period in periods:
        wide = period.around()
        hits = [period.holds(day) for day in when]
        if not any(hits) and wide is not None:
            hits = [wide.holds(day) for day in when]
        result = [one or hit for one, hit in zip(result, hits, strict=True)]
    return result
