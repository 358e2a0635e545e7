"""What the checks share, opened at the first question: the wire, the record, the portal."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from base.bus import Bus
from base.deadline import Deadline
from base.errors import AIError, NotRunningError
from base.settings import HANDS_USER, Settings, hands_account
from base.store import Store

#: Opening Redis or PostgreSQL; both are on this machine or near.
OPEN_S = 3.5
PORTAL_S = 3.0
ROOT = Path(__file__).resolve().parent.parent.parent
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP status and what came with it."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Sight:
    """Opened once for all checks; close it. A check that is given up leaves it to the others."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._made: dict[str, asyncio.Task[Any]] = {}

    @property
    def appliance(self) -> bool:
        """Whether this installation has a root broker."""
        return self.settings.broker is not None

    async def bus(self) -> Bus:
        """Raises BusError, NotRunningError."""
        return await self._once("bus", self._open_bus)

    async def store(self) -> Store:
        """Raises StoreError, NotRunningError."""
        return await self._once("store", self._open_store)

    async def portal(self, path: str) -> Answer:
        """The portal's answer to the owner, asked once a path. Raises NotRunningError."""
        return await self._once(path, lambda: self._get(path))

    async def ask(
        self, name: str, payload: dict[str, Any], limit_s: float = PORTAL_S
    ) -> dict[str, Any]:
        """What a service on the bus answers. Raises BusError, NotRunningError."""
        bus = await self.bus()
        return await bus.ask(name, payload, deadline=Deadline.after(limit_s))

    async def run(self, *argv: str, cwd: Path = Path("/")) -> tuple[int, str, str]:
        """Exit code, output, errors; 127: there is no such program. Killed with its check."""
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
        except OSError as error:
            return 127, "", str(error)
        try:
            out, err = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")

    async def run_as_hands(self, *argv: str) -> tuple[int, str, str]:
        """`run` as the account of the hands, where there is one."""
        needed = self.settings.hands_user is not None and hands_account() is not None
        return await self.run(*(("runuser", "-u", HANDS_USER, "--") if needed else ()), *argv)

    async def close(self) -> None:
        """Safe twice."""
        made, self._made = list(self._made.values()), {}
        for task in made:
            task.cancel()
        for found in await asyncio.gather(*made, return_exceptions=True):
            if isinstance(found, Bus | Store):
                await found.close()

    async def _once(self, name: str, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        task = self._made.get(name)
        if task is None:
            task = self._made[name] = asyncio.create_task(make(), name=f"doctor {name}")
        found: T = await asyncio.shield(task)
        return found

    async def _open_bus(self) -> Bus:
        settings = self.settings
        if settings.redis_url is None and not settings.redis_socket.exists():
            raise NotRunningError("Redis does not run")
        return await _soon("Redis", Bus.open(settings.redis, "doctor"))

    async def _open_store(self) -> Store:
        settings = self.settings
        if settings.postgres_dsn is None and not (settings.run / ".s.PGSQL.5432").exists():
            raise NotRunningError("PostgreSQL does not run")
        return await _soon("PostgreSQL", Store.open(settings.postgres, "doctor"))

    async def _get(self, path: str) -> Answer:
        known = (self.settings.secrets / "jwt-secret").is_file()
        return await asyncio.to_thread(_asked, self.settings, path, signed=known)


def get(host: str, port: int, path: str, headers: dict[str, str] | None = None) -> Answer:
    """One GET, blocking; the standard library's client loads in no time. Raises NotRunningError."""
    line = http.client.HTTPConnection(host, port, timeout=PORTAL_S)
    try:
        line.request("GET", path, headers=headers or {})
        answer = line.getresponse()
        return Answer(status=answer.status, body=answer.read())
    except (OSError, http.client.HTTPException) as error:
        raise NotRunningError(f"nothing answers on {host}:{port}") from error
    finally:
        line.close()


def _asked(settings: Settings, path: str, *, signed: bool) -> Answer:
    headers = {}
    if signed:
        from portal.auth import local_token

        headers["Authorization"] = f"Bearer {local_token(settings)}"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return get(host, settings.port, path, headers)


async def _soon(name: str, opening: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(OPEN_S):
            return await opening
    except TimeoutError as error:
        raise NotRunningError(f"{name} does not answer") from error


def host_of(url: str | None) -> str:
    """The host in an address; "" for none."""
    return (urlsplit(url).hostname or "") if url else ""


def words(error: BaseException) -> str:
    """What a fault is called in a line."""
    if isinstance(error, AIError | OSError) and str(error):
        return str(error)
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
