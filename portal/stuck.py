"""When an agent is stuck, and on what: one pure rule over what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from base.messages import Wire
from base.plural import counted

STALE_S = 60.0
#: A model may think for a minute and a half before its stream counts as broken.
QUIET_S = 180.0
TOOL_S = 600.0
#: A queue that is shorter is a plan's parts arriving together.
QUEUE_MIN = 3

Kind = Literal[
    "gave up", "stopped", "restarting", "silent", "error", "approval", "paused", "tool", "quiet",
    "queue",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What is known of one agent. Ages in seconds; None: unknown, or there is no such thing.

    window: the watchdog's state of its program. quiet_s: since its last event while busy.
    waiting: pieces of work that wait for it.
    """

    status: str = "idle"
    paused: bool = False
    window: str | None = "running"
    restarts: int = 0
    heartbeat_age_s: float | None = 0.0
    task: bool = False
    quiet_s: float | None = None
    tool_s: float | None = None
    approvals: int = 0
    waiting: int = 0
    queue: int = 0
    queue_before: int | None = None


class Trouble(Wire):
    """Why an agent does not get on. said: the reason; then: what to do. bad: it ends work."""

    kind: Kind
    said: str
    then: str
    bad: bool


def trouble(signs: Signs) -> Trouble | None:
    """The gravest reason why the agent is stuck; None when it is not."""
    return _program(signs) or _person(signs) or _work(signs)


def _program(signs: Signs) -> Trouble | None:
    if signs.window == "fatal":
        said = f"its program died {signs.restarts + 1} times in a row and is not started again"
        return _of("gave up", said, "Look at its log, mend the cause, then start it.", bad=True)
    if signs.window == "exited":
        return _of("stopped", "its program was ended", "Start it when it is wanted.", bad=True)
    if signs.window == "backoff":
        said = f"its program died ({_times(signs.restarts)}) and is started again soon"
        return _of("restarting", said, "Look at its log if it happens again.", bad=True)
    age_s = signs.heartbeat_age_s
    if age_s is None and signs.window != "starting":
        return _of("silent", "it was never heard from", "Start it, or look at its log.", bad=True)
    if age_s is not None and age_s > STALE_S and signs.window != "starting":
        said = f"no heartbeat for {_long(age_s)}"
        return _of("silent", said, "It is restarted by itself; look at its log.", bad=True)
    if signs.status == "error":
        return _of("error", "it reports an error", "Look at its log, then restart it.", bad=True)
    return None


def _person(signs: Signs) -> Trouble | None:
    if signs.approvals:
        said = f"it waits for {counted(signs.approvals, 'approval')}"
        return _of("approval", said, "Answer under Approvals.")
    if signs.paused and (signs.task or signs.waiting):
        count = signs.waiting
        more = counted(count, "piece of work waits", "pieces of work wait")
        said = f"paused while {more if count else 'a task is half done'}"
        return _of("paused", said, "Resume it.")
    return None


def _work(signs: Signs) -> Trouble | None:
    if signs.task and not signs.paused:
        if signs.tool_s is not None:
            if signs.tool_s > TOOL_S:
                said = f"one tool call has run for {_long(signs.tool_s)}"
                return _of("tool", said, "Look into its window; steer or cancel the task.")
        elif signs.quiet_s is not None and signs.quiet_s > QUIET_S:
            said = f"busy, and no sign of work for {_long(signs.quiet_s)}"
            return _of("quiet", said, "Look into its window; steer or cancel the task.")
    before = signs.queue_before
    if before is not None and signs.queue >= QUEUE_MIN and signs.queue > before:
        said = f"its queue grows: {signs.queue}, a minute ago {before}"
        return _of("queue", said, "It has more work than it can do.")
    return None


def _of(kind: Kind, said: str, then: str, *, bad: bool = False) -> Trouble:
    return Trouble(kind=kind, said=said, then=then, bad=bad)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _long(age_s: float) -> str:
    if age_s < 120:
        return f"{age_s:.0f} s"
    return f"{age_s / 60:.0f} min" if age_s < 7_200 else f"{age_s / 3_600:.0f} h"
