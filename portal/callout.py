"""One call to an address that somebody else chose: which ones may be called, and the call.

A name is looked up once, and the address that was judged is the one that is called, so that a
name cannot point elsewhere in between. No proxy, no redirect, and the answer is not read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from base.errors import InputError

URL_MAX_CHARS = 2_000
CALL_S = 10.0
CALLS_MAX = 16
LOCAL_NAMES = frozenset({"localhost", "localhost."})
#: Addresses of IPv4 behind a translator.
NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """How a call ended: the answer's status, or why there was none."""

    status: int | None
    error: str | None
    took_ms: int

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def client() -> httpx.AsyncClient:
    """Every call has a connection of its own: one that was judged for a name serves no other."""
    limits = httpx.Limits(max_connections=CALLS_MAX, max_keepalive_connections=0)
    return httpx.AsyncClient(trust_env=False, follow_redirects=False, limits=limits, timeout=CALL_S)


def needs_leave(url: str) -> bool:
    """Whether only an admin may have `url` called: it names an address that is not public.

    Names are judged when they are called. Raises InputError for what may be called by nobody.
    """
    if len(url) > URL_MAX_CHARS:
        raise InputError(f"url: at most {URL_MAX_CHARS:,} characters")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise InputError(f"url: {error}") from error
    if not host or parts.username is not None or parts.fragment or not url.isprintable():
        raise InputError("url: has to be like https://host/path, without a user or a fragment")
    local = host in LOCAL_NAMES or (_address(host) or ipaddress.ip_address("::")).is_loopback
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise InputError("url: has to begin with https:// (http:// goes to this machine alone)")
    literal = _address(host)
    if literal is not None and not local and not may_call(literal, private=True):
        raise InputError(f"url: {host} is no address of a host that may be called")
    return local or (literal is not None and not may_call(literal, private=False))


def may_call(address: Address, *, private: bool) -> bool:
    """Public addresses; with `private` also those of this machine and of networks at home.

    Never link-local ones: there a cloud's machines keep their credentials.
    """
    inner = _inside(address)
    if inner is not None and not may_call(inner, private=private):
        return False
    if address.is_multicast or address.is_unspecified or address.is_link_local:
        return False
    if address.is_loopback:
        return private
    if address.is_reserved and inner is None:
        return False
    return address.is_global or (private and address.is_private)


async def post(
    by: httpx.AsyncClient, url: str, body: bytes, headers: Mapping[str, str], *, private: bool
) -> Said:
    """Send `body`. Never raises for what the other side does."""
    started_s = time.perf_counter()
    status, error = None, None
    try:
        async with asyncio.timeout(CALL_S):
            status = await _status(by, url, body, headers, private)
    except TimeoutError:
        error = f"no answer within {CALL_S:.0f} s"
    except (OSError, httpx.HTTPError, InputError) as fault:
        error = _spoken(fault)
    if status is not None and not 200 <= status < 300:
        error = f"it answered {status}"
        if 300 <= status < 400:
            error += "; redirects are not followed"
    return Said(status=status, error=error, took_ms=round((time.perf_counter() - started_s) * 1e3))


async def _status(
    by: httpx.AsyncClient, url: str, body: bytes, headers: Mapping[str, str], private: bool
) -> int:
    asked = httpx.URL(url)
    host = urlsplit(url).hostname or ""
    port = asked.port or (443 if asked.scheme == "https" else 80)
    address = await _judged(host, port, private)
    request = by.build_request(
        "POST",
        asked.copy_with(host=str(address)),
        content=body,
        headers={**headers, "Host": asked.netloc.decode("ascii")},
        extensions={"sni_hostname": host},
    )
    answer = await by.send(request, stream=True)
    await answer.aclose()
    return answer.status_code


async def _judged(host: str, port: int, private: bool) -> Address:
    """The first address of `host` that may be called. InputError: there is none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found]
    for address in addresses:
        if may_call(address, private=private):
            return address
    raise InputError(f"{host} has no public address, and only an admin's webhook may call others")


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _inside(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _spoken(fault: Exception) -> str:
    """Without the address: a library's words may quote what a name led to."""
    cause: BaseException | None = fault
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not valid: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(fault, InputError):
        return str(fault)
    if isinstance(fault, socket.gaierror):
        return "its name is not known"
    if isinstance(fault, httpx.ConnectError):
        return "it takes no connections"
    return f"the connection failed ({type(fault).__name__})"
