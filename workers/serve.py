"""`python -m workers embed score`: the services of one process, on one bus and one core."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from base import log, program, pulse, streams
from base.bus import Bus
from base.errors import ConflictError
from base.settings import Settings

if TYPE_CHECKING:
    from workers.batch import Core
    from workers.device import Device

#: Workers of one machine that share a home.
SLOTS = 64

logger = log.get("workers")

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Ground:  # mutable: what is loaded is kept
    """What the services of a process share. Nothing of torch is loaded before it is asked for."""

    settings: Settings
    bus: Bus

    @cached_property
    def device(self) -> Device:
        from workers import device

        return device.choose(self.settings.embed_device, self.settings.embed_dtype)

    @cached_property
    def core(self) -> Core:
        from workers.batch import Core

        return Core(self.device)

    @property
    def loaded(self) -> bool:
        return "core" in self.__dict__


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A service after its warm-up. `about`: in words, for the line on stdout and the log; `then`:
    what makes it better while it answers.
    """

    answer: Answer
    concurrency: int
    about: dict[str, Any]
    then: Callable[[], Coroutine[Any, Any, None]] | None = None


async def embed(ground: Ground) -> Ready:
    from workers.embed import CONCURRENCY, Embed, Model

    settings = ground.settings
    model: Model
    then = None
    if settings.embed_model.startswith("openai:"):
        from workers.embed_openai import OpenAI

        model = await OpenAI.open(settings)
    else:
        from workers.embed_local import Local

        model = local = await Local.open(settings, ground.core, ground.device)
        then = partial(local.improve, settings)
    about = {"model": model.name, "dim": model.dim}
    answer = Embed(ground.bus, model).answer
    return Ready(answer=answer, concurrency=CONCURRENCY, about=about, then=then)


async def score(ground: Ground) -> Ready:
    from workers.score import CONCURRENCY, Score, embed_over

    found = Score(ground.core, ground.device, ground.settings, embed_over(ground.bus))
    return Ready(answer=found.answer, concurrency=CONCURRENCY, about={})


async def listen(ground: Ground) -> Ready:
    from workers.listen import CONCURRENCY, Listen

    found = await Listen.open(ground.settings, ground.core, ground.device)
    return Ready(answer=found.answer, concurrency=CONCURRENCY, about={"model": found.name})


OPENERS: dict[str, Callable[[Ground], Awaitable[Ready]]] = {
    streams.SERVICE_EMBED: embed,
    streams.SERVICE_SCORE: score,
    streams.SERVICE_LISTEN: listen,
}


def main(names: Sequence[str]) -> program.Main:
    """What runs these services until told to stop; each answers from when it is warm."""

    async def run(settings: Settings, stop: asyncio.Event) -> None:
        began_s = time.monotonic()
        name, _slot = slot(settings.run)
        bus = await Bus.open(settings.redis, name)
        try:
            ground = Ground(settings=settings, bus=bus)
            tasks: dict[str, Coroutine[Any, Any, Any]] = {}
            answers: list[Answer] = []
            for service in names:
                ready = await OPENERS[service](ground)
                answers.append(ready.answer)
                tasks[service] = bus.serve(service, ready.answer, concurrency=ready.concurrency)
                if ready.then:
                    tasks[f"{service}, then"] = _then(ready.then)
                took_s = round(time.monotonic() - began_s, 2)
                logger.info("ready", service=service, seconds_s=took_s, **ready.about)
                about = " ".join(f"{key}={value}" for key, value in ready.about.items())
                print(f"READY {service} after {took_s} s {about}".rstrip(), flush=True)
            if ground.loaded:
                tasks["core"] = ground.core.run()
            pulse.ready(f"answers {' and '.join(names)}")
            await program.watch(stop, **tasks, pulse=pulse.keep(partial(_turn, answers)))
        finally:
            await bus.close()

    return run


async def _then(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """The work, and no end: what ends, ends the process."""
    await work()
    await asyncio.Event().wait()


async def _turn(answers: Sequence[Answer]) -> None:
    """One question to each service. The compute thread is let sleep: waking it costs memory."""
    for answer in answers:
        await answer({"verb": "info"})


def slot(run: Path) -> tuple[str, IO[bytes]]:
    """A name on the bus that no other living worker of this home has; held while the file is.

    The same names come again after a restart, so that groups do not collect dead consumers.
    """
    for number in range(SLOTS):
        file = (run / f"workers-{number}.lock").open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        return f"workers-{socket.gethostname()}-{number}", file
    raise ConflictError(f"{SLOTS} workers run for this home already")
