"""What is ranked above what, and why it says so."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from recall_cases import ASKED, SAID, candidates_of

from pai import recall
from pai.brief import Brief
from pai.question import Question
from pai.recall import Candidate, Listed, Ranked, Weights
from pai.shapes import Tier
from pai.warm import Hit

NOW = datetime(2026, 3, 11, tzinfo=UTC)
OLD = (NOW - timedelta(days=300)).isoformat()


def one(id: str, text: str = "It went well.", **fields: Any) -> Candidate:
    scores = {name: fields.pop(name) for name in ("words", "dense") if name in fields}
    payload = {"id": id, "user_id": "ann", "text": text, "created_at": OLD, **fields}
    brief = Brief.of(payload)
    return Candidate(id=id, tier=Tier.WARM, brief=brief, payload=payload, **scores)


def talk(seq: int, speaker: str, text: str, **fields: Any) -> Candidate:
    return one(f"{seq}", text, conversation_id="c", seq=seq, speaker=speaker, **fields)


def ranked(text: str, *candidates: Candidate, known: tuple[str, ...] = ()) -> list[Ranked]:
    return recall.rank(Question.of(text, known, NOW), candidates, NOW)


@pytest.mark.parametrize(
    ("text", "worse", "better"),
    [
        ("ovens", one("a", words=1.0), one("b", words=2.0)),
        ("ovens", one("a", dense=0.3), one("b", dense=0.4)),
        ("ovens", one("a", dense=0.4), one("b", words=2.0, dense=0.4)),
        ("Which oven has Nadia?", one("a", speaker="Tom"), one("b", speaker="Nadia")),
        ("Which oven has Nadia?", one("a"), one("b", "Nadia's went well.")),
        ("Which oven?", one("a", "Did it go well?"), one("b", "It did go well.")),
        ("ovens", one("a", "Yes!"), one("b", "Yes, bricks, sand, clay and patience.")),
        (
            "What was in May 2023?",
            one("a", created_at="2023-06-08T00:00:00+00:00"),
            one("b", created_at="2023-05-08T00:00:00+00:00"),
        ),
        ("ovens", one("a", "It went badly."), one("b", "It went yesterday.")),
        (
            "When was it?",
            one("a", "It went badly: bricks, sand, clay, mortar, water, straw, lime and glue."),
            one("b", "It went yesterday."),
        ),
        ("ovens", one("a"), one("b", created_at=NOW.isoformat())),
    ],
    ids=[
        "words", "meaning", "both", "who said it", "whom it names", "a question is no answer",
        "length", "the days named", "a time", "saying when", "recent",
    ],
)  # fmt: skip
def test_what_is_better(text: str, worse: Candidate, better: Candidate) -> None:
    order = [each.candidate.id for each in ranked(text, worse, better, known=("Nadia", "Tom"))]
    assert order == ["b", "a"]


def test_a_turn_is_lifted_by_those_around_it() -> None:
    found = [
        talk(1, "Nadia", "The old oven smoked.", words=3.0),
        talk(2, "Tom", "So I see."),
        talk(3, "Nadia", "So it is."),
        talk(5, "Nadia", "So it goes."),
        one("9", "So it was."),
    ]
    order = [each.candidate.id for each in ranked("ovens", *found)]
    assert order[0] == "1"
    assert set(order[1:3]) == {"2", "3"}


def test_what_nothing_speaks_for_is_not_told() -> None:
    found = [
        talk(1, "Nadia", "The old oven smoked.", words=3.0, dense=0.1),
        talk(2, "Tom", "So I see.", dense=0.05),
        one("alike", "A stove.", dense=recall.DENSE_FLOOR),
        one("far", "The weather.", dense=recall.DENSE_FLOOR - 0.01),
        one("listed", "A hat."),
    ]
    told = {each.candidate.id for each in ranked("ovens", *found) if recall.speaks(each)}
    assert told == {"1", "2", "alike"}


def test_an_answer_is_found_by_the_question_before_it() -> None:
    asked = talk(1, "Tom", "Which flour do you take for rye bread?", words=4.0, dense=0.6)
    answer = talk(2, "Nadia", "The dark one from the mill.", dense=0.1)
    other = talk(9, "Nadia", "The blue one from the shop.", words=0.5, dense=0.2)
    found = ranked("Which flour does Nadia take?", asked, answer, other, known=("Nadia", "Tom"))
    assert found[0].candidate.id == "2"
    why = recall.item(found[0], Question.of("Which flour does Nadia take?", ("Nadia",), NOW)).why
    assert "said by Nadia" in why
    assert "answers a question that matches" in why
    same = talk(1, "Nadia", asked.text, words=4.0, dense=0.6)
    assert "answer" not in {
        name
        for each in ranked("Which flour?", same, answer, other)
        if each.candidate.id == "2"
        for name in each.parts
    }


def test_neighbours_are_of_one_series() -> None:
    found = [
        one("1", words=3.0, conversation_id="c", seq=1),
        one("2", conversation_id="d", seq=2),
        one("3", file="c", seq=2),
        one("4", seq=2),
        one("5", conversation_id="c"),
    ]
    near = {each.candidate.id for each in ranked("ovens", *found) if "near" in each.parts}
    assert near == {"3"}


def test_without_a_vector_words_decide() -> None:
    found = [one("b", words=1.0), one("a", words=2.0), one("c")]
    order = ranked("ovens", *found)
    assert [each.candidate.id for each in order] == ["a", "b", "c"]
    assert all("dense" not in each.parts for each in order)


def test_equals_come_in_the_order_of_their_ids() -> None:
    found = [one(id) for id in "dbca"]
    assert [each.candidate.id for each in ranked("ovens", *found)] == list("abcd")
    assert ranked("ovens") == []


def test_hits_of_several_looks_are_one_candidate() -> None:
    whole = dict(one("a").whole)
    hits = [Hit.of("a", score, whole) for score in (2.0, 0.5, 3.0)]
    lists = [
        Listed(tier=Tier.WARM, name="words", hits=hits[:1]),
        Listed(tier=Tier.WARM, name="dense", hits=hits[1:2]),
        Listed(tier=Tier.HOT, name="words", hits=hits[2:]),
    ]
    assert recall.gather(lists) == [one("a", words=3.0, dense=0.5)]


def test_a_cross_encoder_has_a_say_in_the_first_ones() -> None:
    order = ranked("ovens", *(one(id, words=float(9 - at)) for at, id in enumerate("abcd")))
    found = recall.reranked(order, [0.1, 0.2, 9.0])
    assert [each.candidate.id for each in found] == ["c", "a", "b", "d"]
    ignored = recall.reranked(order, [0.1, 0.2, 9.0], Weights(rerank=0.0))
    assert [each.candidate.id for each in ignored] == list("abcd")
    why = recall.item(found[0], Question.of("ovens")).why
    assert why[-1].startswith("reranker +")


def test_an_item_says_what_spoke_for_it() -> None:
    question = Question.of("When did Nadia bake in May 2023?", ("Nadia",), NOW)
    at = "2023-05-08T00:00:00+00:00"
    said = one("a", "I baked last Sunday.", speaker="Nadia", words=2.5, dense=0.41, created_at=at)
    item = recall.item(recall.rank(question, [said, one("b")], NOW)[0], question)
    assert item.why == (
        "meaning 0.41", "words 2.5", "said by Nadia", "of the time named", "says when",
    )  # fmt: skip
    assert (item.memory.text, item.tier, item.support) == ("I baked last Sunday.", Tier.WARM, 1)


def share(weights: Weights, known: tuple[str, ...]) -> float:
    """Recall at 3 over the conversation of this test."""
    found = 0.0
    for text, gold in ASKED:
        question = Question.of(text, known, NOW)
        order = recall.rank(question, candidates_of(question.text), NOW, weights)
        best = {each.candidate.brief.seq for each in order[:3]}
        found += len(best & gold) / len(gold)
    return found / len(ASKED)


def test_it_finds_more_than_words_and_meaning_do() -> None:
    off = {
        name: 0.0
        for name in Weights.__dataclass_fields__
        if name not in ("words", "dense")
    }  # fmt: skip
    plain = share(Weights(**off), ())
    ours = share(Weights(), tuple({speaker for speaker, _ in SAID}))
    assert ours >= 0.9
    assert ours >= plain + 0.2


def test_hundreds_are_ranked_in_milliseconds() -> None:
    many = [
        talk(at, "Nadia" if at % 2 else "Tom", f"The oven number {at} is {at % 7} feet wide.",
             words=at % 11, dense=(at % 13) / 13)
        for at in range(300)
    ]  # fmt: skip
    question = Question.of("Which oven has Nadia?", ("Nadia", "Tom"), NOW)
    recall.rank(question, many, NOW)
    took_s = []
    for _ in range(10):
        began_s = time.perf_counter()
        recall.rank(question, many, NOW)
        took_s.append(time.perf_counter() - began_s)
    assert min(took_s) < 0.02
