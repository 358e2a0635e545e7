"""Which program runs in which window of which session, and how patient the watchdog is."""

from __future__ import annotations

import sys

from base import roster
from base.settings import Settings
from supervisor.health import Rules
from supervisor.windows import Program, Windows

AGENTS_SESSION = "ai-infrastructure"
SERVICES_SESSION = "ai-services"
REDIS, POSTGRES, REHEARSAL, PORTAL, WATCH = "redis", "postgres", "rehearsal", "portal", "watch"
WORKERS, LISTEN, MEMORY = "workers", "listen", "memory"
SUPERVISOR, MONITOR, LOGS = "supervisor", "monitor", "logs"
#: The services that are programs of ours, as the window `logs` shows them.
OURS = (PORTAL, MEMORY, WORKERS, LISTEN, WATCH)
#: Windows 1..5 are the seed plan's agents; monitor and logs have fixed places after them.
MONITOR_INDEX, LOGS_INDEX = 6, 7
#: Silence for so many heartbeats is suspect; so many more confirm it.
STALE_BEATS, CONFIRM_BEATS = 9, 1.5
#: A service that died comes back almost at once the first time.
SERVICE_FIRST_S = 0.5

#: Nobody watches the watchdog but this loop, which costs nothing; SIGTERM ends both.
KEEP = """trap 'kill $!; wait $!; exit 0' TERM
while :; do "$@" & wait $!; sleep 3 & wait $!; done"""


def agents_session(settings: Settings) -> Windows:
    return Windows(settings.tmux_socket, AGENTS_SESSION, settings.run)


def services_session(settings: Settings) -> Windows:
    return Windows(settings.services_socket, SERVICES_SESSION, settings.run)


def agents(settings: Settings) -> tuple[Program, ...]:
    """Windows of the agents' session, in order: 0 supervisor, the shipped agents, 6 monitor,
    7 logs, then the owner's agents from 8 on.
    """
    names = tuple(roster.load(settings).agents)
    places = [index for index in range(1, 100) if index not in {MONITOR_INDEX, LOGS_INDEX}]
    shipped = [name for name in roster.SHIPPED_ORDER if name in names]
    more = [name for name in names if name not in shipped]
    index_of = dict(zip(shipped, places, strict=False))
    index_of |= dict(zip(more, range(LOGS_INDEX + 1, 100), strict=False))
    ours = [name for name in OURS if name != LISTEN or settings.whisper_model]
    logs = [settings.logs / f"{name}.log" for name in (SUPERVISOR, *names, *ours)]
    found = [
        Program(name=SUPERVISOR, index=0, command=_python("supervisor"), beats=True),
        *(
            Program(name=name, index=index, command=_python("agents", name), beats=True)
            for name, index in index_of.items()
        ),
        Program(
            name=MONITOR,
            index=MONITOR_INDEX,
            command=_python("supervisor.monitor", str(settings.run)),
            revive=True,
        ),
        Program(
            name=LOGS,
            index=LOGS_INDEX,
            command=("tail", "-n", "20", "-F", *map(str, logs)),
            revive=True,
        ),
    ]
    return tuple(sorted(found, key=lambda program: program.index or 0))


def services(settings: Settings) -> tuple[Program, ...]:
    """Windows of the services' session, in the order in which they start. The workers load the
    longest, so they begin before what they do not need. The appliance has none: systemd runs them.
    """
    if settings.appliance:
        return ()
    wanted = {
        REDIS: settings.redis_url is None,
        POSTGRES: settings.postgres_dsn is None,
        WORKERS: settings.local_workers,
        LISTEN: settings.local_workers and settings.whisper_model is not None,
        REHEARSAL: settings.rehearsal,
        MEMORY: True,
        PORTAL: True,
        WATCH: True,
    }
    commands = {
        REDIS: _python("supervisor", "redis"),
        POSTGRES: _python("supervisor", "postgres"),
        WORKERS: _python("workers", "embed", "score"),
        LISTEN: _python("workers", "listen"),
        REHEARSAL: _python("workers", "rehearsal"),
        MEMORY: _python("pai"),
        PORTAL: _python("portal"),
        WATCH: ("sh", "-c", KEEP, "keep", *_python("supervisor", "watch")),
    }
    return tuple(
        Program(name=name, command=commands[name], revive=True)
        for name, here in wanted.items()
        if here
    )


def rules(settings: Settings, program: Program) -> Rules:
    """The patience with one program, from the settings."""
    backoff_s = settings.restart_backoff_s
    if program.revive and backoff_s:
        backoff_s = (min(SERVICE_FIRST_S, backoff_s[0]), *backoff_s[1:])
    return Rules(
        backoff_s=backoff_s,
        stable_s=settings.stable_s,
        stale_s=STALE_BEATS * settings.heartbeat_s if program.beats else None,
        confirm_s=CONFIRM_BEATS * settings.heartbeat_s,
        drain_s=settings.drain_s,
        post_retry_s=max(backoff_s, default=60.0),
        revive=program.revive,
    )


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


class Watched:
    """The agents' programs, read anew when the owner's folder of agents changed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stamp = -1
        self._programs: tuple[Program, ...] = ()

    def __call__(self) -> tuple[Program, ...]:
        folder = self._settings.config / "agents"
        stamp = folder.stat().st_mtime_ns if folder.is_dir() else 0
        if stamp != self._stamp:
            self._stamp, self._programs = stamp, agents(self._settings)
        return self._programs
