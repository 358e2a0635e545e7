"""The nginx that runs: what it can do, telling it to read its configuration, and that it did."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import httpx

from base.deadline import Deadline
from base.errors import NotRunningError
from provision.box import Box
from provision.child import command
from provision.template import Server

LOOK_S = 0.02
GENERATION = re.compile(r"\d{8}T\d{12}-[0-9a-f]{6}")
ID_HOST = "generation.ai-infra.invalid"


async def installed() -> Server:
    """Raises NotRunningError when there is no nginx."""
    try:
        said = (await command(["nginx", "-V"], deadline_s=10)).said
    except OSError as error:
        raise NotRunningError("nginx is not installed on this machine") from error
    return _server(said, Path("/proc/net/if_inet6").exists())


@lru_cache(maxsize=8)
def _server(said: str, ipv6: bool) -> Server:
    version = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", said)
    openssl = re.findall(r"OpenSSL (\d+)\.(\d+)", said)
    if version is None:
        raise NotRunningError(f"this is no nginx: {said[:200]}")
    return Server(
        version=tuple(int(part) for part in version.groups()),
        openssl=min((tuple(int(p) for p in one) for one in openssl), default=(0, 0)),
        ipv6=ipv6,
    )


def master(box: Box) -> int | None:
    """The process id of the running master; None: nginx does not run."""
    try:
        pid = int(box.nginx_pid.read_text())
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError):
        return None
    return pid if name == "nginx" else None


async def reload(box: Box, generation: str | None, deadline: Deadline) -> bool:
    """Whether new workers serve `generation` and no old one takes connections any more.

    generation None: none of ours is in use. False: nginx complained or the deadline passed, so
    it keeps its old configuration. Raises NotRunningError.
    """
    pid = master(box)
    if pid is None:
        raise NotRunningError("nginx does not run; start it and ask again")
    before, said = workers(pid), complaint(box)
    os.kill(pid, signal.SIGHUP)
    while not deadline.passed and complaint(box) == said:
        if await serving(box) == generation and not any(map(takes, before)):
            return True
        await asyncio.sleep(LOOK_S)
    return False


async def serving(box: Box) -> str | None:
    """The generation that answers now."""
    url = f"http://{reached(box)}:{box.http_port}/id"
    try:
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=2.0) as client:
            answer = await client.get(url, headers={"Host": ID_HOST})
    except httpx.HTTPError:
        return None
    said = answer.text.strip() if answer.status_code == 200 else ""
    return said if GENERATION.fullmatch(said) else None


def reached(box: Box) -> str:
    """The address at which this machine reaches its own nginx."""
    return next((one for one in box.listen if one and not one.startswith("[")), "127.0.0.1")


def complaint(box: Box) -> str:
    """The last thing that nginx wrote into its log as an emergency."""
    try:
        with (box.nginx_logs / "error.log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    return next((line for line in reversed(lines) if "[emerg]" in line), "it says nothing")


def workers(pid: int) -> tuple[int, ...]:
    """Those of that master."""
    with suppress(OSError):
        return tuple(
            int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        )
    return ()


def takes(worker: int) -> bool:
    """Whether it still takes connections: a worker that leaves says so in its title."""
    try:
        return b"shutting down" not in Path(f"/proc/{worker}/cmdline").read_bytes() and (
            " Z " not in Path(f"/proc/{worker}/stat").read_text()
        )
    except OSError:
        return False
