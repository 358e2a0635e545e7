"""What stands in the machine's nginx configuration besides ours: read, never written."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crossplane

from provision.box import Box

_PASSES = frozenset({"proxy_pass", "grpc_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass"})
_WRITES = frozenset(
    {
        "access_log",
        "error_log",
        "pid",
        "lock_file",
        "client_body_temp_path",
        "proxy_temp_path",
        "fastcgi_temp_path",
        "uwsgi_temp_path",
        "scgi_temp_path",
        "proxy_cache_path",
        "fastcgi_cache_path",
        "uwsgi_cache_path",
        "scgi_cache_path",
    }
)
_HOST = re.compile(r"(?:[a-z]+://)?([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::\d+)?(?:/.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One `listen` of one of the owner's servers. address "": every one of this machine.
    names: as they stand, wildcards and expressions too.
    """

    file: str
    address: str
    port: int
    tls: bool
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """writes: folders that nginx opens files in when it reads its configuration. hosts: names
    that it looks up then.
    """

    servers: tuple[Server, ...]
    writes: tuple[Path, ...]
    hosts: tuple[str, ...]

    @property
    def ports(self) -> frozenset[int]:
        return frozenset(server.port for server in self.servers)

    def addresses(self, port: int) -> tuple[str, ...]:
        """Where the owner's sites listen at that port on one address alone: whoever comes there
        reaches only servers that listen there, too.
        """
        found = (one.address for one in self.servers if one.port == port and one.address)
        return tuple(dict.fromkeys(f"[{one}]" if ":" in one else one for one in found))

    def serving(self, name: str, ports: Collection[int]) -> Server | None:
        """The owner's server that answers to that very name, at one of those ports."""
        return next((one for one in self.servers if name in one.names and one.port in ports), None)


def read(box: Box, ours: Path) -> Owner:
    """As far as it can be read: a broken file has what stands before its fault.

    ours: the folder of our generations, which is left out.
    """
    payload = crossplane.parse(str(box.nginx / "nginx.conf"), combine=True, check_ctx=False)
    servers: list[Server] = []
    writes: dict[Path, None] = {box.nginx_logs: None, box.nginx_pid.parent: None}
    hosts: dict[str, None] = {}
    for directive, inside in _walk([d for one in payload["config"] for d in one["parsed"]], ()):
        name, args = directive["directive"], directive["args"]
        if name in _WRITES and args and args[0].startswith("/"):
            writes[Path(args[0]).parent] = None
            if name.endswith("_path"):
                writes[Path(args[0])] = None
        elif name in _PASSES or (name == "server" and "upstream" in inside and args):
            if found := _HOST.fullmatch(args[0]):
                hosts[found[1].lower()] = None
        elif name == "server" and inside == ("http",):
            servers += () if Path(directive["file"]).is_relative_to(ours) else _servers(directive)
    return Owner(servers=tuple(servers), writes=tuple(writes), hosts=tuple(hosts))


def _servers(directive: dict[str, Any]) -> Iterator[Server]:
    block = directive.get("block", [])
    names = tuple(name for d in block if d["directive"] == "server_name" for name in d["args"])
    listens = [d["args"] for d in block if d["directive"] == "listen" and d["args"]] or [["80"]]
    for args in listens:
        if args[0].startswith("unix:") or "quic" in args:
            continue
        address, _, port = args[0].rpartition(":")
        if not port.isdecimal():
            address, port = args[0], "80"
        yield Server(
            file=str(directive["file"]),
            address="" if address in {"*", "0.0.0.0", "[::]"} else address.strip("[]"),
            port=int(port),
            tls="ssl" in args,
            names=names,
        )


def _walk(
    block: list[dict[str, Any]], inside: tuple[str, ...]
) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    for directive in block:
        yield directive, inside
        yield from _walk(directive.get("block", []), (*inside, directive["directive"]))
