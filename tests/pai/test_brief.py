"""What is at hand of a memory beside its payload."""

from __future__ import annotations

from typing import Any

import pytest
from keeper_world import memory

from pai import points
from pai.brief import Brief
from pai.question import Traits, traits
from pai.shapes import Collection
from pai.warm import Keep

SAID = "When did we see the two lighthouses?"


def payload(**fields: Any) -> dict[str, Any]:
    return points.payload(memory(SAID, **fields), None)


def test_a_text_is_told_once_what_it_is_like() -> None:
    stored = payload()
    assert (stored["stems"], stored["asks"], stored["tells_time"]) == (3, True, False)
    assert Brief.of(stored).traits == traits(SAID) == Traits(stems=3, asks=True, tells_time=False)
    assert Brief.of({**stored, "stems": 9, "asks": False}).traits.stems == 9
    assert points.memory_of(stored).text == SAID


def test_of_what_was_stored_before_that_the_text_is_looked_at() -> None:
    stored = payload()
    old = {name: stored[name] for name in stored if name not in ("stems", "asks", "tells_time")}
    assert Brief.of(old) == Brief.of(stored)


def test_a_learning_is_as_long_as_its_lesson_not_as_its_trigger() -> None:
    lesson = memory(
        SAID, collection=Collection.LEARNINGS, applies_when="a coast with many harbours is planned"
    )
    assert points.point(lesson, None).payload["stems"] == 3


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"conversation_id": "c", "file": "f", "seq": 0}, ("c", 0)),
        ({"file": "f", "seq": -1}, ("f", -1)),
        ({"conversation_id": "c"}, None),
        ({"seq": 1}, None),
        ({}, None),
    ],
)
def test_its_place_is_in_one_series(fields: dict[str, Any], place: tuple[str, int] | None) -> None:
    assert Brief.of(payload(**fields)).place == place


def test_filters_are_checked_on_briefs_as_on_payloads() -> None:
    some = [payload(user_id=user, tainted=tainted) for user in "ab" for tainted in (False, True)]
    for users in (["a"], ["a", "b"], ["c"]):
        for taint in ([False], [False, True]):
            keep = Keep(any_of={"user_id": users, "tainted": taint})
            for one in some:
                assert keep.fits_all([Brief.of(one)], keep.any_of) is keep.fits(one)
    assert Keep(any_of={"user_id": ["a"]}).fits_all([Brief.of(some[3])], [])
