"""The Algorithm as a state machine: what to do next follows from what has happened.

`advance` folds one fact into the state, `next_step` says what comes next; both are pure, so a
task that died is resumed by folding its journal again. Phases as in PAI v4.0.3, Algorithm
v3.7.0: criteria appear in OBSERVE, are refined through BUILD and frozen before EXECUTE.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from base.messages import Effort, Phase, Verdict

#: Phases that think and write no files; one model call may cover several of them.
FRAMING = (Phase.OBSERVE, Phase.THINK, Phase.PLAN, Phase.BUILD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One effort tier as data.

    frames: the framing calls, each with the phases it covers; floor: fewest criteria before the
    gate asks once more (the order's count too); rounds: most passes through EXECUTE and VERIFY;
    tool_steps: most tool calls of the whole task; reflect: whether LEARN asks the model.
    """

    frames: tuple[tuple[Phase, ...], ...]
    floor: int
    rounds: int
    tool_steps: int
    reflect: bool = False


#: Upstream's floors (8, 16, 40) are for whole projects; our tasks are parts of a plan.
TIERS: Mapping[Effort, Tier] = MappingProxyType(
    {
        Effort.MINIMAL: Tier(frames=(), floor=0, rounds=1, tool_steps=0),
        Effort.STANDARD: Tier(frames=(FRAMING,), floor=1, rounds=3, tool_steps=60),
        Effort.EXTENDED: Tier(
            frames=(FRAMING[:2], FRAMING[2:]), floor=6, rounds=3, tool_steps=60, reflect=True
        ),
        Effort.DEEP: Tier(
            frames=tuple((phase,) for phase in FRAMING),
            floor=12,
            rounds=3,
            tool_steps=60,
            reflect=True,
        ),
    }
)


class Do(StrEnum):
    """The kinds of step."""

    FRAME = "frame"  # a forced model call that covers `Step.phases`
    FREEZE = "freeze"  # from here on the criteria do not change
    EXECUTE = "execute"  # the tool loop (minimal effort: one call without tools)
    VERIFY = "verify"  # the system measures every criterion
    TRACE = "trace"  # which phase caused the failure
    REFLECT = "reflect"  # the model's own look back
    LEARN = "learn"  # the system writes what was measured
    END = "end"  # publish the outcome
    NOTHING = "nothing"  # it has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to do now. `again`: the gate found faults and asks the last frame once more."""

    do: Do
    phases: tuple[Phase, ...]
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a task stands.

    framed: framing calls done in this pass; gate_faults: what the criteria gate found after the
    last frame; verdicts: None until VERIFY of this round ran.
    """

    effort: Effort
    framed: int = 0
    gate_faults: tuple[str, ...] = ()
    asked_again: bool = False
    frozen: bool = False
    worked: bool = False
    verdicts: tuple[Verdict, ...] | None = None
    round: int = 1
    reflected: bool = False
    learned: bool = False
    ended: bool = False

    @property
    def tier(self) -> Tier:
        return TIERS[self.effort]

    @property
    def passed(self) -> bool:
        """Everything was measured and holds; also True when there was nothing to measure."""
        return self.verdicts is not None and set(self.verdicts) <= {Verdict.PASSED}


# Facts ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Framed:
    """A framing call is done. `gate_faults` counts only after the last one."""

    gate_faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Frozen:
    """The criteria are written and final."""


@dataclass(frozen=True, slots=True)
class Worked:
    """EXECUTE ended: the model says that it is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """VERIFY ended with these verdicts, one a criterion."""

    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """The failure was caused in `phase`; the loop goes back there."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class Reflected:
    """The model looked back."""


@dataclass(frozen=True, slots=True)
class Learned:
    """The facts worth keeping are written."""


@dataclass(frozen=True, slots=True)
class Ended:
    """There is an outcome; it may have been published."""


Fact = Framed | Frozen | Worked | Measured | Traced | Reflected | Learned | Ended


def advance(state: State, fact: Fact) -> State:
    """The state after `fact`."""
    match fact:
        case Framed(gate_faults=faults):
            if state.framed >= len(state.tier.frames):
                return replace(state, gate_faults=faults, asked_again=True)
            return replace(state, framed=state.framed + 1, gate_faults=faults)
        case Frozen():
            return replace(state, frozen=True)
        case Worked():
            return replace(state, worked=True)
        case Measured(verdicts=verdicts):
            return replace(state, verdicts=verdicts)
        case Traced(phase=phase):
            return replace(
                state,
                framed=_frames_before(state.tier, phase),
                worked=False,
                verdicts=None,
                round=state.round + 1,
            )
        case Reflected():
            return replace(state, reflected=True)
        case Learned():
            return replace(state, learned=True)
        case Ended():
            return replace(state, ended=True)


def fold(effort: Effort, facts: Iterable[Fact]) -> State:
    """The state after all `facts`, from the start."""
    state = State(effort=effort)
    for fact in facts:
        state = advance(state, fact)
    return state


def next_step(state: State) -> Step:
    """What to do now."""
    tier = state.tier
    if state.ended:
        return Step(do=Do.NOTHING, phases=())
    if state.framed < len(tier.frames):
        return Step(do=Do.FRAME, phases=tier.frames[state.framed])
    if not state.frozen:
        if state.gate_faults and not state.asked_again and tier.frames:
            return Step(do=Do.FRAME, phases=tier.frames[-1], again=True)
        return Step(do=Do.FREEZE, phases=(Phase.BUILD,))
    if not state.worked:
        return Step(do=Do.EXECUTE, phases=(Phase.EXECUTE,))
    if state.verdicts is None:
        return Step(do=Do.VERIFY, phases=(Phase.VERIFY,))
    if not state.passed and state.round < tier.rounds:
        return Step(do=Do.TRACE, phases=(Phase.VERIFY,))
    if tier.reflect and not state.reflected:
        return Step(do=Do.REFLECT, phases=(Phase.LEARN,))
    if not state.learned:
        return Step(do=Do.LEARN, phases=(Phase.LEARN,))
    return Step(do=Do.END, phases=(Phase.LEARN,))


def _frames_before(tier: Tier, phase: Phase) -> int:
    """How many framing calls stay good when `phase` is to be done again."""
    for number, covered in enumerate(tier.frames):
        if phase in covered:
            return number
    return len(tier.frames)
