"""Lines typed into the agent's window.

They become controls on the bus like anybody else's, so there is one way to steer a task.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import sys
import termios
from collections.abc import Awaitable, Callable

from agents import leave
from agents.parts import Parts
from base import streams
from base.deadline import Deadline
from base.errors import AIError, BusError
from base.messages import Control, Message, Type
from base.plural import counted
from base.terminal import short

HELP = (
    "/pause     stop at the next safe point        /resume  go on\n"
    "/cancel    end the running task               /status  what runs, and its cost\n"
    "/approve [id]  let the agent do what it asks   /deny [id]  do not let it\n"
    "/help      this list                          any other text steers the running task"
)
LINE_MAX_CHARS = 20_000
DECIDE_S = 10.0
ID_MIN = 4
#: A bare /approve this soon after a request came up may have been meant for the one before.
READ_S = 1.0
Say = Callable[[str], Awaitable[None]]


async def listen(parts: Parts, fd: int | None = None) -> None:
    """Obey lines from `fd` (None: standard input) until cancelled; no input is no error."""
    fd = sys.stdin.fileno() if fd is None else fd
    _no_flow_control(fd)
    lines: asyncio.Queue[str] = asyncio.Queue(maxsize=100)
    loop = asyncio.get_running_loop()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""

    def ready() -> None:
        nonlocal rest
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            loop.remove_reader(fd)
            return
        *whole, rest = (rest + decoder.decode(data)).split("\n")
        rest = rest[-LINE_MAX_CHARS:]
        for line in whole:
            with contextlib.suppress(asyncio.QueueFull):
                lines.put_nowait(line)

    try:
        loop.add_reader(fd, ready)
    except (OSError, ValueError):  # a plain file or /dev/null cannot be waited for
        await asyncio.Event().wait()
    try:
        while True:
            await obey(parts, await lines.get())
    finally:
        loop.remove_reader(fd)


async def obey(parts: Parts, line: str) -> None:
    """Do what one line says."""
    text = line.strip()
    if not text:
        return
    task = parts.reins.task
    word = text.split()[0]
    if word == "/help":
        for row in HELP.splitlines():
            parts.transcript.line(row, "2")
    elif word == "/status":
        parts.transcript.line(_status(parts), "2")
    elif word in {"/pause", "/resume"}:
        await _send(parts, Control(verb="pause" if word == "/pause" else "resume"))
    elif word in {"/approve", "/deny"}:
        await _decide(parts, word == "/approve", text.split()[1:])
    elif task is None:
        parts.transcript.line("nothing runs here now", "33")
    elif word == "/cancel":
        await _send(parts, Control(verb="cancel", task_id=task.order.task_id))
    elif word.startswith("/") and word[1:].isalpha() and "/" not in word[1:]:
        parts.transcript.line(f"no command {word}; /help lists them", "33")
    else:
        await _send(parts, Control(verb="steer", task_id=task.order.task_id, text=text))


async def _decide(parts: Parts, approve: bool, ids: list[str]) -> None:
    """Answer the request that is shown; with an id, that one and no other."""
    asked = parts.reins.asked
    if asked is None:
        parts.transcript.line("no permission is asked for here now", "33")
        return
    if len(ids) > 1 or (ids and not (len(ids[0]) >= ID_MIN and asked.id.startswith(ids[0]))):
        parts.transcript.line(f"the one that is asked for now is {asked.id[:8]}", "33")
        return
    if approve and not ids and parts.reins.asked_for_s < READ_S:
        parts.transcript.line("this has only just come: read it, then say it again", "33")
        return
    payload = {
        "verb": "decide",
        "approval_id": asked.id,
        "approve": approve,
        "by": "window",
        "via": "window",
    }
    try:
        await parts.bus.ask(streams.SERVICE_SUPERVISOR, payload, deadline=Deadline.after(DECIDE_S))
    except AIError as error:
        parts.transcript.line(f"not decided: {short(str(error))}", "31")


def control(source: str, agent: str, told: Control) -> Message:
    """A control on its way to `agent`."""
    return Message(
        source=source, target=agent, type=Type.QUERY, payload=told.model_dump(mode="json")
    )


async def _send(parts: Parts, told: Control) -> None:
    name = parts.spec.name
    try:
        await parts.bus.publish(streams.control(name), control(name, name, told))
    except BusError as error:
        parts.transcript.line(f"not sent: {error}", "31")


def _status(parts: Parts) -> str:
    task = parts.reins.task
    paused = " (paused)" if parts.reins.paused else ""
    if task is None:
        return f"idle{paused}"
    spent, phase = task.spent, task.phase or "end"
    asked = parts.reins.asked
    waits = f"; waits for permission {asked.id[:8]}, {leave.left(asked)} left" if asked else ""
    return (
        f"task {task.order.task_id[:8]} in {phase}, round {task.state.round}{paused}; "
        f"{counted(spent.model_calls, 'model call')}, {counted(spent.tokens, 'token')}, "
        f"${spent.cost_usd:.4f}{waits}"
    )


def _no_flow_control(fd: int) -> None:
    """Ctrl-S in the window must not stop the agent."""
    if os.isatty(fd):
        flags = termios.tcgetattr(fd)
        flags[0] &= ~termios.IXON
        termios.tcsetattr(fd, termios.TCSANOW, flags)
