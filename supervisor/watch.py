"""The watchdog: looks at every window, keeps what should run running, and says what it did.

A program's death wakes it at once (a pidfd), a lost tmux server too; a look every few seconds
is the net. It owns nothing that runs: after its own restart it adopts every living window, and
when it stops, nothing else does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from base import log, pulse
from base.errors import ConflictError, InputError, UnknownAgentError, WindowsError
from base.messages import Event, Kind
from base.program import watch as together
from base.settings import Settings
from supervisor import health, layout
from supervisor.health import Do, Health, Rules, Seen, State
from supervisor.layout import WATCH
from supervisor.load import Load, measure
from supervisor.vitals import Vitals
from supervisor.wake import Wake
from supervisor.windows import Pane, Presence, Program, Sight, Windows

logger = log.get("watch")

LOOK_S = 10.0
#: A session is taken for gone after so many looks in a row, this far apart.
ABSENT_LOOKS, ABSENT_LOOK_S = 2, 0.5
#: Loads are measured at most so often.
LOAD_S = 5.0
#: States in which nothing runs and only a person, or time, starts it again.
DOWN = frozenset({State.BACKOFF, State.EXITED, State.FATAL})
#: What an event says about a state that people should hear of.
TELL = {State.BACKOFF: "offline", State.EXITED: "offline", State.FATAL: "error"}


class Crew:
    """One session and what is known of its windows. `rebuild`: open all when it is gone."""

    def __init__(
        self,
        windows: Windows,
        programs: Callable[[], tuple[Program, ...]],
        rules: Callable[[Program], Rules],
        *,
        rebuild: bool,
    ) -> None:
        self.windows = windows
        self.programs = programs
        self.rules = rules
        self.rebuild = rebuild
        self.health: dict[str, Health] = {}
        self.panes: Mapping[str, Pane] = {}
        self.marked: dict[str, str] = {}
        self.absent_looks = 0
        self.unknown = ""


async def main(settings: Settings, stop: asyncio.Event) -> int | None:
    """Watch until `stop`; what runs in the windows runs on."""
    await together(stop, **Watchdog(settings, crews(settings)).tasks())
    logger.info("stopped")
    return 0


def crews(settings: Settings) -> tuple[Crew, ...]:
    """The services first: without them nothing else gets far."""
    rules = partial(layout.rules, settings)

    def services() -> tuple[Program, ...]:
        return tuple(program for program in layout.services(settings) if program.name != WATCH)

    agents = Crew(layout.agents_session(settings), layout.Watched(settings), rules, rebuild=True)
    if settings.appliance:
        return (agents,)
    return Crew(layout.services_session(settings), services, rules, rebuild=False), agents


class Watchdog:
    """Ties looks, decisions and deeds together for every crew."""

    def __init__(self, settings: Settings, crews: tuple[Crew, ...]) -> None:
        self._settings = settings
        self._crews = crews
        self._wake = Wake()
        self._look_s = min(LOOK_S, settings.heartbeat_s)
        self._vitals = Vitals(settings, self._answer)
        self._vitals.changed = self._wake.soon
        self._lock = asyncio.Lock()
        self._loads: dict[str, Load] = {}
        self._loaded_s = float("-inf")

    def tasks(self) -> dict[str, Any]:
        # The look beats for systemd, and nothing else may.
        pulse_by_look = asyncio.Event().wait()
        return {"look": self._look_on(), "pulse": pulse_by_look, **self._vitals.tasks()}

    async def _look_on(self) -> None:
        logger.info("started", pid=os.getpid())
        pulse.ready("watches the agents")
        try:
            while True:
                async with self._lock:
                    for crew in self._crews:
                        await self._tend(crew)
                await self._weigh()
                pulse.beat()
                self._vitals.write(self._windows())
                await self._wake.wait(self._pause_s())
        finally:
            self._wake.close()

    def _pause_s(self) -> float:
        """Until the next look: sooner when a wait ends, a start settles or a session is gone."""
        now_s = time.monotonic()
        pause_s = self._look_s
        for crew in self._crews:
            if crew.absent_looks:
                pause_s = min(pause_s, ABSENT_LOOK_S)
            for state in crew.health.values():
                if state.state in {State.BACKOFF, State.STOPPING}:
                    pause_s = min(pause_s, state.until_s - now_s)
                elif state.state is State.STARTING:
                    pause_s = min(pause_s, 1.0)
        return max(0.05, pause_s)

    async def _tend(self, crew: Crew) -> None:
        sight = await crew.windows.look()
        if sight.presence is Presence.UNKNOWN:
            if crew.unknown != sight.reason:
                logger.warning("could not look", session=crew.windows.session, error=sight.reason)
            crew.unknown, crew.absent_looks = sight.reason, 0
            return
        crew.unknown = ""
        if sight.presence is Presence.ABSENT:
            await self._absent(crew)
            return
        crew.absent_looks, crew.panes = 0, sight.panes
        self._wake.on_exit(crew.windows.session, _pids(sight))
        programs = crew.programs()
        for gone in crew.health.keys() - {program.name for program in programs}:
            del crew.health[gone]
        for program in programs:
            await self._judge(crew, program)
        await self._mark(crew)

    async def _absent(self, crew: Crew) -> None:
        crew.absent_looks += 1
        if crew.absent_looks < ABSENT_LOOKS or not crew.rebuild:
            return
        if crew.health:
            logger.warning("lost a session", session=crew.windows.session)
        now_s = time.monotonic()
        crew.health = {
            name: Health.fresh(now_s, known.restarts) for name, known in crew.health.items()
        }
        crew.marked.clear()
        try:
            await crew.windows.open(*crew.programs())
        except WindowsError as error:
            logger.error("could not open a session", error=str(error))
            return
        crew.absent_looks = 0
        self._wake.soon()
        logger.info("opened a session", session=crew.windows.session)

    async def _judge(self, crew: Crew, program: Program) -> None:
        now_s = time.monotonic()
        known = crew.health.get(program.name) or Health.fresh(now_s)
        seen = self._seen(program, crew.panes.get(program.name), known, now_s)
        found, do = health.step(known, seen, crew.rules(program))
        await self._apply(crew, program, known, found, do)

    def _seen(self, program: Program, pane: Pane | None, known: Health, now_s: float) -> Seen:
        if pane is None:
            return Seen(at_s=now_s)
        beat_s = self._vitals.beat_s(program.name, pane.pid) if program.beats else None
        since_s = known.started_s if pane.pid == known.pid else now_s
        heard_s = self._vitals.heard_since_s
        silent_s = None if heard_s is None else now_s - max(heard_s, since_s, beat_s or 0.0)
        return Seen(
            at_s=now_s,
            pid=pane.pid,
            dead=pane.dead,
            exit_code=pane.exit_code,
            beat=beat_s is not None,
            silent_s=silent_s,
        )

    async def _apply(
        self, crew: Crew, program: Program, known: Health, found: Health, do: Do
    ) -> None:
        crew.health[program.name] = found
        pane = crew.panes.get(program.name)
        if found.state is not known.state:
            await self._report(crew, program, pane, known, found)
        try:
            if do is Do.RESPAWN:
                await crew.windows.respawn(program, pane)
                self._wake.soon()
            elif do is not Do.NOTHING and pane is not None:
                number = signal.SIGTERM if do is Do.TERMINATE else signal.SIGKILL
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pane.pid, number)
        except WindowsError as error:
            logger.error("could not respawn", agent=program.name, error=str(error))

    async def _report(
        self, crew: Crew, program: Program, pane: Pane | None, known: Health, found: Health
    ) -> None:
        said = logger.bind(agent=program.name, state=found.state.value, pid=found.pid)
        if found.state in TELL:
            words = await crew.windows.last_words(pane) if pane else ""
            said.warning(
                "ended",
                exit_code=found.exit_code,
                restarts=found.restarts,
                last_words=words[-400:].replace("\n", " / "),
            )
            data = {
                "status": TELL[found.state],
                "paused": False,
                "task_id": None,
                "state": found.state.value,
                "exit_code": found.exit_code,
                "restarts": found.restarts,
            }
            self._vitals.tell(Event(kind=Kind.AGENT, agent=program.name, data=data))
        elif found.state is State.RUNNING and known.state is State.STARTING:
            said.info("running")
        else:
            said.info("changed", was=known.state.value)

    async def _mark(self, crew: Crew) -> None:
        """Show in the status line every state but the good ones."""
        shown: dict[str, str] = {}
        for name, known in crew.health.items():
            word = "" if known.state in {State.RUNNING, State.STARTING} else known.state.upper()
            if name in crew.panes and crew.marked.get(name, "") != word:
                shown[crew.panes[name].target] = word
            crew.marked[name] = word
        try:
            await crew.windows.mark(shown)
        except WindowsError as error:
            logger.warning("could not mark windows", error=str(error))

    async def _weigh(self) -> None:
        now_s = time.monotonic()
        if now_s - self._loaded_s >= LOAD_S:
            self._loaded_s = now_s
            pids = {
                name: known.pid
                for crew in self._crews
                for name, known in crew.health.items()
                if known.pid and known.state not in DOWN
            }
            self._loads = await asyncio.to_thread(measure, pids)

    def _load(self, name: str, known: Health) -> dict[str, Any]:
        load = None if known.state in DOWN else self._loads.get(name)
        return {
            "cpu_percent": load.cpu_percent if load else None,
            "rss_bytes": load.rss_bytes if load else None,
        }

    def _windows(self) -> dict[str, dict[str, Any]]:
        unix_s, now_s = time.time(), time.monotonic()
        return {
            name: {
                "session": crew.windows.session,
                "state": known.state.value,
                "restarts": known.restarts,
                "pid": known.pid or None,
                "exit_code": known.exit_code,
                "since": round(unix_s - (now_s - known.since_s), 3),
                **self._load(name, known),
            }
            for crew in self._crews
            for name, known in crew.health.items()
        }

    async def _answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The asks `restart`, `start` and `windows` of service `watch`."""
        verb = payload.get("verb")
        if verb == "windows":
            return self._windows()
        if verb in {"restart", "start"}:
            name = str(payload.get("agent") or payload.get("name") or "")
            await self._restart(name, only_down=verb == "start")
            return {"ok": True}
        raise InputError(f"watch knows restart, start and windows, not {verb!r}")

    async def _restart(self, name: str, *, only_down: bool) -> None:
        async with self._lock:
            for crew in self._crews:
                for program in crew.programs():
                    if program.name == name:
                        now_s = time.monotonic()
                        known = crew.health.get(name) or Health.fresh(now_s)
                        if only_down and known.state not in DOWN:
                            raise ConflictError(f"{name} is {known.state} already")
                        found, do = health.restart(known, now_s, crew.rules(program))
                        logger.info("was asked to restart", agent=name)
                        await self._apply(crew, program, known, found, do)
                        self._wake.soon()
                        return
        raise UnknownAgentError(name, tuple(self._windows()))


def _pids(sight: Sight) -> set[int]:
    pids = {pane.pid for pane in sight.panes.values() if not pane.dead}
    return pids | ({sight.server_pid} if sight.server_pid else set())
