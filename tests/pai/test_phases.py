"""The state machine by tables of histories."""

from __future__ import annotations

import pytest

from base.messages import Effort, Phase, Verdict
from pai.phases import (
    FRAMING,
    TIERS,
    Do,
    Ended,
    Fact,
    Framed,
    Frozen,
    Learned,
    Measured,
    Reflected,
    Traced,
    Worked,
    fold,
    next_step,
)

PASSED = Measured(verdicts=(Verdict.PASSED,))
FAILED = Measured(verdicts=(Verdict.PASSED, Verdict.FAILED))
UNMEASURED = Measured(verdicts=(Verdict.UNMEASURED,))
EMPTY = Measured(verdicts=())
BEGUN: list[Fact] = [Framed(), Frozen(), Worked()]


def traced(phase: Phase = Phase.EXECUTE) -> Traced:
    return Traced(phase=phase)


@pytest.mark.parametrize(
    ("effort", "facts", "do"),
    [
        ("minimal", [], Do.FREEZE),
        ("minimal", [Frozen()], Do.EXECUTE),
        ("minimal", [Frozen(), Worked(), FAILED], Do.LEARN),
        ("standard", [], Do.FRAME),
        ("standard", [Framed()], Do.FREEZE),
        ("standard", [Framed(gate_faults=("few",))], Do.FRAME),
        ("standard", [Framed(gate_faults=("few",)), Framed(gate_faults=("few",))], Do.FREEZE),
        ("standard", BEGUN[:2], Do.EXECUTE),
        ("standard", BEGUN, Do.VERIFY),
        ("standard", [*BEGUN, PASSED], Do.LEARN),
        ("standard", [*BEGUN, EMPTY], Do.LEARN),
        ("standard", [*BEGUN, FAILED], Do.TRACE),
        ("standard", [*BEGUN, UNMEASURED], Do.TRACE),
        ("standard", [*BEGUN, FAILED, traced()], Do.EXECUTE),
        ("standard", [*BEGUN, FAILED, traced(Phase.PLAN)], Do.FRAME),
        ("standard", [*BEGUN, FAILED, traced(Phase.PLAN), Framed()], Do.EXECUTE),
        ("standard", [*BEGUN, FAILED, traced(), Worked()], Do.VERIFY),
        ("standard", [*BEGUN, *[FAILED, traced(), Worked()] * 2, FAILED], Do.LEARN),
        ("standard", [*BEGUN, PASSED, Learned()], Do.END),
        ("standard", [*BEGUN, PASSED, Learned(), Ended()], Do.NOTHING),
        ("extended", [Framed()], Do.FRAME),
        ("extended", [Framed(), Framed(), Frozen(), Worked(), PASSED], Do.REFLECT),
        ("extended", [Framed(), Framed(), Frozen(), Worked(), PASSED, Reflected()], Do.LEARN),
        ("deep", [Framed()] * 3, Do.FRAME),
        ("deep", [Framed()] * 4, Do.FREEZE),
    ],
)
def test_what_is_next_follows_from_what_happened(effort: str, facts: list[Fact], do: Do) -> None:
    assert next_step(fold(Effort(effort), facts)).do is do


def test_going_back_keeps_the_framing_before_the_cause() -> None:
    facts: list[Fact] = [Framed()] * 4
    state = fold(Effort.DEEP, [*facts, Frozen(), Worked(), FAILED, traced(Phase.PLAN)])
    assert next_step(state).phases == (Phase.PLAN,)
    assert state.round == 2
    assert state.verdicts is None


def test_every_tier_frames_each_phase_once_in_order() -> None:
    for effort, tier in TIERS.items():
        covered = tuple(phase for frame in tier.frames for phase in frame)
        assert covered == (() if effort is Effort.MINIMAL else FRAMING)


def test_faults_of_an_early_frame_do_not_ask_again() -> None:
    state = fold(Effort.EXTENDED, [Framed(gate_faults=("few",))])
    step = next_step(state)
    assert (step.do, step.again) == (Do.FRAME, False)


def test_unmeasured_is_not_passed() -> None:
    assert not fold(Effort.STANDARD, [*BEGUN, UNMEASURED]).passed
    assert not fold(Effort.STANDARD, BEGUN).passed
