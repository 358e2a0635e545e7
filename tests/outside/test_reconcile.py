"""What goes where: every way in which two sides of a file can stand to what they agreed on."""

from __future__ import annotations

import pytest

from provision.git import Blob
from provision.reconcile import plan

A, B, C = (Blob(mode="100644", oid=name * 40) for name in "abc")
LINK = Blob(mode="120000", oid="d" * 40)
Side = Blob | None


@pytest.mark.parametrize(
    ("base", "here", "there", "way"),
    [
        (A, A, A, "same"),
        (None, B, None, "to there"),
        (None, None, B, "to here"),
        (None, B, B, "same"),
        (A, B, A, "to there"),
        (A, A, B, "to here"),
        (A, B, B, "same"),
        (A, None, A, "to there"),
        (A, A, None, "to here"),
        (A, None, None, "same"),
        (A, B, C, "both"),
        (None, B, C, "both"),
        (A, None, B, "both"),
        (A, B, None, "both"),
        (A, A, LINK, "both"),
        (None, None, LINK, "both"),
    ],
)
def test_where_a_file_goes(base: Side, here: Side, there: Side, way: str) -> None:
    trees = [{"f": side} if side else {} for side in (base, here, there)]
    made = plan(*trees, {})
    ways = {"to here": made.to_here, "to there": made.to_there, "both": made.both}
    assert {name for name, paths in ways.items() if paths} == ({way} - {"same"})
    if way == "to here":
        assert made.to_here == {"f": there}
        assert made.agreed == ({"f": there} if there else {})
    elif way == "to there":
        assert made.to_there == {"f": here}
        assert made.agreed == ({"f": here} if here else {})
    elif way == "both":
        assert made.agreed == ({"f": base} if base else {}), "the next run must see it again"


def test_a_person_settles_what_both_changed() -> None:
    base, here, there = {"f": A}, {"f": B}, {"f": C}
    ours, theirs = plan(base, here, there, {"f": "here"}), plan(base, here, there, {"f": "there"})
    assert (ours.to_there, ours.to_here, ours.both, ours.agreed) == ({"f": B}, {}, {}, {"f": B})
    assert (theirs.to_there, theirs.to_here, theirs.agreed) == ({}, {"f": C}, {"f": C})
    assert plan({"f": A}, {"f": A}, {"f": LINK}, {"f": "there"}).to_here == {}, "never a link"


def test_what_decides_over_rights_is_only_taken_by_name() -> None:
    trees = {"config/levels.toml": A}, {"config/levels.toml": A}, {"config/levels.toml": B}
    made = plan(*trees, {})
    assert not made.to_here
    assert "by name" in made.both["config/levels.toml"]
    assert plan(*trees, {"config/levels.toml": "there"}).to_here == {"config/levels.toml": B}
    pushed = plan(trees[0], {"config/levels.toml": B}, trees[0], {})
    assert pushed.to_there == {"config/levels.toml": B}


def test_a_file_where_the_other_side_has_a_folder_moves_nothing() -> None:
    made = plan({}, {"a": A}, {"a/b": B}, {})
    assert not made.to_here
    assert not made.to_there
    assert set(made.both) == {"a", "a/b"}
