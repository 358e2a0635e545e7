"""Where everything is on the box that the broker manages. Tests give another root."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = tuple(Path(one) for one in PATH.split(":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """root: what the folders below are under. state: the broker's own record (sites, history).

    acme_url None: certbot's own default (Let's Encrypt). http_port, https_port: where nginx
    listens, for the probes. acme_ca: a file with the roots to trust for ACME and for probes.
    units, containers: what the verbs of the machine may name. programs: where external commands
    are looked for. docker: the address of Docker's engine.
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
    units: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    programs: tuple[Path, ...] = PROGRAMS
    docker: str = "unix:///var/run/docker.sock"
