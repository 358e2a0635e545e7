"""A certificate authority of our own for tests: pebble, with a DNS server that says what we say."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from present import need

READY_S = 20.0


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
        httpx.post(url, content=json.dumps(body), trust_env=False).raise_for_status()


@dataclass(frozen=True, slots=True)
class Authority:
    """pebble. ca: roots to trust, for its own address and for what it issues."""

    url: str
    ca: Path
    http_port: int
    names: Names
    log: Path


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
        context = httpx.create_ssl_context(verify=str(ca), trust_env=False)
        root = httpx.get(f"https://127.0.0.1:{management}/roots/0", verify=context, trust_env=False)
        ca.write_bytes(ca.read_bytes() + root.raise_for_status().content)
        yield Authority(f"https://127.0.0.1:{port}/dir", ca, http_port, serving, log)


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
