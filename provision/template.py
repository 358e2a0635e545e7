"""Our templates in `nginx/`, filled from typed values alone."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from provision.box import Box
from provision.owner import Owner
from provision.spec import ANY, Spec

FOLDER = Path(__file__).resolve().parent.parent / "nginx"
SHARED = (
    "http.conf",
    "conf.d/maps.conf",
    "conf.d/rate-limiting.conf",
    "conf.d/gzip.conf",
    "snippets/ssl-params.conf",
    "snippets/security-headers.conf",
    "snippets/proxy-params.conf",
    "snippets/problems.conf",
)
#: What the portal takes in one request, in step with portal/limits.py (a test compares them).
BODY_BYTES = 1_000_000
DEPLOY_BYTES = 200_000_000
LARGER_BYTES = (("/api/attachments", 50_000_000), ("/api/voice/transcriptions", 10_000_000))
#: No value has a character that ends a word of nginx's language.
_WORD = re.compile(r"[A-Za-z0-9._:/+\[\]-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the installed nginx can do. version: (1, 22, 1); openssl: what it runs with."""

    version: tuple[int, ...]
    openssl: tuple[int, ...]
    ipv6: bool = True


class Templates:
    """root: the folder of generations; all that is drawn speaks of `root/current`. owner: what
    else stands in nginx's configuration; None: nothing.
    """

    def __init__(self, box: Box, server: Server, root: Path, owner: Owner | None = None) -> None:
        self._box, self._server, self._root = box, server, root
        self._owner = owner or Owner(servers=(), writes=(), hosts=())
        self._jinja = Environment(
            loader=FileSystemLoader([FOLDER, FOLDER / "sites-available"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,
        )

    def shared(self) -> dict[str, str]:
        """The files that all sites have in common, by their path in a generation."""
        return {name: self._draw(name) for name in SHARED}

    def default(self, *, any_name: bool = False) -> str:
        """Where the owner's sites listen, who is unknown is theirs. any_name: else the portal's."""
        box = self._box
        taken = {box.http_port, box.https_port} if any_name else self._owner.ports
        return self._draw(
            "sites-available/default.conf",
            defaults_http=() if box.http_port in taken else self._at(box.http_port),
            defaults_https=() if box.https_port in taken else self._at(box.https_port),
        )

    def generation(self, folder: Path) -> str:
        return self._draw(
            "sites-available/generation.conf",
            generation=folder,
            http=self._at(self._box.http_port),
        )

    def site(self, spec: Spec) -> str:
        return self._draw(
            "sites-available/site.conf",
            spec=spec,
            kind=spec.kind,
            http=self._at(self._box.http_port),
            https=self._at(self._box.https_port),
            default_http=spec.domain == ANY and self._box.http_port not in self._owner.ports,
            default_https=spec.domain == ANY and self._box.https_port not in self._owner.ports,
        )

    def main(self) -> str:
        """nginx.conf, for a machine whose own one is as the package brought it."""
        box = self._box
        return self._draw("nginx.conf", user=box.nginx_user, pid=box.nginx_pid)

    def _at(self, port: int) -> tuple[str, ...]:
        wanted = dict.fromkeys((*self._box.listen, *self._owner.addresses(port)))
        found = (one for one in wanted if self._server.ipv6 or not one.startswith("["))
        return tuple(f"{one}:{port}" if one else str(port) for one in found)

    def _draw(self, name: str, **values: Any) -> str:
        box, server = self._box, self._server
        values |= {
            "current": self._root / "current",
            "nginx": box.nginx,
            "logs": box.nginx_logs,
            "https_suffix": "" if box.https_port == 443 else f":{box.https_port}",
            "http2_directive": server.version >= (1, 25, 1),
            "tickets": server.version >= (1, 23, 2),
            "hybrid": server.openssl >= (3, 5),
            "body_bytes": BODY_BYTES,
            "larger_bytes": LARGER_BYTES,
            "deploy_bytes": DEPLOY_BYTES,
        }
        for value in values.values():
            _plain(value)
        return self._jinja.get_template(name + ".j2").render(values)


def _plain(value: Any) -> None:
    """Raises ValueError for what could mean something to nginx; specs were checked before."""
    if isinstance(value, Spec):
        for field in fields(value):
            _plain(getattr(value, field.name))
    elif isinstance(value, tuple):
        for one in value:
            _plain(one)
    elif isinstance(value, str | Path) and not _WORD.fullmatch(str(value)):
        raise ValueError(f"{str(value)!r} cannot be written into a configuration")
