"""When a window's program is well, and what to do when it is not: pure decisions.

    STARTING ──beats or settles──▶ RUNNING
        │ died                        │ died │ silent, confirmed │ asked
        ▼                             ▼      ▼                   ▼
    BACKOFF ◀─────────────────────────┴── STOPPING ──stopped──▶ EXITED, or STARTING if wanted
        │ waited ▶ STARTING    no restarts left ▶ FATAL         code 0 by itself ▶ EXITED

One `Health` a window, so that one that waits never delays another. Times are seconds on the
watchdog's monotonic clock; the caller leaves `step` out when it knows nothing (unknown).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from base.program import EXIT_POST_TAKEN


class State(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    EXITED = "exited"
    FATAL = "fatal"


class Do(StrEnum):
    """What the caller shall do to the window now."""

    NOTHING = "nothing"
    RESPAWN = "respawn"
    TERMINATE = "terminate"
    KILL = "kill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How patient to be with one window.

    backoff_s: waits before each restart; one more death than there are waits is FATAL.
    stable_s: after so long the restarts are forgotten. stale_s: silence that is suspect;
    None for a program that sends no heartbeats. confirm_s: how long silence must go on being
    seen before it is acted on. settle_s: alive for so long is RUNNING (without heartbeats).
    drain_s: from TERMINATE to KILL. post_retry_s: wait after exit 75, never counted.
    revive: restart after code 0 as well.
    """

    backoff_s: tuple[float, ...] = (10.0, 30.0, 60.0)
    stable_s: float = 300.0
    stale_s: float | None = None
    confirm_s: float = 15.0
    settle_s: float = 1.0
    drain_s: float = 30.0
    post_retry_s: float = 60.0
    revive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look at a window. pid None: the window itself is gone.

    beat: a heartbeat of this very pid was heard. silent_s: since the last one, or since there
    could have been one; None when heartbeats cannot be heard at all just now.
    """

    at_s: float
    pid: int | None = None
    dead: bool = False
    exit_code: int | None = None
    beat: bool = False
    silent_s: float | None = None

    @property
    def alive(self) -> bool:
        return self.pid is not None and not self.dead


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is known of a window. since_s: when `state` began; started_s: when this pid was
    first seen; until_s: the end of a wait (BACKOFF: restart, STOPPING: kill).

    restarts: failures since it was last stable. pid None: never seen; 0: just respawned.
    """

    state: State = State.STARTING
    at_s: float = 0.0
    since_s: float = 0.0
    started_s: float = 0.0
    until_s: float = 0.0
    restarts: int = 0
    pid: int | None = None
    exit_code: int | None = None
    suspect_s: float | None = None
    wanted: bool = True
    failed: bool = False

    @classmethod
    def fresh(cls, now_s: float, restarts: int = 0) -> Health:
        """Nothing seen yet: what lives is adopted, what is missing is opened at once."""
        return cls(at_s=now_s, since_s=now_s, started_s=now_s, restarts=restarts)


def step(health: Health, seen: Seen, rules: Rules) -> tuple[Health, Do]:
    """The next state, and what to do. A clock that ran backwards stands still instead."""
    now_s = max(seen.at_s, health.at_s)
    if health.suspect_s is not None and now_s - health.at_s > 2 * rules.confirm_s:
        health = replace(health, suspect_s=None)  # we slept ourselves: silence proves nothing
    health = replace(health, at_s=now_s)
    if not seen.alive:
        return _down(health, seen, rules)
    if seen.pid != health.pid or health.state in {State.BACKOFF, State.EXITED, State.FATAL}:
        return _adopt(health, seen), Do.NOTHING
    if health.state is State.STOPPING:
        if now_s < health.until_s:
            return health, Do.NOTHING
        return replace(health, until_s=now_s + rules.drain_s), Do.KILL
    return _up(health, seen, rules)


def restart(health: Health, now_s: float, rules: Rules) -> tuple[Health, Do]:
    """A person wants it stopped and started again; counts as a clean start, also from FATAL."""
    now_s = max(now_s, health.at_s)
    health = replace(health, restarts=0, wanted=True, failed=False)
    if health.state in {State.STARTING, State.RUNNING} and health.pid:
        until_s = now_s + rules.drain_s
        return _enter(health, State.STOPPING, now_s, until_s=until_s), Do.TERMINATE
    if health.state is State.STOPPING:
        return health, Do.NOTHING
    return _respawn(health, now_s)


def _up(health: Health, seen: Seen, rules: Rules) -> tuple[Health, Do]:
    now_s = health.at_s
    lived_s = now_s - health.started_s
    if health.state is State.STARTING and (
        seen.beat if rules.stale_s is not None else lived_s >= rules.settle_s
    ):
        health = _enter(health, State.RUNNING, now_s)
    if health.state is State.RUNNING and health.restarts and lived_s >= rules.stable_s:
        health = replace(health, restarts=0)
    silent = seen.silent_s is not None and rules.stale_s is not None
    if not silent or seen.silent_s <= rules.stale_s:  # type: ignore[operator]
        return replace(health, suspect_s=None), Do.NOTHING
    if health.suspect_s is None:
        return replace(health, suspect_s=now_s), Do.NOTHING
    if now_s - health.suspect_s < rules.confirm_s:
        return health, Do.NOTHING
    health = _enter(health, State.STOPPING, now_s, until_s=now_s + rules.confirm_s)
    return replace(health, wanted=True, failed=True, suspect_s=None), Do.TERMINATE


def _down(health: Health, seen: Seen, rules: Rules) -> tuple[Health, Do]:
    now_s = health.at_s
    health = replace(health, suspect_s=None)
    if health.state in {State.EXITED, State.FATAL}:
        return health, Do.NOTHING
    if health.state is State.BACKOFF:
        return _respawn(health, now_s) if now_s >= health.until_s else (health, Do.NOTHING)
    if seen.pid is None and health.pid is None:
        return _respawn(health, now_s)
    health = replace(health, exit_code=seen.exit_code)
    if health.state is State.STOPPING and not health.failed:
        if health.wanted:
            return _respawn(health, now_s)
        return _enter(health, State.EXITED, now_s), Do.NOTHING
    if seen.exit_code == EXIT_POST_TAKEN:
        return _enter(health, State.BACKOFF, now_s, until_s=now_s + rules.post_retry_s), Do.NOTHING
    clean = seen.pid is not None and seen.exit_code == 0 and not health.failed
    if clean and not rules.revive:
        return _enter(health, State.EXITED, now_s), Do.NOTHING
    stable = health.pid and now_s - health.started_s >= rules.stable_s
    restarts = 0 if stable else health.restarts
    if restarts >= len(rules.backoff_s):
        return replace(_enter(health, State.FATAL, now_s), restarts=restarts), Do.NOTHING
    until_s = now_s + rules.backoff_s[restarts]
    health = _enter(health, State.BACKOFF, now_s, until_s=until_s)
    return replace(health, restarts=restarts + 1, failed=False), Do.NOTHING


def _adopt(health: Health, seen: Seen) -> Health:
    """A program we have not seen before lives in the window: ours by now."""
    health = _enter(health, State.STARTING, health.at_s)
    return replace(
        health, pid=seen.pid, started_s=health.at_s, exit_code=None, suspect_s=None, failed=False
    )


def _respawn(health: Health, now_s: float) -> tuple[Health, Do]:
    health = _enter(health, State.STARTING, now_s)
    return replace(health, pid=0, started_s=now_s, failed=False), Do.RESPAWN


def _enter(health: Health, state: State, now_s: float, *, until_s: float = 0.0) -> Health:
    return replace(health, state=state, since_s=now_s, until_s=until_s)
