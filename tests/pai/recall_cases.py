"""A conversation of our own, questions about it, and the turns that answer them."""

from __future__ import annotations

import math
from collections import Counter

from keeper_world import vector

from pai.brief import Brief
from pai.recall import Candidate
from pai.shapes import Tier
from pai.words import document, query

SAID = [
    ("Nadia", "Hi Tom! It's ages since we talked. How is Tom's garden, is Tom still digging?"),
    ("Tom", "Hello Nadia! The beans froze last week, sadly. What keeps Nadia busy?"),
    ("Nadia", "I began to build a clay oven behind the shed on Sunday."),
    ("Tom", "A clay oven, Nadia! How long will an oven like that take?"),
    ("Nadia", "Three weekends, if it stays dry."),
    ("Tom", "Who helps?"),
    ("Nadia", "My brother Ivo carries the sand."),
    ("Tom", "Lovely. I signed up for a boat course in Kiel yesterday."),
    ("Nadia", "Really, Tom! What made Tom choose a boat course?"),
    ("Tom", "My grandfather was a pilot in the harbour, it was always my dream."),
    ("Nadia", "Great. Do you get seasick, though?"),
    ("Tom", "Only below deck."),
    ("Nadia", "Ha, stay above then! By the way, which flour do you take for rye bread?"),
    ("Tom", "The dark one from the mill in Plön."),
    ("Nadia", "I'll try that. Did Tom see the film about lighthouses?"),
    ("Tom", "I did, twice! The keeper's daughter made me cry."),
    ("Nadia", "Mine is still on the shelf. My cat Mirza sat on it for months."),
    ("Tom", "Give Mirza my love. How old is she now?"),
    ("Nadia", "Fourteen in June, and still jumping."),
    ("Tom", "I have to go, the course begins at nine tomorrow."),
]
#: (question, places of the turns that answer it)
ASKED = [
    ("What is Nadia building?", {2}),
    ("How long will Nadia's oven take?", {4}),
    ("Who helps Nadia with the sand for the oven?", {6}),
    ("When did Nadia begin the oven?", {2}),
    ("What happened to Tom's beans?", {1}),
    ("When did Tom sign up for the boat course?", {7}),
    ("Why did Tom choose a boat course?", {9}),
    ("When does Tom get seasick?", {11}),
    ("Which flour does Tom take for rye bread?", {13}),
    ("What made Tom cry in the film about lighthouses?", {15}),
    ("How old is Nadia's cat Mirza?", {18}),
    ("When does Tom's course begin?", {19}),
]
_DOCUMENTS = [
    dict(zip(one.indices, one.values, strict=True)) for one in (document(text) for _, text in SAID)
]
_OFTEN = Counter(word for one in _DOCUMENTS for word in one)


def candidates_of(text: str) -> list[Candidate]:
    """All turns, with the scores that a store would give: BM25, and the cosine of word vectors."""
    asked, own = query(text), vector(text)
    payloads = [
        {
            "id": f"{at:02}", "user_id": "ann", "text": said, "speaker": speaker, "seq": at,
            "conversation_id": "c", "created_at": "2025-04-07T18:00:00+00:00",
        }
        for at, (speaker, said) in enumerate(SAID)
    ]  # fmt: skip
    return [
        Candidate(
            id=f"{at:02}",
            tier=Tier.WARM,
            brief=Brief.of(payloads[at]),
            payload=payloads[at],
            words=sum(
                often * _DOCUMENTS[at][word] * _idf(word)
                for word, often in zip(asked.indices, asked.values, strict=True)
                if word in _DOCUMENTS[at]
            ),
            dense=float(own @ vector(said)),
        )
        for at, (_, said) in enumerate(SAID)
    ]


def _idf(word: int) -> float:
    return math.log(1 + (len(SAID) - _OFTEN[word] + 0.5) / (_OFTEN[word] + 0.5))
