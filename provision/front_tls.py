"""The certificate of the portal's front: the authority's, by the same order as every site's, and
until there is one a certificate of its own.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from base.errors import NotFoundError
from base.verbs import Cert, Challenge
from provision import pointing
from provision.box import Box
from provision.certs import Certs, names_of, read
from provision.disk import write
from provision.sites import Sites
from provision.spec import ANY, FRONT, Spec
from provision.verb import Tell

OWN_DAYS = 3_650


def front(box: Box, domain: str) -> Spec | None:
    """The portal's own site of that name; None: it is nobody's or a site of people's."""
    found = {spec.domain: spec for spec in Sites(box).specs(front=True) if spec.kind in FRONT}
    return found.get(domain)


def own(box: Box) -> tuple[Path, Path]:
    """Where the certificate of its own and the key are, whether they are there or not."""
    folder = box.config / "tls"
    return folder / "portal.crt", folder / "portal.key"


def is_own(box: Box, domain: str) -> bool:
    """Whether the certificate of its own is there, for that name."""
    chain, key = own(box)
    with suppress(NotFoundError):
        return key.is_file() and _name(domain) in names_of(read(chain))
    return False


def shown(box: Box, domain: str) -> tuple[Path, Path]:
    """What nginx shall show for `domain`: what the authority gave, else its own, which is made."""
    chain, key = Certs(box).paths(domain)
    if domain != ANY and chain.is_file() and key.is_file():
        return chain, key
    if not is_own(box, domain):
        _make(box, _name(domain))
    return own(box)


async def certify(box: Box, domain: str, challenge: Challenge, tell: Tell, *, who: str) -> Cert:
    """The authority's certificate for the front at `domain`, from now on renewed like every
    other; one that is still good is kept. Twice is safe.

    Raises ConflictError, after which the front shows what it showed before.
    """
    sites, certs = Sites(box, who=who, why="the portal's certificate"), Certs(box)
    spec = sites.spec(domain)
    if not certs.good(domain, spec.hosts):
        await pointing.check(spec.hosts, box)
    cert = await certs.issue(domain, spec.hosts, challenge, tell)
    chain, key = certs.paths(domain)
    if (spec.certificate, spec.key) != (chain, key):
        await sites.apply(replace(spec, certificate=chain, key=key))
    elif domain in certs.unloaded():
        await sites.reload(domain)
    certs.loaded([domain])
    return cert


async def revoke(box: Box, domain: str, reason: str, tell: Tell, *, who: str) -> None:
    """Void at the authority; the front shows a certificate of its own, then the files go."""
    sites, certs = Sites(box, who=who, why="the portal's certificate"), Certs(box)
    spec = sites.spec(domain)
    await certs.revoke(domain, reason)
    await tell("the portal shows a certificate of its own")
    if not is_own(box, domain):
        _make(box, _name(domain))
    chain, key = own(box)
    await sites.apply(replace(spec, certificate=chain, key=key), probe=False)
    await certs.forget(domain, files=True)


def _name(domain: str) -> str:
    return socket.gethostname() if domain == ANY else domain


def _make(box: Box, name: str) -> None:
    """The key first: killed in between, it is made anew."""
    private, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    names: list[x509.GeneralName] = [
        x509.DNSName(one) for one in dict.fromkeys([name, "localhost"])
    ]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=OWN_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = private.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain, key = own(box)
    chain.unlink(missing_ok=True)
    write(key, secret, mode=0o600)
    write(chain, made.public_bytes(pem))
