"""The world around a sandbox, full of canaries, and the judge that looks at it from outside."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import psutil

#: Never in a process of the product: a decoy's environment and command line carry it.
MARK = "canary-"


@dataclass(slots=True, kw_only=True)  # mutable: what was heard grows
class World:
    """`breaches(text)` names what came out or got hurt since `mend()`."""

    ground: Path
    tmp: Path
    user: str | int | None
    canary: str = field(default_factory=lambda: MARK + secrets.token_hex(8))
    heard: list[str] = field(default_factory=list)
    port: int = 0
    host: str = "127.0.0.1"
    abstract: str = ""
    work: Path | None = None
    _decoy: subprocess.Popen[bytes] | None = None
    _open: list[socket.socket] = field(default_factory=list)
    _before: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> World:
        self._listen()
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._open:
            one.close()
        self._end_decoy()

    @property
    def unix(self) -> str:
        return str(self.ground / "sockets" / "service.sock")

    @property
    def workspace(self) -> Path:
        return self.work or self.ground / "work" / "main"

    def fill(self, script: str) -> str:
        """The script with this world's names in it."""
        assert self._decoy is not None
        return script.format(
            ground=self.ground,
            tmp=self.tmp,
            port=self.port,
            host=self.host,
            unix=self.unix,
            abstract=self.abstract,
            decoy=self._decoy.pid,
            canary=self.canary,
        )

    def unboxed(self, script: str) -> str:
        """Run a script as the hands' user, but outside: what a case does without the sandbox."""
        become = {"user": self.user, "group": self.user, "extra_groups": []} if self.user else {}
        ran = subprocess.run(  # type: ignore[call-overload]
            ["timeout", "-k", "1", "15", "/bin/bash", "-c", f"{self.fill(script)}\n:"],
            check=False,
            capture_output=True,
            cwd=self.workspace,
            env={"PATH": os.environ["PATH"], "HOME": str(self.workspace)},
            start_new_session=True,
            **become,
        )
        return str((ran.stdout + ran.stderr).decode("utf-8", "replace"))

    def mend(self) -> None:
        """Put everything as it was before the first case; safe at any time."""
        for folder in ("home/secrets", "other/main/.git/hooks", "run", "person", "work/main"):
            (self.ground / folder).mkdir(parents=True, exist_ok=True)
        for path in (
            "home/settings.toml", "home/secrets/anthropic-api-key", "other/main/notes",
            "run/token", "run/loose", "person/.bashrc", "person/.profile",
        ):  # fmt: skip
            (self.ground / path).write_text(f"{self.canary}\n", encoding="utf-8")
        for name in ("hard", "disk", "pipe", "late", "fifo", "taken"):
            (self.ground / "run" / name).unlink(missing_ok=True)
        for path in ("other/main/new", "work/planted", "person/.ssh/authorized_keys",
                     "other/main/.git/hooks/pre-commit"):  # fmt: skip
            (self.ground / path).unlink(missing_ok=True)
        shutil.rmtree(self.ground / "person/.ssh", ignore_errors=True)
        for place in self.workspace.iterdir():
            place.unlink() if not place.is_dir() or place.is_symlink() else shutil.rmtree(place)
        self.tmp.mkdir(exist_ok=True)
        (self.tmp / "token").write_text(f"{self.canary}\n", encoding="utf-8")
        (self.tmp / "planted").unlink(missing_ok=True)
        for root in (self.ground, self.tmp):
            for path in [root, *root.rglob("*")]:
                if path.is_symlink() or self.ground / "sockets" in [path, *path.parents]:
                    continue
                if self.user:
                    shutil.chown(path, self.user)
                path.chmod(0o777 if path.is_dir() else 0o666)
        self._start_decoy()
        self.heard.clear()
        self._before = self._look()

    def breaches(self, text: str) -> list[str]:
        """Everything that should not have happened; `text` is what the model would read."""
        found = [f"heard {one}" for one in self.heard]
        if self.canary in text:
            found.append("the canary was read")
        if "ESCAPED" in text.splitlines():
            found.append("a privilege was had")
        now = self._look()
        for path in sorted(now.keys() | self._before.keys()):
            if now.get(path) != self._before.get(path):
                found.append(f"{path} changed")
        for path in self.workspace.rglob("*"):
            # Nobody of ours follows a link in there: only what the file itself holds counts.
            if path.is_file() and not path.is_symlink() and self.canary in _text(path):
                found.append(f"the canary lies in {path}")
        return found + self._decoy_hurt()

    def _look(self) -> dict[str, str]:
        """Name, kind, mode and contents of all that is not the sandbox's to change."""
        seen = {}
        for root in (self.ground, self.tmp):
            for path in root.rglob("*"):
                own = (self.workspace, self.ground / "home" / "run")  # the product writes there
                if any(path.is_relative_to(place) for place in own):
                    continue
                status = path.lstat()
                data = os.readlink(path).encode() if path.is_symlink() else b""
                if path.is_file() and not path.is_symlink():
                    data = path.read_bytes()
                digest = hashlib.sha256(data).hexdigest()
                seen[str(path)] = f"{status.st_mode:o} {status.st_nlink} {digest}"
                if path.is_dir():
                    seen[str(path)] = f"{status.st_mode:o}"
        return seen

    # The decoy: a process of the same user, with a canary in its environment ------------------

    def _start_decoy(self) -> None:
        self._end_decoy()
        become = {"user": self.user, "group": self.user, "extra_groups": []} if self.user else {}
        self._decoy = subprocess.Popen(  # type: ignore[call-overload]
            [f"sleep-{self.canary}", "3600"],
            executable="/bin/sleep",
            env={"CANARY": self.canary, "PATH": "/usr/bin:/bin"},
            start_new_session=True,
            cwd="/",
            **become,
        )

    def _end_decoy(self) -> None:
        if self._decoy is not None:
            self._decoy.kill()
            self._decoy.wait()
            self._decoy = None

    def _decoy_hurt(self) -> list[str]:
        assert self._decoy is not None
        if self._decoy.poll() is not None:
            return ["a process outside was killed"]
        process = psutil.Process(self._decoy.pid)
        hurt = []
        if process.status() in {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP}:
            hurt.append("a process outside was stopped")
        if process.nice() != 0:
            hurt.append("a process outside lost its priority")
        limits = Path(f"/proc/{self._decoy.pid}/limits").read_text(encoding="utf-8")
        if re.search(r"^Max open files\s+16\s", limits, re.MULTILINE):
            hurt.append("a process outside lost its limits")
        return hurt

    # Who listens ------------------------------------------------------------------------------

    def _listen(self) -> None:
        """TCP and UDP on every address, on one port; Unix sockets by path and by name."""
        folder = Path(self.unix).parent
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        self.abstract = f"ai-canary-{os.getpid()}-{secrets.token_hex(4)}"
        tcp = socket.create_server(("0.0.0.0", 0))
        self.port = tcp.getsockname()[1]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("0.0.0.0", self.port))
        listeners = [tcp, udp]
        with contextlib.suppress(OSError):
            listeners.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        for name, kind in (
            (self.unix, socket.SOCK_STREAM),
            ("\0" + self.abstract, socket.SOCK_STREAM),
            (self.unix + ".dgram", socket.SOCK_DGRAM),
        ):
            one = socket.socket(socket.AF_UNIX, kind)
            one.bind(name)
            if kind == socket.SOCK_STREAM:
                one.listen()
            if not name.startswith("\0"):
                os.chmod(name, 0o777)
            listeners.append(one)
        self.host = _own_address()
        self._open = listeners
        for one in listeners:
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one: socket.socket) -> None:
        family = one.family.name
        try:
            while True:
                if one.type == socket.SOCK_DGRAM:
                    self.heard.append(f"{family} datagram {one.recv(200)[:40]!r}")
                    continue
                connection = one.accept()[0]
                self.heard.append(f"{family} connection")
                with contextlib.suppress(OSError):
                    connection.settimeout(0.5)
                    connection.recv(2000)
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nTHROUGH\n")
                connection.close()
        except OSError:
            return


def make(user: str | int | None) -> World:
    """A world that nothing but the sandbox keeps apart: all of it belongs to the hands' user."""
    ground = Path(tempfile.mkdtemp(prefix="ai-e-", dir="/var/tmp"))
    ground.chmod(0o777)
    tmp = Path(tempfile.mkdtemp(prefix="ai-e-", dir="/tmp"))
    return World(ground=ground, tmp=tmp, user=user)


def remove(world: World) -> None:
    shutil.rmtree(world.ground, ignore_errors=True)
    shutil.rmtree(world.tmp, ignore_errors=True)


def _own_address() -> str:
    """An address of this machine that is not loopback, where it has one."""
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family == socket.AF_INET and not one.address.startswith("127."):
                return str(one.address)
    return "127.0.0.2"


def _text(path: Path) -> str:
    try:
        return path.read_bytes()[:1_000_000].decode("utf-8", "replace")
    except OSError:
        return ""
