"""The world around the server: an authority that gives certificates, and what names point to.

`python appliance_town.py FOLDER NAME...`, run within the server's network, is all of it on its
loopback: says where it is in a line of JSON and ends with its input.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appliance_machine import Machine

TESTS = Path(__file__).resolve().parents[1]
HTTP = 80
REGISTRY = "http://127.0.0.1:4873"
#: To curl, before a body.
JSON = ("-H", "Content-Type: application/json", "-d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Town:
    """url: of the authority. ca: the roots of its own address and of what it issues; nameserver:
    who knows the names.
    """

    url: str
    ca: Path
    nameserver: str


@contextmanager
def town(network: list[str], folder: Path, *names: str) -> Iterator[Town]:
    """network: what runs a program within the server's network. All names point to it."""
    places = [TESTS.parent, TESTS, TESTS / "provision"]
    process = subprocess.Popen(
        [*network, sys.executable, __file__, str(folder), *names],
        env={**os.environ, "PYTHONPATH": ":".join(map(str, places))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        yield Town(url=said["url"], ca=Path(said["ca"]), nameserver=said["nameserver"])
    finally:
        process.communicate(timeout=30)


def get(server: Machine, host: str, path: str) -> tuple[str, str, str]:
    """Asked by HTTPS, as a browser would: status, body and the certificate's serial number.
    "000": no answer that may be believed.
    """
    line = f"curl -s --resolve {host}:443:127.0.0.1 -w '\\n%{{http_code}}\\n%{{certs}}'"
    said = server.run(f"{line} 'https://{host}{path}'", check=False).stdout
    found = re.fullmatch(r"(.*)\n(\d{3})\n(.*?)", said, re.DOTALL)
    assert found, said
    serial = re.search(r"^Serial Number:\s*(\S+)", found[3], re.MULTILINE)
    return found[2], found[1], serial[1] if serial else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer by HTTPS; status 0: nobody answered. head: in small letters."""

    status: int
    head: str
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(server: Machine, host: str, path: str, *more: str) -> Said:
    """Asked as by curl with these arguments."""
    line = ["curl", "-si", "--resolve", f"{host}:443:127.0.0.1", *more, f"https://{host}{path}"]
    head, _, body = server.run(shlex.join(line), check=False).stdout.partition("\n\n")
    words = head.split(maxsplit=2)
    return Said(status=int(words[1]) if words else 0, head=head.lower(), body=body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who is logged in at the portal, as a program that asks for them."""

    server: Machine
    host: str
    token: str

    @classmethod
    def log_in(cls, server: Machine, host: str, email: str, password: str) -> Person:
        body = json.dumps({"email": email, "password": password})
        said = ask(server, host, "/api/auth/login", *JSON, body)
        assert said.status == 200, said
        return cls(server=server, host=host, token=said.json["token"])

    def get(self, path: str) -> Said:
        return ask(self.server, self.host, path, "-H", f"Authorization: Bearer {self.token}")

    def post(self, path: str, body: object) -> Said:
        told = ["-H", f"Authorization: Bearer {self.token}", *JSON, json.dumps(body)]
        return ask(self.server, self.host, path, *told)


@contextmanager
def registry(machine: Machine) -> Iterator[None]:
    """For the block the server's npm is told of a registry, which has what the hands need."""
    from appliance_machine import NPM, NPMRC

    place, known = machine.root / "srv/npm", NPM / "_cacache" / "content-v2" / "sha512"
    lock = json.loads((TESTS.parent / "agents/runtime/package-lock.json").read_text())["packages"]
    told: dict[str, dict[str, object]] = {}
    place.mkdir()
    for path, one in lock.items():
        if not (name := path.rpartition("node_modules/")[2]):
            continue
        digest = base64.b64decode(one["integrity"].partition("-")[2]).hex()
        kept = known / digest[:2] / digest[2:4] / digest[4:]
        if kept.exists():  # some are for other machines
            shutil.copyfile(kept, place / f"{digest}.tgz")
        dist = {"integrity": one["integrity"], "tarball": f"{REGISTRY}/{digest}.tgz"}
        version = {"name": name, "version": one["version"], "dist": dist}
        told.setdefault(name, {})[one["version"]] = version
    for name, versions in told.items():
        (place / name).parent.mkdir(exist_ok=True)
        said = {"name": name, "dist-tags": {"latest": max(versions)}, "versions": versions}
        (place / name).write_text(json.dumps(said))
    (machine.root / "root/.npmrc").write_text(f"cache=/npm\nregistry={REGISTRY}/\n")
    serve = f"python3 -m http.server {REGISTRY.rpartition(':')[2]} -b 127.0.0.1 -d /srv/npm"
    machine.run(f"systemd-run --quiet --collect --unit=npm-registry {serve}")
    try:
        yield
    finally:
        machine.run("systemctl stop npm-registry; rm -r /srv/npm", check=False)
        (machine.root / "root/.npmrc").write_text(NPMRC)


def main(folder: Path, *pointed: str) -> None:
    from acme_rig import authority, names

    with names(folder) as world, authority(folder / "ca", world, HTTP) as ca:
        for name in pointed:
            world.point(name, "127.0.0.1")
        said = {"url": ca.url, "ca": str(ca.ca), "nameserver": f"127.0.0.1:{world.port}"}
        print(json.dumps(said), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
