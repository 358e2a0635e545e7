"""Where names point: every name of a site must lead to this machine before anything is made."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver
import psutil

from base.errors import ConflictError, SettingsError
from provision import outside
from provision.box import Box

LOOK_S = 10.0
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: What Cloudflare publishes as its own (cloudflare.com/ips): a proxied name points there.
CLOUDFLARE = tuple(
    ipaddress.ip_network(text)
    for text in (
        "173.245.48.0/20", "103.21.244.0/22", "103.22.200.0/22", "103.31.4.0/22",
        "141.101.64.0/18", "108.162.192.0/18", "190.93.240.0/20", "188.114.96.0/20",
        "197.234.240.0/22", "198.41.128.0/17", "162.158.0.0/15", "104.16.0.0/13",
        "104.24.0.0/14", "172.64.0.0/13", "131.0.72.0/22",
        "2400:cb00::/32", "2606:4700::/32", "2803:f800::/32", "2405:b500::/32",
        "2405:8100::/32", "2a06:98c0::/29", "2c0f:f248::/32",
    )
)  # fmt: skip


def own(box: Box) -> frozenset[Address]:
    """The addresses that names must point to: the configured ones, else this machine's own."""
    try:
        if box.addresses:
            return frozenset(ipaddress.ip_address(text) for text in box.addresses)
    except ValueError as error:
        raise SettingsError([f"box.addresses: {error}"]) from error
    found = (
        ipaddress.ip_address(address.address.split("%")[0])
        for of_one in psutil.net_if_addrs().values()
        for address in of_one
        if address.family.name in {"AF_INET", "AF_INET6"}
    )
    return frozenset(a for a in found if not (a.is_loopback or a.is_link_local))


async def check(names: Sequence[str], box: Box) -> None:
    """Raises ConflictError that says of every wrong name where it points and where it should."""
    mine = own(box)
    resolver = _resolver(box)
    may_be = await outside.given(box, outside.CLOUDFLARE) is not None
    told = await asyncio.gather(*(_fault(name, mine, resolver, may_be) for name in names))
    faults = [fault for fault in told if fault]
    if not faults:
        return
    here = ", ".join(map(str, sorted(mine, key=lambda a: (a.version, a)))) or "no public address"
    hint = ""
    if not box.addresses and not any(address.is_global for address in mine):
        hint = "; behind a router or a cloud's NAT, name the public address in the settings"
    raise ConflictError(f"DNS: {'; '.join(faults)}. This machine is {here}{hint}")


async def _fault(
    name: str, mine: frozenset[Address], resolver: dns.asyncresolver.Resolver, proxied_may_be: bool
) -> str | None:
    try:
        of_4, of_6 = await asyncio.gather(
            _look(name, dns.rdatatype.A, resolver), _look(name, dns.rdatatype.AAAA, resolver)
        )
    except dns.exception.DNSException as error:
        return f"no answer about {name} ({type(error).__name__})"
    found = [*of_4, *of_6]
    if not found:
        return f"{name} has no address yet (neither A nor AAAA)"
    strange = [address for address in found if address not in mine]
    proxied = [address for address in strange if _cloudflares(address)]
    if proxied_may_be:
        strange = [address for address in strange if address not in proxied]
    elif proxied:
        return f"{name} points to Cloudflare ({proxied[0]}), which is not configured here"
    if not strange:
        return None
    also = "also points to" if len(strange) < len(found) else "points to"
    return f"{name} {also} {', '.join(map(str, strange))}"


async def _look(
    name: str, kind: dns.rdatatype.RdataType, resolver: dns.asyncresolver.Resolver
) -> list[Address]:
    try:
        answer = await resolver.resolve(name + ".", kind, search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    return [ipaddress.ip_address(record.address) for record in answer]


def _cloudflares(address: Address) -> bool:
    return any(address.version == net.version and address in net for net in CLOUDFLARE)


def _resolver(box: Box) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=box.nameserver is None)
    if box.nameserver is not None:
        address, _, port = box.nameserver.rpartition(":")
        resolver.nameservers = [address.strip("[]")]
        resolver.port = int(port)
    resolver.lifetime = LOOK_S
    resolver.cache = None
    return resolver
