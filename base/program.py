"""What every process of ours does the same way: start, watch its tasks, stop.

Exit codes: 0 stopped on request, 1 died, 2 settings are wrong, 75 somebody else has the post.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

from base import log, pulse, secrets
from base.errors import AIError, SettingsError
from base.redact import redact
from base.settings import Settings, load
from base.terminal import neutral

EXIT_DIED = 1
EXIT_SETTINGS = 2
EXIT_POST_TAKEN = 75

#: After how many new objects garbage is looked for: Python's own numbers. `base` sets others.
GARBAGE = (700, 10, 10)

Main = Callable[[Settings, asyncio.Event], Awaitable[int | None]]


def prepare(settings: Settings) -> Path:
    """Make the home's folders and read its secrets; the folder of the logs."""
    settings.prepare()
    secrets.prime(settings)
    return settings.logs


def run(process: str, main: Main, *, prepare: Callable[[Settings], Path] = prepare) -> NoReturn:
    """Load settings, send logs to `logs/<process>.log`, run `main(settings, stop)`, exit.

    SIGTERM and SIGINT set `stop`; a second one exits at once. `main` returns an exit code or
    None for 0. An AIError ends the process with one line on stderr and code 1. prepare: what is
    made ready before; it says in which folder the logs are.
    """
    try:
        settings = load()
        logs = prepare(settings)
    except SettingsError as error:
        sys.exit(_complain(process, error, EXIT_SETTINGS))
    log.start(process, logs, settings.log_level)
    logger = log.get(process)
    gc.freeze()  # what is loaded stays: looking for garbage in it again and again finds none
    gc.set_threshold(*GARBAGE)

    async def _run() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop_once, loop, number, stop)
        return await main(settings, stop) or 0

    try:
        code = asyncio.run(_run())
    except AIError as error:
        logger.error("died", error=str(error))
        code = _complain(process, error, EXIT_DIED)
    except Exception:
        logger.exception("died")
        print(neutral(redact(traceback.format_exc())), file=sys.stderr, end="")
        code = EXIT_DIED
    leave(code)


async def watch(stop: asyncio.Event, **tasks: Coroutine[Any, Any, Any]) -> None:
    """Run the named coroutines until `stop` is set or one of them ends; then cancel the rest.

    One that ends by itself sets `stop`; one that raised, raises here (the first by time). Cancelled
    itself, it cancels them too. systemd is told that it is ready now, and then that the event loop
    turns, unless a task named `pulse` does that by the work itself.
    """
    pulse.ready()
    if pulse.watchdog_s() and "pulse" not in tasks:
        tasks["pulse"] = pulse.keep(_turn)
    named = {asyncio.create_task(task, name=name) for name, task in tasks.items()}
    stopper = asyncio.create_task(stop.wait(), name="stop")
    done: set[asyncio.Task[Any]] = set()
    try:
        done, _ = await asyncio.wait({*named, stopper}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        pending = {*named, stopper} - done
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()


def leave(code: int) -> NoReturn:
    """Exit, without the taking apart of all that was loaded: it costs up to a second of a
    processor, and the kernel frees the same at once. A daemon thread that is in native code
    meanwhile would abort it, too. What was asked to be done at exit is done.
    """
    others = [one for one in threading.enumerate() if one is not threading.current_thread()]
    if others and not any(thread.daemon for thread in others):
        sys.exit(code)  # which waits for them
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it any more
            stream.flush()
    os._exit(code)


async def _turn() -> None:
    """Nothing but a turn of the event loop."""


def _stop_once(loop: asyncio.AbstractEventLoop, number: int, stop: asyncio.Event) -> None:
    stop.set()
    pulse.stopping()
    loop.remove_signal_handler(number)


def _complain(process: str, error: Exception, code: int) -> int:
    print(f"{process}: {neutral(redact(str(error)))}", file=sys.stderr)
    return code
