"""The word list: direction, order and the few rules, in both languages."""

from __future__ import annotations

from pathlib import Path

import pytest

from base.errors import SettingsError
from base.settings import Settings
from workers.jobs.lexicon import Lexicon

SHIPPED = Lexicon.load()


@pytest.mark.parametrize(
    "text",
    [
        "Great work, exactly what I needed!",
        "thanks, that fixed it",
        "not bad at all",
        "No problems so far.",
        "I love it :)",
        "👍",
        "It was slow at first but now it works perfectly",
        "I can't wait to use this",
        "Super, vielen Dank!",
        "Das war wirklich hilfreich.",
        "gar nicht schlecht",
        "Das neue Design gefällt mir sehr",
        "Läuft ohne Probleme",
        "Nicht nur schnell, sondern auch schön",
        "Großartige Arbeit, eine saubere Lösung",
        "that is not a problem",
        "Endlich funktioniert es 🎉",
    ],
)
def test_what_pleases_is_above_nothing(text: str) -> None:
    assert 0.1 < SHIPPED.score(text) <= 1


@pytest.mark.parametrize(
    "text",
    [
        "This is terrible.",
        "It still does not work",
        "not good",
        "I am not happy with this",
        "that was never helpful",
        "what the hell is this crap",
        "nice, but it is completely broken",
        "wrong again :(",
        "👎",
        "Das funktioniert immer noch nicht",
        "Das ist nicht gut.",
        "Schon wieder ein Fehler, das nervt",
        "Ich bin sehr enttäuscht",
        "Die Antwort war falsch und unbrauchbar.",
        "kein bisschen hilfreich",
        "Schön, aber leider völlig kaputt",
        "Was für ein Albtraum",
    ],
)
def test_what_annoys_is_below_nothing(text: str) -> None:
    assert -1 <= SHIPPED.score(text) < -0.1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "Please list the files in the folder.",
        "Bitte lege die Tabelle an und schreibe die Namen hinein.",
        "See https://example.org/a:/b and http://localhost:8000/:)x",
        "1234 5678",
        "🙈🦀",
        "x" * 50_000,
    ],
)
def test_what_says_nothing_is_nothing(text: str) -> None:
    assert SHIPPED.score(text) == 0


def test_degrees_marks_and_capitals_make_it_stronger_or_weaker() -> None:
    plain = SHIPPED.score("this is good")
    assert SHIPPED.score("this is slightly good") < plain < SHIPPED.score("this is very good")
    assert plain < SHIPPED.score("this is good!") < SHIPPED.score("this is good!!!")
    assert SHIPPED.score("this is good!!!") == SHIPPED.score("this is good!!!!!!!!")
    assert plain < SHIPPED.score("this is GOOD")
    assert SHIPPED.score("das ist etwas gut") < SHIPPED.score("das ist sehr gut")


def test_a_negation_reaches_three_words_and_two_take_each_other_back() -> None:
    assert SHIPPED.score("this is not really very good") < 0
    assert SHIPPED.score("not that I would say so, it is good") > 0
    assert SHIPPED.score("not never good") > 0
    assert SHIPPED.score("no. good.") > 0  # another sentence
    assert SHIPPED.score("not only good") > 0


def test_after_a_but_it_counts_more() -> None:
    assert SHIPPED.score("good but bad") < 0 < SHIPPED.score("bad but good")


def test_many_words_stay_in_range() -> None:
    assert SHIPPED.score("excellent " * 300) == pytest.approx(1)
    assert SHIPPED.score("terrible " * 300) == pytest.approx(-1)


def test_endings_are_found_by_their_stem_alone() -> None:
    assert SHIPPED.score("fehlerhaftes Ergebnis") < 0
    assert SHIPPED.score("die herausragenden Ergebnisse") > 0
    assert SHIPPED.score("ein Gutachten") == 0  # `gut` has no open end


def test_the_list_is_some_hundred_words_and_says_nothing_twice() -> None:
    assert len(SHIPPED.words) + len(SHIPPED.stems) > 400
    assert not SHIPPED.words.keys() & (SHIPPED.negations | SHIPPED.contrasts)
    assert not SHIPPED.words.keys() & SHIPPED.degrees.keys()
    assert not SHIPPED.stems.keys() & SHIPPED.degrees.keys()


def test_the_owners_words_count_instead(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    own = tmp_path / "config" / "sentiment.toml"
    own.write_text('[[words]]\nweight = -0.9\nen = "good frobbed"\n')
    lexicon = Lexicon.load(Settings(home=tmp_path))
    assert lexicon.score("good") < -0.6
    assert lexicon.score("frobbed") < -0.6
    assert lexicon.score("great") == SHIPPED.score("great")


@pytest.mark.parametrize(
    "text",
    [
        '[[words]]\nen = "a"\n',
        '[[words]]\nweight = 2\nen = "a"\n',
        '[[words]]\nweight = "x"\nen = "a"\n',
        "[[phrases]]\nweight = 1\n",
        'words = "good"\n',
        "negation = 3\n",
        "[[",
    ],
)
def test_a_broken_list_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "sentiment.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"sentiment\.toml"):
        Lexicon.load(Settings(home=tmp_path))
