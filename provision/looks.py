"""Looking at sites from this machine as a browser would: by name, through the running nginx."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx

from provision import nginx
from provision.box import Box
from provision.owner import Owner
from provision.spec import ANY, Spec

LOOK_S = 2.0
AT_ONCE = 20
FETCH_S = 20.0
AGENT = "ai-infra-probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One name at one port. spec None: the owner's."""

    name: str
    address: str
    port: int
    tls: bool
    spec: Spec | None = None

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.name}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """status None: no answer, and why. leaf: the certificate that was shown, in DER."""

    status: int | None
    location: str = ""
    leaf: bytes | None = None
    error: str = ""

    @property
    def well(self) -> bool:
        return self.status is not None and self.status < 500

    def __str__(self) -> str:
        return str(self.status) if self.status is not None else f"no answer ({self.error})"


def targets(box: Box, specs: Iterable[Spec], owner: Owner) -> list[Target]:
    """Every site of ours and of the owner's, each once. Where the owner's listen, who has no name
    there is theirs: the portal without one is not looked at.
    """
    here = nginx.reached(box)
    found: dict[Target, None] = {}
    for spec in specs:
        name = _ask_for(spec.hosts)
        ports = {box.http_port: False}
        if spec.certificate is not None:
            ports[box.https_port] = True
        for port, tls in ports.items():
            if spec.domain != ANY or port not in owner.ports:
                found[Target(name=name, address=here, port=port, tls=tls, spec=spec)] = None
    for server in owner.servers:
        address = server.address or "127.0.0.1"
        name = _ask_for(server.names)
        found[Target(name=name, address=address, port=server.port, tls=server.tls)] = None
    return list(found)


async def look(wanted: Iterable[Target]) -> dict[Target, Seen]:
    """All of them, some at a time; each has LOOK_S."""
    gate = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(
        verify=_trusting(), trust_env=False, timeout=LOOK_S, follow_redirects=False
    ) as client:

        async def one(target: Target) -> tuple[Target, Seen]:
            async with gate:
                return target, await _seen(client, target)

        return dict(await asyncio.gather(*(one(target) for target in wanted)))


def faults(box: Box, before: Mapping[Target, Seen], after: Mapping[Target, Seen]) -> list[str]:
    """What is wrong with sites of ours, and what became worse with anybody's. A site that was
    served before and is not any more was taken away on purpose.
    """
    found = [wrong(target, seen, box) for target, seen in after.items()]
    was = {(target.address, target.port, target.name): seen for target, seen in before.items()}
    for target, seen in after.items():
        if (earlier := was.get((target.address, target.port, target.name))) is not None:
            found.append(worse(target, earlier, seen))
    return list(dict.fromkeys(said for said in found if said is not None))


def worse(target: Target, before: Seen, after: Seen) -> str | None:
    """Why a site that was there before is not what it was; None: as good as it was."""
    if not before.well:
        return None
    same = after.well and (target.spec is not None or _class(before) == _class(after))
    return None if same else f"{target} answered {before} before and {after} now"


def wrong(target: Target, seen: Seen, box: Box) -> str | None:
    """Why a site of ours is not served as its description says; None: it is."""
    spec = target.spec
    if spec is None:
        return None
    if seen.status is None:
        return f"{target} gives {seen}"
    if target.tls and spec.certificate is not None and seen.leaf != _leaf(spec.certificate):
        return f"{target} shows another certificate than {spec.certificate}"
    if spec.certificate is not None and not target.tls:
        wanted = f"https://{target.name}{'' if box.https_port == 443 else f':{box.https_port}'}/"
    elif spec.kind == "redirect":
        wanted = f"https://{spec.target}/"
    else:
        served = seen.well or spec.upstream is not None
        return None if served else f"{target} answers {seen}"
    led = seen.status == 301 and seen.location.startswith(wanted)
    return None if led else f"{target} answers {seen} instead of leading to {wanted}"


def silent(seen: Mapping[Target, Seen]) -> list[str]:
    """Sites whose program does not answer yet: to be told, not a fault of the configuration."""
    return [
        f"the program at {target.spec.upstream} does not answer for {target} yet ({one})"
        for target, one in seen.items()
        if target.spec is not None and target.spec.upstream is not None
        if one.status in {502, 503, 504}
    ]


async def fetched(box: Box, spec: Spec, path: Path, file: Path) -> str | None:
    """None: that path of the site comes back as it lies in `file`; else what came."""
    tls = spec.certificate is not None
    scheme, port = ("https", box.https_port) if tls else ("http", box.http_port)
    url = f"{scheme}://{nginx.reached(box)}:{port}/{quote(str(path))}"
    headers = {"Host": spec.domain, "Accept-Encoding": "identity", "User-Agent": AGENT}
    wanted, got = hashlib.sha256(file.read_bytes()).digest(), hashlib.sha256()
    try:
        async with (
            httpx.AsyncClient(verify=_trusting(), trust_env=False, timeout=FETCH_S) as client,
            client.stream(
                "GET", url, headers=headers, extensions={"sni_hostname": spec.domain}
            ) as answer,
        ):
            async for piece in answer.aiter_raw():
                got.update(piece)
    except httpx.HTTPError as error:
        return f"{spec.domain} gives no answer ({error or type(error).__name__})"
    if answer.status_code != 200:
        return f"{spec.domain}/{path} answers {answer.status_code}"
    return None if got.digest() == wanted else f"{spec.domain}/{path} is not what was deployed"


def _trusting() -> ssl.SSLContext:
    """Looks at certificates itself, or not at all: the owner's may be self-signed."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _seen(client: httpx.AsyncClient, target: Target) -> Seen:
    address = f"[{target.address}]" if ":" in target.address else target.address
    url = f"{'https' if target.tls else 'http'}://{address}:{target.port}/"
    headers = {"Host": target.name, "Connection": "close", "User-Agent": AGENT}
    try:
        async with (
            asyncio.timeout(LOOK_S),
            client.stream(
                "GET", url, headers=headers, extensions={"sni_hostname": target.name}
            ) as answer,
        ):
            shown = answer.extensions["network_stream"].get_extra_info("ssl_object")
            return Seen(
                status=answer.status_code,
                location=answer.headers.get("location", ""),
                leaf=shown.getpeercert(True) if shown is not None else None,
            )
    except (httpx.HTTPError, TimeoutError) as error:
        return Seen(status=None, error=str(error) or type(error).__name__)


def _ask_for(names: tuple[str, ...]) -> str:
    """A name that this server answers to, as far as one can be told."""
    for name in names:
        plain = name.replace("*.", "probe.", 1) if name.startswith("*.") else name.lstrip(".")
        if plain and plain != "_" and not set(plain) & set("~*$\"'") and plain.isascii():
            return plain
    return "probe.invalid"


def _class(seen: Seen) -> int:
    return (seen.status or 0) // 100


def _leaf(certificate: Path) -> bytes:
    end = "-----END CERTIFICATE-----"
    text = certificate.read_text()
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN") : text.index(end) + len(end)])
