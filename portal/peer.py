"""Where a request comes from: the other end of the socket, and what nginx on this machine says.

Anybody can write X-Forwarded-For, so it counts only with `behind_nginx` set, from a loopback or
Unix socket, and then only its last entry: the one that our nginx added.
"""

from __future__ import annotations

import ipaddress

from starlette.requests import HTTPConnection

from base.settings import Settings

#: One customer's share of IPv6; limits count by it, or one person has 2^64 addresses.
IPV6_PREFIX = 64


def peer_of(connection: HTTPConnection, settings: Settings) -> str:
    """The address of who is asking; "" when there is none (a Unix socket)."""
    peer = _address(connection.client.host if connection.client else "")
    forwarded = connection.headers.getlist("x-forwarded-for")
    if settings.behind_nginx and forwarded and (not peer or ipaddress.ip_address(peer).is_loopback):
        return _address(forwarded[-1].rpartition(",")[2]) or peer
    return peer


def neighbourhood(peer: str) -> str:
    """What limits count an address by: itself, or the /64 of an IPv6 one."""
    if ":" not in peer:
        return peer or "local"
    return str(ipaddress.ip_network(f"{peer}/{IPV6_PREFIX}", strict=False))


def _address(text: str) -> str:
    """The address in its one form; "" for what is none. An IPv4 one in IPv6 is the IPv4 one."""
    try:
        found = ipaddress.ip_address(text.strip().partition("%")[0])
    except ValueError:
        return ""
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
