"""`python -m provision.attest [--json] [--no-task]`: what the installation proves about itself.

Each check says what was found or what is wrong; exit code 0 only when all hold. The last one is
kept in /var/log/ai-infra/attestation.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from base.errors import AIError, NotRunningError
from base.plural import counted

ETC = Path("/etc/ai-infra")
KEPT = Path("/var/log/ai-infra/attestation.json")
COMMAND = "/usr/local/bin/ai-infra"
UNITS = (
    "ai-redis",
    "ai-memory",
    "ai-workers@embed",
    "ai-api",
    "ai-agents",
    "ai-supervisor",
    "ai-provision",
)
CALL_S = 60.0
TASK_S = 180.0
BACKUP_S = 1_800.0
#: All that must answer does so within this, from a cold start on a small machine.
READY_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One check. `found`: in words, what was seen, or what is wrong."""

    name: str
    ok: bool
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What nginx was set up with. `domain` "": none. roots: of an authority of one's own."""

    domain: str
    http: int
    https: int
    roots: str | None


def versions() -> str:
    """The product and what it stands on."""
    wanted = {
        "redis": ("redis-server", "--version"),
        "postgresql": ("runuser", "-u", "postgres", "--", "psql", "-p", _postgres_port(), "-XAtqc",
                       "SHOW server_version"),
        "nginx": ("nginx", "-v"),
        "tmux": ("tmux", "-V"),
        "systemd": ("systemctl", "--version"),
    }  # fmt: skip
    found = {
        name: match[0]
        for name, line in wanted.items()
        if (match := re.search(r"\d+(?:\.\d+)+|\d+", _said(line)))
    }
    release = Path(os.path.realpath("/opt/ai-infra/current")).name
    python = ".".join(map(str, sys.version_info[:3]))
    parts = {"ai-infrastructure": release, "python": python, **found}
    return ", ".join(f"{name} {version}" for name, version in parts.items())


def units() -> str:
    """Every unit is active, and the agents' windows are there and run."""
    end_s = time.monotonic() + READY_S
    while True:
        states = _said(("systemctl", "is-active", *UNITS), check=False).split()
        down = [name for name, state in zip(UNITS, states, strict=False) if state != "active"]
        found = _json((COMMAND, "agents", "list", "--json"), check=False)
        rows: list[dict[str, Any]] = found.get("agents", []) if isinstance(found, dict) else []
        rows = found if isinstance(found, list) else rows
        idle = [row for row in rows if row.get("status") not in {"offline", "error"}]
        if not down and idle and len(idle) == len(rows):
            there = counted(len(idle), "agent is", "agents are")
            return f"{len(UNITS)} units are active, {there} there"
        if time.monotonic() > end_s:
            raise NotRunningError(
                f"not active: {', '.join(down) or 'none'}; agents that are there: {len(idle)}"
            )
        time.sleep(0.5)


def ports() -> str:
    """What listens to the outside: SSH, the web, and what did before the appliance came."""
    settings = _settings()
    sshd = {
        int(line.split()[1])
        for line in _said(("/usr/sbin/sshd", "-T"), check=False).splitlines()
        if line.startswith("port ")
    }
    web = {settings.http, settings.https}
    before = {int(word) for word in _text(ETC / "firewall-ports").split() if word.isdigit()}
    listening = set()
    for line in _said(("ss", "-Hltn")).splitlines():
        host, _, port = line.split()[3].rpartition(":")
        if not host.strip("[]").startswith(("127.", "::1", "::ffff:127.")):
            listening.add(int(port))
    more = listening - sshd - web - before
    if more:
        raise NotRunningError(f"these ports are open to the outside, too: {sorted(more)}")
    if not web <= listening:
        raise NotRunningError(f"nothing listens on {sorted(web - listening)}")
    kept = sorted(listening & before - sshd - web)
    return f"outside: {sorted(listening)}" + (f", of those {kept} as before" if kept else "")


def tls() -> str:
    """The portal answers through nginx with TLS, and its parts are ready."""
    settings = _settings()
    name, own = settings.domain or "localhost", ETC / "tls" / "portal.crt"
    issued = Path(f"/etc/letsencrypt/ai-infra/live/{settings.domain}/fullchain.pem")
    known = bool(settings.domain) and issued.exists()
    context = ssl.create_default_context(cafile=settings.roots if known else str(own))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    address = ("127.0.0.1", settings.https)
    with (
        socket.create_connection(address, timeout=CALL_S) as plain,
        context.wrap_socket(plain, server_hostname=name) as line,
    ):
        line.sendall(
            f"GET /api/health/ready HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()
        )
        said = b""
        while piece := line.recv(65536):
            said += piece
        version, peer = line.version(), line.getpeercert() or {}
    status = said.split(b"\r\n", 1)[0].decode(errors="replace")
    if " 200 " not in f"{status} ":
        raise NotRunningError(
            f"the portal answered {status}: {said[-300:].decode(errors='replace')}"
        )
    kind = "the authority's certificate" if known else "its own certificate"
    return f"{version}, {kind} until {peer.get('notAfter', '?')}"


def answer() -> str:
    """A task goes through the whole system and an agent answers."""
    text = "Look at the workspace and write into a file what you find there."
    done = _json((COMMAND, "ask", "--json", "--effort", "standard", text), limit_s=TASK_S)
    words = str(_deep(done, "answer") or _deep(done, "content") or done)
    return " ".join(words.split())[:160]


def memory() -> str:
    """What was told is recalled."""
    word = f"attestation {secrets.token_hex(6)}"
    _said((COMMAND, "memory", "remember", f"The word of the {word} is heron."))
    end_s = time.monotonic() + CALL_S
    while time.monotonic() < end_s:
        said = _said(
            (COMMAND, "memory", "search", f"the word of the {word}", "--json"), check=False
        )
        if word in said:
            return "written and recalled"
        time.sleep(0.5)
    raise NotRunningError("what was written was not recalled")


def backup() -> str:
    """A backup is made, and restored once into an installation of its own that does a task."""
    try:
        made = _json((COMMAND, "backup", "create", "--json"), limit_s=BACKUP_S)
    except NotRunningError as error:
        raise NotRunningError(f"no backup could be made: {error}") from error
    said = _said(
        (COMMAND, "backup", "drill", made["snapshot"], "--json"), check=False, limit_s=BACKUP_S
    )
    try:
        found = json.loads(said)
    except ValueError:
        words = said.strip()[-400:]
        raise NotRunningError(f"{made['snapshot']} could not be restored: {words}") from None
    if not found.get("ok"):
        raise NotRunningError(f"{made['snapshot']} was restored and fails: {found.get('problem')}")
    where = made["repository"]
    return f"{made['snapshot']} in {where}, restored and at work after {found['ready_s']:g} s"


CHECKS: dict[str, Callable[[], str]] = {
    "versions": versions,
    "units": units,
    "ports": ports,
    "tls": tls,
    "agent": answer,
    "memory": memory,
    "backup": backup,
}


def prove(names: Sequence[str], say: Callable[[Proof], None]) -> list[Proof]:
    """Each check by name, in order; one that fails does not stop the others."""
    found = []
    for name in names:
        try:
            proof = Proof(name=name, ok=True, found=CHECKS[name]())
        except (AIError, OSError, ValueError, subprocess.SubprocessError) as error:
            proof = Proof(name=name, ok=False, found=str(error) or type(error).__name__)
        found.append(proof)
        say(proof)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m provision.attest", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--no-task", action="store_true", help="leave out the agent's answer")
    given = parser.parse_args()
    names = [name for name in CHECKS if not (given.no_task and name == "agent")]

    def say(proof: Proof) -> None:
        if not given.json:
            print(f"      {'proved' if proof.ok else 'FAILED'}  {proof.name:<9} {proof.found}")

    proofs = prove(names, say)
    ok = all(proof.ok for proof in proofs)
    report = {
        "ok": ok,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "proofs": [asdict(proof) for proof in proofs],
    }
    KEPT.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    KEPT.write_text(json.dumps(report, indent=2) + "\n")
    if given.json:
        print(json.dumps(report, indent=2))
    return 0 if ok else 1


def _settings() -> Settings:
    """The domain and nginx's ports, from the variables that the installer used."""
    import yaml

    found = yaml.safe_load(_text(ETC / "vars.yml")) or {}
    return Settings(
        domain=str(found.get("ai_domain") or ""),
        http=int(found.get("ai_http_port") or 80),
        https=int(found.get("ai_https_port") or 443),
        roots=str(found.get("tls_acme_ca") or "") or None,
    )


def _postgres_port() -> str:
    match = re.search(r"&port=(\d+)", _text(ETC / "settings.env"))
    return match[1] if match else "5432"


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _said(line: Sequence[str], *, check: bool = True, limit_s: float = CALL_S) -> str:
    done = subprocess.run(
        line, check=False, capture_output=True, text=True, timeout=limit_s, cwd="/"
    )
    if check and done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip())[-400:]
        raise NotRunningError(f"{' '.join(line[:3])}: {words or done.returncode}")
    return done.stdout or done.stderr


def _json(line: Sequence[str], *, check: bool = True, limit_s: float = CALL_S) -> Any:
    said = _said(line, check=check, limit_s=limit_s)
    try:
        return json.loads(said)
    except ValueError:
        if check:
            raise
        return None


def _deep(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        if value.get(name):
            return value[name]
        for inner in value.values():
            if (found := _deep(inner, name)) is not None:
                return found
    return None


if __name__ == "__main__":
    sys.exit(main())
