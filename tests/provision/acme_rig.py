"""A certificate authority of our own for tests: pebble, with a DNS server that says what we say."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import pickle
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from nginx_rig import Ground, make_box, unverified
from present import need

from provision import sites
from provision.box import Box
from provision.changes import Change
from provision.domains import Domains
from provision.sites import Sites
from provision.spec import Spec

READY_S = 20.0
ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """Free for TCP and UDP on loopback."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return int(tcp.getsockname()[1])


@contextmanager
def running(argv: list[str], log: Path, env: dict[str, str] | None = None) -> Iterator[int]:
    """A program for as long as the block lasts; its process id."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            argv, stdout=out, stderr=subprocess.STDOUT, env=os.environ | (env or {})
        )
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(timeout=20)


def listening(port: int, log: Path) -> None:
    until_s = time.monotonic() + READY_S
    while time.monotonic() < until_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on {port}: {log.read_text()[-2000:]}")


@dataclass(frozen=True, slots=True)
class Names:
    """pebble-challtestsrv: what the names of the test point to."""

    port: int
    management: int

    def point(self, name: str, *addresses: str) -> None:
        """From now on `name` has these addresses and no others."""
        for kind, version in (("a", 4), ("aaaa", 6)):
            mine = [text for text in addresses if ipaddress.ip_address(text).version == version]
            self._post(f"clear-{kind}", {"host": f"{name}."})
            if mine:
                self._post(f"add-{kind}", {"host": f"{name}.", "addresses": mine})

    def text(self, name: str, value: str | None) -> None:
        """The TXT record `name`."""
        if value is None:
            self._post("clear-txt", {"host": f"{name}."})
        else:
            self._post("set-txt", {"host": f"{name}.", "value": value})

    def fail(self, name: str) -> None:
        self._post("set-servfail", {"host": f"{name}."})

    def _post(self, verb: str, body: dict[str, object]) -> None:
        url = f"http://127.0.0.1:{self.management}/{verb}"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=10) as answer:
            assert answer.status == 200


@dataclass(frozen=True, slots=True)
class Authority:
    """pebble. ca: roots to trust, for its own address and for what it issues."""

    url: str
    ca: Path
    management: int
    log: Path

    def status(self, serial: int) -> tuple[str, int | None]:
        """What it says of a certificate: Valid or Revoked, and the reason's number."""
        url = f"https://127.0.0.1:{self.management}/cert-status-by-serial/{serial:x}"
        context = ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(url, timeout=10, context=context) as answer:
            found = json.load(answer)
        return found["Status"], found.get("Reason")


@contextmanager
def names(folder: Path) -> Iterator[Names]:
    port, management = free_port(), free_port()
    log = folder / "names.log"
    argv = [need("pebble-challtestsrv"), "-dns01", f"127.0.0.1:{port}"]
    argv += ["-management", f"127.0.0.1:{management}", "-http01", "", "-https01", ""]
    argv += ["-tlsalpn01", "", "-defaultIPv4", "", "-defaultIPv6", ""]
    with running(argv, log):
        listening(management, log)
        yield Names(port, management)


@contextmanager
def authority(
    folder: Path,
    serving: Names,
    http_port: int,
    *,
    lifetime_s: int = 90 * 86_400,
    nonce_reject: int = 0,
    refuses: tuple[str, ...] = (),
    port: int | None = None,
) -> Iterator[Authority]:
    """refuses: domains that no certificate is given for. nonce_reject: of 100 good nonces."""
    folder.mkdir(parents=True, exist_ok=True)
    port, management = port or free_port(), free_port()
    log, ca = folder / "pebble.log", folder / "roots.pem"
    ca.write_bytes(_own_certificate(folder))
    told = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(folder / "cert.pem"),
        "privateKey": str(folder / "key.pem"),
        "httpPort": http_port,
        "tlsPort": free_port(),
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        "domainBlocklist": list(refuses),
        "certificateValidityPeriod": lifetime_s,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": told}))
    argv = [need("pebble"), "-config", str(folder / "pebble.json")]
    argv += ["-dnsserver", f"127.0.0.1:{serving.port}"]
    env = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": str(nonce_reject)}
    with running(argv, log, env | {"PEBBLE_AUTHZREUSE": "0"}):
        listening(port, log)
        listening(management, log)
        context = ssl.create_default_context(cafile=str(ca))
        url = f"https://127.0.0.1:{management}/roots/0"
        with urllib.request.urlopen(url, timeout=10, context=context) as root:
            ca.write_bytes(ca.read_bytes() + root.read())
        yield Authority(f"https://127.0.0.1:{port}/dir", ca, management, log)


def _own_certificate(folder: Path) -> bytes:
    """What pebble shows on its own ports; signed by itself, so it is its own root."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.DNSName("localhost"),
                    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                ]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return made.public_bytes(serialization.Encoding.PEM)


class Heard(list[str]):
    """The steps that were told."""

    async def __call__(self, step: str) -> None:
        self.append(step)


@dataclass(frozen=True, slots=True)
class Town:
    """A box with nginx, an authority that it asks, and the names of the world."""

    ground: Ground
    authority: Authority
    names: Names

    @property
    def box(self) -> Box:
        return self.ground.box

    @property
    def domains(self) -> Domains:
        return Domains(self.box, who="a test")

    def site(self, domain: str) -> Spec | None:
        """What nginx is told of it."""
        return next((one for one in Sites(self.box).specs() if one.domain == domain), None)

    def away(self) -> Domains:
        """The same box while no authority answers."""
        return Domains(replace(self.box, acme_url="https://127.0.0.1:1/dir"), who="a test")

    def changes(self) -> list[Change]:
        """What was changed in nginx, the newest first."""
        return Sites(self.box).history()

    def apart(self, code: str) -> subprocess.Popen[bytes]:
        """`code` in a process of its own, which may be killed; `box` is there."""
        first = "import asyncio, os, pickle, signal, sys\n"
        first += f"box = pickle.loads(bytes.fromhex({pickle.dumps(self.box).hex()!r}))\n"
        return subprocess.Popen([sys.executable, "-c", first + code], cwd=ROOT)

    def home(self, *names: str) -> None:
        """They point here."""
        for name in names:
            self.names.point(name, "127.0.0.1")

    def shown(self, host: str, *, trusted: bool = True) -> bytes:
        """The certificate that nginx shows for `host`, checked as a browser would."""
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        if not trusted:
            context = unverified()
        with (
            socket.create_connection(("127.0.0.1", self.box.https_port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            found = wrapped.getpeercert(binary_form=True)
        assert found is not None
        return found

    def trusted(self, host: str) -> httpx.Response:
        """As a browser that trusts the authority."""
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        with httpx.Client(verify=context, trust_env=False) as client:
            return client.get(
                f"https://127.0.0.1:{self.box.https_port}/",
                headers={"Host": host},
                extensions={"sni_hostname": host},
            )


@contextmanager
def patient() -> Iterator[None]:
    """How fast nginx is changed is tested elsewhere: a busy machine shall not matter here."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FORTH_S", "RELOAD_S", "BACK_S"):
            patch.setattr(sites, name, 30.0)
        yield


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def settled(*, lifetime_s: int = 90 * 86_400, nonce_reject: int = 0) -> Iterator[Town]:
    """A town of its own; refused.example gets no certificate. As on the appliance, nginx's
    workers are not root and the broker's umask lets nobody else in.
    """
    for tool in ("nginx", "bwrap", "unshare", "certbot"):
        need(tool)
    if os.geteuid() != 0:
        pytest.skip("the broker is root")
    with tempfile.TemporaryDirectory(prefix="town-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with umask(0o022):
            box = make_box(folder)
        main = box.nginx / "nginx.conf"
        main.write_text(main.read_text().replace("user root;", "user www-data;"))
        given = {"lifetime_s": lifetime_s, "nonce_reject": nonce_reject}
        with (
            umask(0o027),
            patient(),
            names(folder) as world,
            authority(
                folder / "ca", world, box.http_port, refuses=("refused.example",), **given
            ) as ca,
        ):
            ground = Ground(
                box=replace(
                    box,
                    acme_url=ca.url,
                    acme_ca=ca.ca,
                    addresses=("127.0.0.1",),
                    nameserver=f"127.0.0.1:{world.port}",
                )
            )
            ground.owners_site("owner.example", "the owner's")
            ground.start()
            try:
                yield Town(ground, ca, world)
            finally:
                ground.stop()


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    """One for all tests of a module: each has domains of its own."""
    with settled() as made:
        yield made
