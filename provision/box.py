"""Where everything is on the box that the broker manages. Tests give another root."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = tuple(Path(one) for one in PATH.split(":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """root: what the folders below are under. state: the broker's own record (sites, history).

    acme_url None: certbot's own default (Let's Encrypt). http_port, https_port, listen: where
    nginx listens ("" is every IPv4 address), for the sites and for the probes. acme_ca: a file
    with the roots to trust for ACME and for git. folders: what may be deployed from. git_hosts:
    hosts of this network that may be cloned from; the rest must be public.
    units, containers: what the verbs of the machine may name. programs: where external commands
    are looked for. docker: the address of Docker's engine. addresses: what the names of sites
    must point to; () means those of this machine. nameserver: "ADDRESS:PORT" of the resolver that
    is asked, None: the machine's own. dns_wait_s: how long a DNS-01 record is given to spread
    before the authority looks.
    """

    root: Path = Path("/")
    state: Path = Path("/var/lib/ai-infra/broker")
    nginx: Path = Path("/etc/nginx")
    www: Path = Path("/var/www")
    letsencrypt: Path = Path("/etc/letsencrypt")
    inbox: Path = Path("/var/lib/ai-infra/inbox")
    config: Path = Path("/etc/ai-infra")
    acme_url: str | None = None
    acme_ca: Path | None = None
    acme_email: str | None = None
    http_port: int = 80
    https_port: int = 443
    addresses: tuple[str, ...] = field(default=())
    nginx_pid: Path = Path("/run/nginx.pid")
    nginx_logs: Path = Path("/var/log/nginx")
    nginx_user: str = "www-data"
    listen: tuple[str, ...] = ("", "[::]")
    folders: tuple[Path, ...] = (Path("/var/lib/ai-infra/workspaces"), Path("/var/www"))
    git_hosts: tuple[str, ...] = ()
    staging: Path = Path("/var/tmp")
    units: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    programs: tuple[Path, ...] = PROGRAMS
    docker: str = "unix:///var/run/docker.sock"
    nameserver: str | None = None
    dns_wait_s: int = 20
