"""What a question says beside its words."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from pai.question import Period, Question, held, traits

NOW = datetime(2026, 3, 11, 9, tzinfo=UTC)  # a Wednesday
KNOWN = ("Nadia", "Tom Berger", "code", "Will", "May")


@pytest.mark.parametrize(
    ("text", "people", "rest"),
    [
        ("What did Nadia bake?", ("Nadia",), "What did bake?"),
        ("What is Nadia's bread called?", ("Nadia",), "What is bread called?"),
        ("what did nadia bake", ("Nadia",), "what did bake"),
        ("Did nadia call Berlin?", (), "Did nadia call Berlin?"),
        ("Where did Tom live?", ("Tom Berger",), "Where did live?"),
        ("Where did Tom Berger live?", ("Tom Berger",), "Where did live?"),
        ("Nadia and Tom like which sport?", ("Tom Berger", "Nadia"), "and like which sport?"),
        ("Where is the code that Nadiaa wrote?", (), "Where is the code that Nadiaa wrote?"),
        ("Will it rain?", (), "Will it rain?"),
        ("Who is Nadia?", ("Nadia",), "Who is Nadia?"),
    ],
)
def test_a_name_is_taken_for_who_spoke(text: str, people: tuple[str, ...], rest: str) -> None:
    found = Question.of(text, KNOWN, NOW)
    assert (found.people, found.text) == (people, rest)


@pytest.mark.parametrize(
    ("text", "periods"),
    [
        ("What happened on 8 May 2023?", [Period(year=2023, month=5, day=8)]),
        ("What happened on May 8th, 2023?", [Period(year=2023, month=5, day=8)]),
        ("the 2nd of Oct, 2022", [Period(year=2022, month=10, day=2)]),
        ("What was done on 2024-02-03 and in 2025-12?", [
            Period(year=2024, month=2, day=3), Period(year=2025, month=12),
        ]),
        ("What did we buy in June?", [Period(month=6)]),
        ("What did we buy in May?", [Period(month=5)]),
        ("May I see how they march?", []),
        ("What may follow?", []),
        ("Where were we in 2021?", [Period(year=2021)]),
        ("Which of the 2000 rows failed?", []),
        ("What did I say yesterday?", [Period(year=2026, month=3, day=10)]),
        ("What broke last week?", [Period(year=2026, month=3, day=2, days=7)]),
        ("What broke last month?", [Period(year=2026, month=2)]),
        ("What broke this year?", [Period(year=2026)]),
        ("What broke last year?", [Period(year=2025)]),
    ],
)  # fmt: skip
def test_the_days_it_names(text: str, periods: list[Period]) -> None:
    assert list(Question.of(text, (), NOW).periods) == periods


def test_a_day_without_memories_stands_for_its_month() -> None:
    days = [date(2023, 5, 8), date(2023, 5, 20), date(2023, 6, 8), date(2024, 5, 8)]
    assert held([Period(year=2023, month=5, day=8)], days) == [True, False, False, False]
    assert held([Period(year=2023, month=5, day=9)], days) == [True, True, False, False]
    assert held([Period(month=5)], days) == [True, True, False, True]
    week = Period(year=2023, month=5, day=15, days=7)
    assert held([week, Period(year=2024)], days) == [False, True, False, True]
    assert held([], days) == [False] * 4


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("When did she leave?", True),
        ("what year was that", True),
        ("How long did it take?", True),
        ("What did she leave?", False),
        ("How many were there?", False),
    ],
)
def test_whether_it_asks_when(text: str, asks: bool) -> None:
    assert Question.of(text).asks_when is asks


@pytest.mark.parametrize(
    ("text", "stems", "asks", "tells_time"),
    [
        ("The oven broke yesterday!", 3, False, True),
        ("Which oven?", 1, True, False),
        ("Nice! What is it? [a photo of a loaf]", 3, True, False),
        ("Is it? I think so.", 1, False, False),
        ("We were 12 people.", 2, False, True),
        ("", 0, False, False),
    ],
)
def test_what_a_text_is_like(text: str, stems: int, asks: bool, tells_time: bool) -> None:
    found = traits(text)
    assert (found.stems, found.asks, found.tells_time) == (stems, asks, tells_time)
