"""The health machine by histories: what was seen, what must come of it."""

from __future__ import annotations

import pytest

from supervisor.health import Do, Health, Rules, Seen, State, restart, step

RULES = Rules(
    backoff_s=(10.0, 30.0, 60.0), stable_s=300.0, stale_s=90.0, confirm_s=15.0, drain_s=30.0
)
QUIET = Rules(backoff_s=(10.0, 30.0, 60.0), stale_s=None, settle_s=1.0)


def alive(at_s: float, pid: int = 1, *, beat: bool = True, silent_s: float | None = 0.0) -> Seen:
    return Seen(at_s=at_s, pid=pid, beat=beat, silent_s=silent_s)


def dead(at_s: float, code: int | None = 1, pid: int = 1) -> Seen:
    return Seen(at_s=at_s, pid=pid, dead=True, exit_code=code)


def gone(at_s: float) -> Seen:
    return Seen(at_s=at_s)


def play(*history: Seen, rules: Rules = RULES) -> tuple[Health, list[tuple[float, Do]]]:
    """The last state and every deed with its time."""
    health, deeds = Health.fresh(history[0].at_s), []
    for seen in history:
        health, do = step(health, seen, rules)
        if do is not Do.NOTHING:
            deeds.append((seen.at_s, do))
    return health, deeds


R, T, K = Do.RESPAWN, Do.TERMINATE, Do.KILL
SILENT = [alive(0), *(alive(t, silent_s=91.0) for t in (100, 105, 110))]
HISTORIES: dict[str, tuple[list[Seen], State, list[tuple[float, Do]]]] = {
    "adopted when first seen alive": ([alive(0, beat=False)], State.STARTING, []),
    "its heartbeat makes it running": ([alive(0, beat=False), alive(1)], State.RUNNING, []),
    "opened at once when the window is missing": ([gone(0)], State.STARTING, [(0, R)]),
    "an open that fails waits like a death": ([gone(0), gone(1)], State.BACKOFF, [(0, R)]),
    "dead when first seen waits first": ([dead(0)], State.BACKOFF, []),
    "waits ten seconds": ([alive(0), dead(5), dead(14.9)], State.BACKOFF, []),
    "then restarts": ([alive(0), dead(5), dead(15)], State.STARTING, [(15, R)]),
    "second wait is thirty": (
        [alive(0), dead(5), dead(15), dead(16, pid=2), dead(45), dead(46)],
        State.STARTING,
        [(15, R), (46, R)],
    ),
    "three failed restarts are fatal": (
        [alive(0), *(dead(t) for t in (1, 11, 12, 42, 43, 103, 104, 999))],
        State.FATAL,
        [(11, R), (42, R), (103, R)],
    ),
    "five stable minutes forget restarts": (
        [
            alive(0),
            dead(1),
            dead(11),
            alive(12, 2),
            alive(150, 2),
            alive(312, 2),
            dead(313, pid=2),
            dead(323, pid=2),
        ],
        State.STARTING,
        [(11, R), (323, R)],
    ),
    "not yet stable remembers": (
        [alive(0), dead(1), dead(11), alive(12, 2), dead(311, pid=2), dead(321, pid=2)],
        State.BACKOFF,
        [(11, R)],
    ),
    "exit 0 stays ended": ([alive(0), dead(5, 0), dead(500, 0)], State.EXITED, []),
    "exit 0 found at first look stays ended": ([dead(0, 0), dead(500, 0)], State.EXITED, []),
    "post taken waits a minute, uncounted": (
        [alive(0)] + [seen for n in range(5) for seen in (dead(n * 61 + 1, 75), dead(n * 61 + 61))],
        State.STARTING,
        [(61, R), (122, R), (183, R), (244, R), (305, R)],
    ),
    "killed by a signal restarts": ([alive(0), dead(5, -9), dead(15)], State.STARTING, [(15, R)]),
    "code not known yet counts as a death": ([alive(0), dead(5, None)], State.BACKOFF, []),
    "window closed by hand comes back": ([alive(0), gone(5), gone(15)], State.STARTING, [(15, R)]),
    "respawned by hand is adopted": ([alive(0), dead(5), alive(6, 2)], State.RUNNING, []),
    "revived by hand after fatal": (
        [*(dead(t) for t in (0, 10, 11, 41, 42, 102, 103)), alive(200, 9)],
        State.RUNNING,
        [(10, R), (41, R), (102, R)],
    ),
    "silence is first only suspect": (SILENT, State.RUNNING, []),
    "confirmed silence ends it": ([*SILENT, alive(115, silent_s=91.0)], State.STOPPING, [(115, T)]),
    "a heartbeat clears the suspicion": (
        [*SILENT, alive(112, silent_s=0.0), alive(115, silent_s=91.0)],
        State.RUNNING,
        [],
    ),
    "silence that ended in death waits": (
        [*SILENT, alive(115, silent_s=91.0), dead(116, 0), dead(126, 0)],
        State.STARTING,
        [(115, T), (126, R)],
    ),
    "silent and deaf is killed": (
        [*SILENT, alive(115, silent_s=91.0), alive(129, silent_s=91.0), alive(130, silent_s=91.0)],
        State.STOPPING,
        [(115, T), (130, K)],
    ),
    "nothing heard from anybody proves nothing": (
        [alive(0), *(alive(t, silent_s=None) for t in range(100, 400, 10))],
        State.RUNNING,
        [],
    ),
    "never heard from is silent too": (
        [alive(0, beat=False), *(alive(t, beat=False, silent_s=float(t)) for t in (91, 100, 107))],
        State.STOPPING,
        [(107, T)],
    ),
    "our own sleep confirms nothing": (
        [alive(0), alive(100, silent_s=91.0), alive(4000, silent_s=3900.0)],
        State.RUNNING,
        [],
    ),
    "a clock that ran back stands still": (
        [alive(100), dead(50), dead(60), dead(109.9), dead(110)],
        State.STARTING,
        [(110, R)],
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_history(name: str) -> None:
    history, state, deeds = HISTORIES[name]
    health, done = play(*history)
    if name in {"respawned by hand is adopted", "revived by hand after fatal"}:
        health, _ = step(health, history[-1], RULES)
    assert (health.state, done) == (state, deeds)


def test_without_heartbeats_it_settles() -> None:
    history = [alive(0, beat=False, silent_s=999.0), alive(0.5, beat=False), alive(1.0, beat=False)]
    assert play(*history[:2], rules=QUIET)[0].state is State.STARTING
    assert play(*history, rules=QUIET)[0].state is State.RUNNING


def test_a_service_comes_back_after_exit_0() -> None:
    revive = Rules(backoff_s=(0.5,), revive=True)
    health, deeds = play(alive(0), dead(5, 0), dead(5.5, 0), rules=revive)
    assert (health.state, deeds) == (State.STARTING, [(5.5, Do.RESPAWN)])


def test_restart_on_request_drains_and_is_not_counted() -> None:
    health, _ = play(alive(0), alive(1))
    health, do = restart(health, 2, RULES)
    assert (health.state, do) == (State.STOPPING, Do.TERMINATE)
    health, do = step(health, alive(31), RULES)
    assert do is Do.NOTHING
    health, do = step(health, dead(31.5, 1), RULES)
    assert (health.state, health.restarts, do) == (State.STARTING, 0, Do.RESPAWN)


def test_restart_on_request_kills_what_does_not_drain() -> None:
    health, _ = restart(play(alive(0), alive(1))[0], 2, RULES)
    assert step(health, alive(32), RULES)[1] is Do.KILL


@pytest.mark.parametrize(
    "history",
    [
        [alive(0), dead(5, 0)],
        [alive(0), dead(5)],
        [*(dead(t) for t in (0, 10, 11, 41, 42, 102, 103))],
    ],
    ids=["exited", "backoff", "fatal"],
)
def test_restart_on_request_revives_at_once(history: list[Seen]) -> None:
    health, do = restart(play(*history)[0], 200, RULES)
    assert (health.state, health.restarts, do) == (State.STARTING, 0, Do.RESPAWN)


def test_each_window_has_its_own_wait() -> None:
    """One that waits leaves the others' states as they were: `step` knows only one window."""
    waits, _ = play(alive(0), dead(5))
    runs, _ = play(alive(0), alive(5))
    assert (waits.state, runs.state) == (State.BACKOFF, State.RUNNING)
    assert step(runs, dead(6), RULES)[0].until_s == 16
