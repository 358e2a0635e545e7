"""A fresh Debian server for the installer's tests: systemd boots in a container of its own.

The base root, the Debian packages, the wheels and the npm packages are fetched once, as this
machine's apt, pip and npm are configured, into `CACHE`; each test writes on a layer above. The
container has no network but its loopback, so its ports are the real ones and nothing is fetched.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from present import need

SOURCE = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("AI_INFRA_TEST_CACHE", "~/.cache/ai-infra-tests")).expanduser()
WHEELS, NPM = CACHE / "wheels", CACHE / "npm"
#: What a bare server from a provider's image has, and what the test itself needs in it.
BARE = "systemd,systemd-sysv,dbus,python3,ca-certificates,iproute2,openssh-server,procps,curl"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEM_PYTHON = "/usr/bin/python3"
BOOT_S = 60.0
#: As the owner of a server says it for all programs.
PIP = "[global]\nno-index = true\nfind-links = /wheels\n[install]\nno-compile = true\n"


def prepare() -> None:
    """Fetch what is missing in the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as threads:
        for done in [threads.submit(part) for part in (_base, _wheels, _npm)]:
            done.result()


def able() -> bool:
    """Whether this machine lets root mount and make namespaces, as a container of it may not."""
    line = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc"]
    line += ["mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(line, check=False, capture_output=True).returncode == 0


def suite() -> str:
    """This machine's own Debian, so that its Python fits the wheels that it fetches; another one
    whose root and wheels are in the cache already, by AI_INFRA_TEST_SUITE.
    """
    if given := os.environ.get("AI_INFRA_TEST_SUITE"):
        return given
    found = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    return found.get("VERSION_CODENAME", "bookworm").strip('"')


def base() -> Path:
    return CACHE / f"root-{suite()}"


class Machine:
    """One server on a layer of its own. `close` it; its layer goes with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        for name in ("root", "upper", "work"):
            (folder / name).mkdir(parents=True)
        layers = f"lowerdir={base()},upperdir={folder / 'upper'},workdir={folder / 'work'}"
        _do("mount", "-t", "overlay", "overlay", "-o", layers, str(self.root))
        (self.root / "etc/pip.conf").write_text(PIP)
        (self.root / "root/.npmrc").write_text("offline=true\ncache=/npm\n")

    def boot(self) -> float:
        """Start it and wait for systemd; how long it took, in seconds."""
        began_s = time.monotonic()
        line = ["systemd-nspawn", "--quiet", "-D", str(self.root), "--register=no", "--keep-unit"]
        line += ["--private-network", f"--bind-ro={SOURCE}:/src", f"--bind-ro={WHEELS}:/wheels"]
        line += [f"--bind={NPM}:/npm", "--kill-signal=SIGRTMIN+3", "--boot"]
        # Namespaces inside namespaces: the sandbox mounts a /proc of its own.
        env = {**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"}
        self._process = subprocess.Popen(
            line,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "console").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while time.monotonic() - began_s < BOOT_S:
            if children := _children(self._process.pid):
                self._leader = children[0]
                said = self.run("systemctl is-system-running", check=False).stdout.strip()
                if said in {"running", "degraded"}:
                    return time.monotonic() - began_s
            time.sleep(0.1)
        raise AssertionError((self.folder / "console").read_text(errors="replace")[-2000:])

    def halt(self) -> None:
        """Power it off as a person would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGRTMIN + 4)
            try:
                self._process.wait(90)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
            self._process = None

    def run(
        self, script: str, *, check: bool = True, limit_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """A script for bash, as root, inside."""
        done = subprocess.run(
            self.line(script), check=False, capture_output=True, text=True, timeout=limit_s,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"[-6000:]
        return done

    def network(self) -> list[str]:
        """What goes before a program of this machine that shall run in the server's network."""
        return ["nsenter", "-t", str(self._leader), "-n", "--"]

    def line(self, script: str) -> list[str]:
        enter = ["nsenter", "-t", str(self._leader), *["-m", "-p", "-n", "-u", "-i", "-C"], "--"]
        env = ["env", "-i", f"PATH={PATH}", "HOME=/root", "LANG=C.UTF-8"]
        return [*enter, *env, "bash", "-c", f"cd / && {script}"]

    def start(self, script: str) -> subprocess.Popen[bytes]:
        """The same, without waiting, in a session that can be killed whole."""
        return subprocess.Popen(
            self.line(script),
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "started").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def talk(self, script: str) -> subprocess.Popen[str]:
        """The same, to be listened to."""
        return subprocess.Popen(
            self.line(script),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def files(self) -> set[str]:
        """All that lies on its disk, but for what a running system writes by itself."""
        found = set()
        for folder, folders, names in os.walk(self.root):
            place = "/" + os.path.relpath(folder, self.root).removeprefix(".")
            folders[:] = [name for name in folders if not _moving(os.path.join(place, name))]
            found |= {os.path.join(place, name) for name in (*names, *folders)}
        return {path for path in found if not _moving(path)}

    def close(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait(10)
        _do("umount", "-l", str(self.root), check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


MOVING = (
    "/proc", "/sys", "/dev", "/run", "/tmp", "/src", "/wheels", "/npm", "/var/tmp",
    "/var/cache", "/var/lib/ucf", "/var/log/journal", "/var/lib/systemd", "/var/lib/dpkg",
    "/var/lib/apt", "/var/log/apt", "/etc/machine-id", "/var/log/wtmp", "/var/log/btmp",
    "/var/log/lastlog", "/var/log/dpkg.log", "/var/log/alternatives.log",
)  # fmt: skip


def _moving(path: str) -> bool:
    again = path.endswith((".pyc", "__pycache__", "-", ".dpkg-old", ".cache"))
    return again or any(path == one or path.startswith(one + "/") for one in MOVING)


def packages() -> list[str]:
    """What the installer will want, as its own variables have it."""
    defaults = SOURCE / "provision/project/roles/base/defaults/main.yml"
    wanted = yaml.safe_load(defaults.read_text())["base_packages"]
    return [*wanted, "python3-venv"]


def _base() -> None:
    root, stamp = base(), base() / "etc" / ".packages"
    if not root.is_dir():
        new = root.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        etc = Path("/etc/apt")
        lists = [*etc.glob("sources.list.d/*.sources"), etc / "sources.list"]
        lists = [path for path in lists if path.is_file() and path.stat().st_size]
        line = ["mmdebstrap", "--variant=minbase", f"--include={BARE}", "--dpkgopt=force-unsafe-io"]
        line += [f"--aptopt={path}" for path in sorted(etc.glob("apt.conf.d/99*"))]
        _do(*line, suite(), str(new), *map(str, lists))
        new.rename(root)
    wanted = " ".join(sorted(packages()))
    if not stamp.exists() or stamp.read_text() != wanted:
        resolv = root / "etc/resolv.conf"
        resolv.unlink(missing_ok=True)
        shutil.copyfile("/etc/resolv.conf", resolv)
        _do("chroot", str(root), "apt-get", "update", "-qq")
        line = ["apt-get", "install", "-y", "-qq", "-d", "--no-install-recommends"]
        _do("chroot", str(root), *line, *packages())
        stamp.write_text(wanted)


def _wheels() -> None:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())
    wanted = "\n".join([*project["project"]["dependencies"], *project["build-system"]["requires"]])
    stamp = CACHE / f"wheels-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
    if stamp.exists():
        return
    WHEELS.mkdir(parents=True, exist_ok=True)
    tool = CACHE / "pip"
    if not (tool / "bin" / "pip").exists():
        _do(SYSTEM_PYTHON, "-m", "venv", str(tool))
    listed = CACHE / "wanted.txt"
    listed.write_text(wanted + "\nwheel\n")
    _do(str(tool / "bin/pip"), "download", "-q", "-d", str(WHEELS), "-r", str(listed))
    stamp.touch()


def _npm() -> None:
    from agents import runtime_install

    lock = (runtime_install.SOURCE / "package-lock.json").read_bytes()
    stamp = CACHE / f"npm-{hashlib.sha256(lock).hexdigest()[:16]}"
    if stamp.exists():
        return
    NPM.mkdir(parents=True, exist_ok=True)
    scratch = CACHE / "npm.scratch"
    scratch.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(runtime_install.SOURCE / name, scratch / name)
    node, npm = runtime_install.npm()
    line = [str(node), str(npm), "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"]
    _do(*line, "--cache", str(NPM), "--prefix", str(scratch))
    shutil.rmtree(scratch)
    stamp.touch()


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _do(*line: str, check: bool = True) -> None:
    done = subprocess.run(line, check=False, capture_output=True, text=True, errors="replace")
    if check and done.returncode != 0:
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
        raise AssertionError(f"{' '.join(line[:4])} failed: {done.stderr.strip()[-500:]}")


@contextlib.contextmanager
def booted(owner: Mapping[str, str], *tools: str) -> Iterator[Machine]:
    """A bare server with these files of its owner's on it; skips where none can be booted.

    tools: what else the test needs. AI_INFRA_TEST_KEEP leaves it running, to be looked at.
    """
    if os.geteuid() != 0:
        pytest.skip("a container wants root")
    for tool in ("systemd-nspawn", "mmdebstrap", "nsenter", *tools):
        need(tool)
    if not able():
        assert not os.environ.get("CI"), "this machine boots no container"
        pytest.skip("this machine boots no container")
    prepare()
    machine = Machine(Path(tempfile.mkdtemp(prefix="ai-appliance-", dir="/var/tmp")))
    try:
        machine.boot()
        for path, text in owner.items():
            (machine.root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (machine.root / path[1:]).write_text(text)
        yield machine
    finally:
        if os.environ.get("AI_INFRA_TEST_KEEP"):
            print(f"kept: {machine.folder}")
        else:
            machine.close()
