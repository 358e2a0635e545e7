"""What a site is, as a typed value: the only thing that our nginx templates are filled from."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from base.errors import InputError
from base.hostname import hostname
from base.verbs import UPSTREAM
from provision.box import Box

#: portal and api are the product's own front; people's sites are of the other kinds.
Kind = Literal["static", "proxy", "redirect", "portal", "api"]
FRONT: frozenset[str] = frozenset({"portal", "api"})
#: The portal of a machine without a domain answers to every name that nobody else has.
ANY = "_"
#: What may stand in a path that is written into a configuration: nothing that nginx reads.
PLAIN = re.compile(r"/[A-Za-z0-9._/+-]{0,500}")
NAMES_MAX = 50
_NEEDS = {
    "static": "root",
    "proxy": "upstream",
    "redirect": "target",
    "portal": "upstream",
    "api": "upstream",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """domain: ANY for the portal of a machine without one. names: served like `domain`. root: of
    static, upstream: of proxy (a port of this machine), target: of redirect (a host).
    certificate None: the site answers on http alone; else http leads to https. challenge_root:
    where certbot's webroot answers lie. enabled False: kept, not served.
    """

    domain: str
    names: tuple[str, ...] = ()
    kind: Kind = "static"
    root: Path | None = None
    upstream: str | None = None
    target: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    challenge_root: Path = Path("/var/lib/letsencrypt/http-challenges")
    enabled: bool = True

    @property
    def hosts(self) -> tuple[str, ...]:
        """All names, each once, `domain` first."""
        return tuple(dict.fromkeys((self.domain, *self.names)))


def check(spec: Spec, box: Box) -> None:
    """Raises InputError for a site that our templates must not be filled with."""
    for name in spec.hosts:
        if spec.kind == "portal" and spec.hosts == (ANY,):
            break
        try:
            same = hostname(name) == name
        except ValueError as error:
            raise InputError(f"{name!r}: {error}") from error
        if not same:
            raise InputError(f"{name!r} is not in the form that DNS knows")
    if len(spec.hosts) > NAMES_MAX:
        raise InputError(f"a site has at most {NAMES_MAX} names")
    wanted = _NEEDS.get(spec.kind)
    if wanted is None:
        raise InputError(f"there are no sites of the kind {spec.kind!r}")
    for field in ("root", "upstream", "target"):
        if (getattr(spec, field) is not None) != (field == wanted):
            raise InputError(f"a {spec.kind} site has a {wanted} and nothing else to serve")
    if spec.upstream is not None:
        _upstream(spec.upstream)
    if spec.target is not None:
        _target(spec)
    if (spec.certificate is None) != (spec.key is None):
        raise InputError("a certificate has a key, and a key a certificate")
    _below(spec.root, (box.www,), "the root of a site")
    for path in (spec.certificate, spec.key):
        _below(path, (box.letsencrypt, box.config), "a certificate")
    _below(spec.challenge_root, None, "the folder of challenges")


def dump(spec: Spec) -> dict[str, Any]:
    """As JSON knows it."""
    found = {field.name: getattr(spec, field.name) for field in fields(spec)}
    return {key: str(v) if isinstance(v, Path) else v for key, v in found.items()}


def load(raw: dict[str, Any]) -> Spec:
    """What `dump` wrote."""
    paths = {"root", "certificate", "key", "challenge_root"}
    found: dict[str, Any] = {
        key: Path(v) if key in paths and v is not None else v for key, v in raw.items()
    }
    return Spec(**{**found, "names": tuple(raw["names"])})


def _upstream(value: str) -> None:
    found = UPSTREAM.fullmatch(value)
    if found is None or not 1 <= int(found[1]) <= 65_535:
        raise InputError("an upstream is http://127.0.0.1:PORT, a program of this machine")


def _target(spec: Spec) -> None:
    try:
        if hostname(spec.target or "") != spec.target:
            raise ValueError("not in the form that DNS knows")
    except ValueError as error:
        raise InputError(f"{spec.target!r}: {error}") from error
    if spec.target in spec.hosts:
        raise InputError(f"{spec.target} cannot be redirected to itself")


def _below(path: Path | None, roots: tuple[Path, ...] | None, what: str) -> None:
    if path is None:
        return
    if PLAIN.fullmatch(str(path)) is None or ".." in path.parts:
        raise InputError(f"{what} cannot be at {str(path)!r}")
    if roots is not None and not any(path.is_relative_to(root) for root in roots):
        raise InputError(f"{what} lies below {' or '.join(str(root) for root in roots)}")
