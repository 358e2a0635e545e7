"""Whether a learning's trigger ("applies when") fits a situation. Pure.

fit = similarity of the two vectors + 0.4 · share of the trigger's words that the situation has.
The threshold was chosen on one half of `tests/pai/trigger_cases.py` with the shipped model, such
that nothing matched wrongly, and holds on the other half: precision comes before recall, since a
lesson out of place misleads and one that is missing costs little.
"""

from __future__ import annotations

from pai import words

WORDS_WEIGHT = 0.4
FITS = 0.70
#: Without vectors so large a share of the trigger's words must be there.
FITS_BY_WORDS = 0.75
#: A trigger of fewer words counts as one of so many: one common word is no situation.
SHORTEST_STEMS = 3
#: Words count together when they stand within so many: a long text has all words somewhere.
WINDOW_STEMS = 40


def overlap(trigger: str, situation: str) -> float:
    """The largest share of the trigger's words that stand close together in the situation."""
    wanted = set(words.stems(trigger))
    there = words.stems(situation)
    if not wanted:
        return 0.0
    steps = range(0, max(1, len(there) - WINDOW_STEMS // 2), WINDOW_STEMS // 2)
    most = max(len(wanted & set(there[at : at + WINDOW_STEMS])) for at in steps)
    return most / max(len(wanted), SHORTEST_STEMS)


def fit(overlap: float, similarity: float | None) -> float | None:
    """How well it fits; None: it does not. similarity None: there are no vectors to compare."""
    if similarity is None:
        return overlap if overlap >= FITS_BY_WORDS else None
    score = similarity + WORDS_WEIGHT * overlap
    return score if score >= FITS else None


def why(trigger: str, overlap: float, similarity: float | None) -> tuple[str, ...]:
    """What spoke for it, in words for people."""
    near = () if similarity is None else (f"its trigger is near in meaning ({similarity:.2f})",)
    return (*near, f"{overlap:.0%} of its trigger's words: {trigger[:120]}")
