"""A git repository's files, by https alone, fetched by nobody from the public network.

No credentials, hooks, submodules, local transports or redirects. The host is looked up once, and
the address that was judged is the one that is called.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import Path
from urllib.parse import urlsplit

from base.errors import InputError
from base.verbs import Git
from provision.box import Box
from provision.child import command
from provision.unpack import TOTAL_MAX_BYTES

FETCH_S = 120.0
QUIET = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "GIT_ALLOW_PROTOCOL": "https",
    "GIT_LFS_SKIP_SMUDGE": "1",
}
OPTIONS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "http.followRedirects=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=20",
    "protocol.allow=never",
    "protocol.https.allow=always",
    "submodule.recurse=false",
    "transfer.fsckObjects=true",
)


async def fetch(source: Git, box: Box, folder: Path, uid: int) -> str:
    """Check `source` out into `folder`, which is empty and belongs to `uid`; the commit.

    Raises InputError, with git's own words.
    """
    host, port = _host(source.url)
    address = await _address(host, port, box)
    options = [*OPTIONS, f"http.curloptResolve={host}:{port}:{address}"]
    if box.acme_ca is not None:
        options.append(f"http.sslCAInfo={folder}/.git/roots.pem")
    git = ["prlimit", f"--fsize={TOTAL_MAX_BYTES}", "git"]
    git += [part for option in options for part in ("-c", option)]
    await _git([*git, "init", "--quiet", "--template="], folder, uid, source)
    if box.acme_ca is not None:  # nobody may not be able to read it where it lies
        (folder / ".git" / "roots.pem").write_bytes(box.acme_ca.read_bytes())
    words = ("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--")
    await _git([*git, *words, source.url, source.ref or "HEAD"], folder, uid, source)
    await _git([*git, "checkout", "--quiet", "--detach", "FETCH_HEAD"], folder, uid, source)
    return (await _git([*git, "rev-parse", "HEAD"], folder, uid, source)).strip()


async def _git(argv: list[str], folder: Path, uid: int, source: Git) -> str:
    env = QUIET | {"HOME": str(folder)}
    ended = await command(argv, deadline_s=FETCH_S, env=env, folder=folder, uid=uid)
    if not ended.well:
        raise InputError(f"{source.url} cannot be fetched: {ended.said.strip()[-1_000:]}")
    return ended.said


def _host(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 443
    except ValueError as error:
        raise InputError(f"{url!r} is no address") from error
    odd = parts.username is not None or parts.query or parts.fragment or "[" in parts.netloc
    if parts.scheme != "https" or not host or odd or len(parts.path) < 2:
        raise InputError("a repository is https://HOST/PATH, without a name, a query or a part")
    return host, port


async def _address(host: str, port: int, box: Box) -> str:
    """One that is public, unless the owner named the host. Raises InputError."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(f"{host} cannot be looked up: {error.strerror or error}") from error
    for *_, at in found:
        address = ipaddress.ip_address(str(at[0]).partition("%")[0])
        public = address.is_global and not address.is_multicast
        if public or host in box.git_hosts:
            return f"[{address}]" if address.version == 6 else str(address)
    raise InputError(f"{host} is no public host; the owner can name it in git_hosts")
