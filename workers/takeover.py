"""A compiled graph takes over short texts: built in the background, kept, tried, and timed.

Nothing waits for it, and whatever goes wrong, the layers stay as they are. What is kept lies in
`cache/graphs` of the home: KEY.pt2; KEY.lock, held while one worker builds; KEY.tries, a byte for
each build that was begun; KEY.trial, there while it runs for the first time in a process.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from base import log
from base.settings import Settings
from workers import graph
from workers.batch import Core
from workers.device import Device
from workers.encoder_bert import Bert
from workers.folder import Recipe
from workers.tokens import Ids

TRIES = 2
BUILD_S = 1_800.0
#: After a start all that starts wants the cores, and then come the first tasks.
SETTLED_S = 60.0
#: Between looks whether another worker has built it.
LOOK_S = 10.0
NEAR = 0.9995
#: It must take less than this of the time.
GAIN = 0.9
TRIED_TOKENS, ROUNDS = (5, 13, 20, 33), 8

logger = log.get("graph")


async def take_over(
    settings: Settings, recipe: Recipe, bert: Bert, core: Core, device: Device
) -> None:
    """Returns when the graph has taken over or will not in this process; the log says which."""
    if settings.embed_compile == "off" or not (
        device.name == "cpu" and device.dtype == "bf16" and device.fast
    ):
        return
    path = settings.home / "cache" / "graphs" / f"{graph.key(recipe)}.pt2"
    try:
        if why := await _missing(settings, path):
            logger.info("no compiled graph", why=why)
            return
        await _adopt(path, bert, core, device)
    except Exception as error:  # whatever it is: texts are embedded without
        logger.warning("no compiled graph", why=str(error).partition("\n")[0])


async def _missing(settings: Settings, path: Path) -> str:
    """Why there is no graph, after trying to build it; "" when it is there."""
    trial = path.with_suffix(".trial")
    if trial.exists():  # the process that tried it did not live to say how it went
        path.unlink(missing_ok=True)
        trial.unlink()
    if path.is_file():
        return ""
    if graph.compiler() is None:
        return "no C++ compiler is on PATH"
    await asyncio.sleep(SETTLED_S)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_suffix(".lock").open("ab") as lock:
        while not _locked(lock.fileno()):
            await asyncio.sleep(LOOK_S)
        if path.is_file():
            return ""
        tries = path.with_suffix(".tries")
        begun = tries.stat().st_size if tries.exists() else 0
        if begun >= TRIES:
            return f"{begun} builds failed; remove {tries} to have another"
        with tries.open("ab") as file:  # now: one that is killed was a try too
            file.write(b".")
        try:
            return await _built(settings, path)
        except asyncio.CancelledError:
            os.truncate(tries, begun)  # told to stop: no fault of the build
            raise


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _built(settings: Settings, path: Path) -> str:
    """Build it in a process of the lowest priority; why it failed, or ""."""
    logger.info("builds a compiled graph", file=str(path))
    began_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "workers.graph", settings.embed_model, str(path),
        cwd=Path(__file__).parent.parent, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    told = b""
    try:
        async with asyncio.timeout(BUILD_S):
            _, told = await process.communicate()
    except TimeoutError:
        return f"the build took more than {BUILD_S:.0f} s"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # the compiler too
            await process.wait()
    if process.returncode or not path.is_file():
        last = told.decode(errors="replace").strip().rpartition("\n")[2]
        return f"the build ended with {process.returncode}: {last[:300]}"
    logger.info("built a compiled graph", seconds_s=round(time.monotonic() - began_s))
    return ""


async def _adopt(path: Path, bert: Bert, core: Core, device: Device) -> None:
    """Put it in place if it computes the same in less time. Batches go on in between."""
    trial = path.with_suffix(".trial")
    trial.touch()
    try:
        run = await core.call(partial(graph.load, path, device.lanes))
        near = min([await core.call(partial(_near, bert, run, one)) for one in TRIED_TOKENS])
        eager_s, graph_s = list[float](), list[float]()
        for _ in range(ROUNDS):
            for one, took_s in ((None, eager_s), (run, graph_s)):
                took_s.append(await core.call(partial(_timed, bert, one, device)))
    except RuntimeError:  # damaged: the next start builds it anew
        path.unlink(missing_ok=True)
        raise
    finally:
        trial.unlink(missing_ok=True)
        core.wake()  # its threads may rest again
    kept = near >= NEAR and min(graph_s) < GAIN * min(eager_s)
    bert.graph = run if kept else None
    logger.info(
        "compiled graph", kept=kept, eager_ms=round(min(eager_s) * 1000, 2),
        graph_ms=round(min(graph_s) * 1000, 2), cosine=round(near, 5),
    )  # fmt: skip


def _near(bert: Bert, run: graph.Run, tokens: int) -> float:
    """The smallest cosine between the states of both."""
    with torch.inference_mode():
        eager = bert.forward([_text(bert, tokens)], [tokens], None)[:tokens]
        found = bert.forward([_text(bert, tokens)], [tokens], run)
        return functional.cosine_similarity(eager.float(), found.float()).min().item()


def _timed(bert: Bert, run: graph.Run | None, device: Device) -> float:
    """Seconds of this thread for a text of each length."""
    device.share(1, 1)
    began_s = time.thread_time()
    with torch.inference_mode():
        for tokens in TRIED_TOKENS:
            bert.forward([_text(bert, tokens)], [tokens], run)
    return time.thread_time() - began_s


def _text(bert: Bert, tokens: int) -> Ids:
    return np.arange(tokens, dtype=np.int64) * 97 % bert.vocabulary
