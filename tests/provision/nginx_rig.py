"""A real nginx as an ordinary process on free high ports, and a Box in a folder of its own."""

from __future__ import annotations

import http.server
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from present import need, wait_for

from provision import nginx
from provision.box import Box
from provision.spec import Spec
from provision.template import Server, Templates


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The box and its nginx; `owner` puts a file of the owner's in place."""

    box: Box
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        conf = str(self.box.nginx / "nginx.conf")
        self.running.append(subprocess.Popen(["nginx", "-c", conf, "-g", "daemon off;"]))
        wait_for("nginx", lambda: self.box.nginx_pid.exists() and self.box.nginx_pid.read_text())

    def stop(self) -> None:
        while self.running:
            child = self.running.pop()
            child.terminate()
            child.wait(20)

    def reload(self) -> None:
        """Until no worker of before takes connections any more."""
        pid = int(self.box.nginx_pid.read_text())
        before = nginx.workers(pid)
        os.kill(pid, signal.SIGHUP)
        wait_for("new workers", lambda: not any(map(nginx.takes, before)))

    def owner(self, name: str, text: str) -> Path:
        """A site of the owner's in sites-enabled; nginx has not read it yet."""
        path = self.box.nginx / "sites-enabled" / name
        path.write_text(text.replace("PORT", str(self.box.http_port)))
        return path

    def owners_site(self, domain: str, says: str) -> Path:
        return self.owner(
            domain,
            f'server {{ listen 127.0.0.1:PORT; server_name {domain}; return 200 "{says}"; }}\n',
        )

    def static(self, domain: str, says: str = "", **fields: object) -> Spec:
        """A static site with a page of its own."""
        root = self.box.www / domain / "current"
        root.mkdir(parents=True, exist_ok=True)
        (root / "index.html").write_text(says or f"this is {domain}")
        return replace(
            Spec(domain=domain, root=root, challenge_root=self.box.state / "challenges"),
            **fields,  # type: ignore[arg-type]
        )

    def certificate(self, *names: str) -> dict[str, Path]:
        """Files of a self-signed certificate, as fields of a Spec."""
        folder = self.box.letsencrypt / "live" / names[0]
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=90))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        (folder / "fullchain.pem").write_bytes(made.public_bytes(pem))
        (folder / "privkey.pem").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        (folder / "privkey.pem").chmod(0o600)
        return {"certificate": folder / "fullchain.pem", "key": folder / "privkey.pem"}

    def get(
        self, host: str, path: str = "/", *, tls: bool = False, **more: object
    ) -> httpx.Response:
        """As a browser that asks this nginx for that host."""
        box = self.box
        where = (
            f"https://127.0.0.1:{box.https_port}" if tls else f"http://127.0.0.1:{box.http_port}"
        )
        method = str(more.pop("method", "GET"))
        headers = {"Host": host, **more.pop("headers", {})}  # type: ignore[dict-item]
        with httpx.Client(verify=unverified(), trust_env=False, timeout=10) as client:
            return client.request(
                method,
                where + path,
                headers=headers,
                extensions={"sni_hostname": host},
                **more,  # type: ignore[arg-type]
            )


def unverified() -> ssl.SSLContext:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    return trusting


@contextmanager
def program(
    answer: str = "a program", status: int = 200, port: int = 0
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A program behind a proxy: its upstream, and the headers of what it was asked. port 0: any."""
    asked: list[dict[str, str]] = []

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append({key.lower(): value for key, value in self.headers.items()})
            body = answer.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(BrokenPipeError):
                self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def log_message(self, *said: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_box(root: Path) -> Box:
    """Folders and nginx.conf as on a fresh machine; nothing runs yet."""
    box = Box(
        root=root,
        state=root / "state",
        nginx=root / "nginx",
        www=root / "www",
        letsencrypt=root / "letsencrypt",
        inbox=root / "inbox",
        config=root / "config",
        http_port=free_port(),
        https_port=free_port(),
        nginx_pid=root / "run" / "nginx.pid",
        nginx_logs=root / "log",
        nginx_user="root",
        listen=("127.0.0.1",),
        folders=(root / "workspaces", root / "www"),
        staging=Path("/var/tmp"),
    )
    for folder in ("state", "www", "letsencrypt", "inbox", "config", "run", "log", "workspaces"):
        (root / folder).mkdir()
    for folder in ("sites-enabled", "sites-available", "conf.d", "modules-enabled"):
        (root / "nginx" / folder).mkdir(parents=True)
    shutil.copy("/etc/nginx/mime.types", box.nginx / "mime.types")
    server = Server(version=(1, 22, 1), openssl=(3, 0))
    main = Templates(box, server, box.nginx / "ai-infra").main()
    (box.nginx / "nginx.conf").write_text(main)
    return box


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """A box whose nginx runs, with a site of the owner's."""
    for tool in ("nginx", "bwrap", "unshare"):
        need(tool)
    if os.geteuid() != 0:
        pytest.skip("the broker is root")
    made = Ground(box=make_box(tmp_path))
    made.owners_site("owner.example", "the owner's")
    made.start()
    yield made
    made.stop()
