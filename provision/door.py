"""The broker's socket: who may open it, one line in, lines out."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import os
import socket
from pathlib import Path

from base import log
from base.errors import SettingsError
from base.verbs import Said
from provision import peers
from provision.broker import Broker
from provision.rules import Rules
from provision.witness import Deed

MODE = 0o660
ORDER_MAX_BYTES = 256_000
#: How long a line may take to come, and the last word to be taken.
LINE_S = 10.0
CONNECTIONS_MAX = 64
#: Steps that a slow reader does not take are dropped beyond so much.
UNREAD_MAX_BYTES = 1_000_000

logger = log.get("broker")


def held(folder: Path) -> int | None:
    """The lock of the one broker that works on this state; None: another one has it."""
    number = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        return None
    return number


def bound(path: Path, group: str | None) -> socket.socket:
    """A socket at `path` that root and `group` may open. The caller holds the lock, so what lies
    there is nobody's. Raises SettingsError when it cannot be made.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        gid = -1 if group is None else grp.getgrnam(group).gr_gid
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if path.is_socket():
            path.unlink()
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        os.chown(path, -1, gid)
        made.listen(CONNECTIONS_MAX)
        path.chmod(MODE)
    except KeyError as error:
        made.close()
        raise SettingsError([f"broker_group: there is no group {group!r}"]) from error
    except OSError as error:
        made.close()
        raise SettingsError([f"broker: {path}: {error.strerror or error}"]) from error
    return made


class Door:
    """`run` until `stop`; then what is being done may end within `drain_s`."""

    def __init__(self, broker: Broker, rules: Rules, stop: asyncio.Event, drain_s: float) -> None:
        self._broker = broker
        self._rules = rules
        self._stop = stop
        self._drain_s = drain_s
        self._open: set[asyncio.Task[None]] = set()

    async def run(self, here: socket.socket) -> None:
        server = await asyncio.start_unix_server(self._opened, sock=here, limit=ORDER_MAX_BYTES)
        try:
            await self._stop.wait()
        finally:
            server.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._drain_s):
                    await self._broker.idle.wait()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _opened(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection is one order."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= CONNECTIONS_MAX or self._stop.is_set():
            writer.close()
            return
        self._open.add(task)
        try:
            await self._one(reader, writer)
        except (OSError, ValueError, TimeoutError) as error:
            logger.info("connection dropped", error=str(error) or type(error).__name__)
        finally:
            self._open.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        deed = Deed(peer=peers.peer_of(writer.get_extra_info("socket"), self._rules.peers))

        def say(said: Said) -> None:
            if said.done or writer.transport.get_write_buffer_size() < UNREAD_MAX_BYTES:
                writer.write(said.model_dump_json().encode() + b"\n")

        async with asyncio.timeout(LINE_S):
            raw = await reader.readline()
        if not raw:
            return
        work = asyncio.create_task(self._broker.carry_out(raw, deed, say), name=f"order {deed.run}")
        gone = asyncio.create_task(reader.read(1), name="hang-up")
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not deed.begun:
                work.cancel()  # nobody waits for it any more, and it has not begun
            await asyncio.wait({work})
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.wait({work})
            raise
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(LINE_S):
                    await writer.drain()
