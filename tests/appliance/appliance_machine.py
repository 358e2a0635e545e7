"""A fresh Debian server for the installer's tests: systemd boots in a container of its own.

The base root, the Debian packages, the wheels and the npm packages are fetched once, as this
machine's apt, pip and npm are configured, into `CACHE`; each test writes on a layer above. The
container has no network but its loopback, so its ports are the real ones and nothing is fetched.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
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
NPMRC = "offline=true\ncache=/npm\n"


def prepare() -> None:
    """Fetch what is missing in the cache."""
    began_s = time.monotonic()
    CACHE.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as threads:
        root = threads.submit(_base)
        parts = [root, threads.submit(_npm)]
        if suite() == ours():
            parts.append(threads.submit(_wheels))
        for done in parts:
            done.result()
        if suite() != ours():
            _wheels()
    print(f"figure prepared {time.monotonic() - began_s:.1f} s")


def able() -> bool:
    """Whether this machine lets root mount and make namespaces, as a container of it may not."""
    line = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc"]
    line += ["mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(line, check=False, capture_output=True).returncode == 0


def suite() -> str:
    """What the server is: this machine's own Debian, or another by AI_INFRA_TEST_SUITE, such as
    trixie, where this machine's apt knows an archive that has it.
    """
    return os.environ.get("AI_INFRA_TEST_SUITE") or ours()


def ours() -> str:
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
        _lay(base(), folder)
        (self.root / "etc/pip.conf").write_text(PIP)
        (self.root / "root/.npmrc").write_text(NPMRC)

    def boot(self) -> float:
        """Start it and wait for systemd; how long it took, in seconds."""
        began_s = time.monotonic()
        line = ["systemd-nspawn", "--quiet", "-D", str(self.root), "--register=no", "--keep-unit"]
        line += ["--private-network", f"--bind-ro={SOURCE}:/src", f"--bind-ro={WHEELS}:/wheels"]
        line += [f"--bind={NPM}:/npm", "--kill-signal=SIGRTMIN+3", "--boot"]
        # Namespaces inside namespaces: the sandbox mounts a /proc of its own.
        env = {**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"}
        if suite() != ours():  # a newer systemd wants the one hierarchy of control groups
            env["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"] = "1"
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
        _lift(self.folder)


MOVING = (
    "/proc", "/sys", "/dev", "/run", "/tmp", "/src", "/wheels", "/npm", "/var/tmp",
    "/var/cache", "/var/lib/ucf", "/var/log/journal", "/var/lib/systemd", "/var/lib/dpkg",
    "/var/lib/apt", "/var/log/apt", "/etc/machine-id", "/etc/default/locale", "/var/log/wtmp",
    "/var/log/btmp", "/var/log/lastlog", "/var/log/dpkg.log", "/var/log/alternatives.log",
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
        line = ["mmdebstrap", "--variant=minbase", f"--include={BARE}", "--dpkgopt=force-unsafe-io"]
        line += [f"--aptopt={path}" for path in sorted(Path("/etc/apt").glob("apt.conf.d/99*"))]
        _do(*line, suite(), str(new), *map(str, _lists()))
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


def _lists() -> list[Path]:
    """Where this machine's apt gets its packages from; for another suite the same archives."""
    etc = Path("/etc/apt")
    lists = [*etc.glob("sources.list.d/*.sources"), etc / "sources.list"]
    lists = [path for path in lists if path.is_file() and path.stat().st_size]
    if suite() == ours():
        return lists
    made = []
    for path in lists:
        text, changed = re.subn(rf"\b{ours()}\b", suite(), path.read_text())
        if changed:
            made.append(CACHE / f"{suite()}-{path.name}")
            made[-1].write_text(text)
    return made


def _wheels() -> None:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())
    wanted = "\n".join([*project["project"]["dependencies"], *project["build-system"]["requires"]])
    for_it = "" if suite() == ours() else f"{suite()}-"
    stamp = CACHE / f"wheels-{for_it}{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
    if stamp.exists():
        return
    WHEELS.mkdir(parents=True, exist_ok=True)
    tool = CACHE / "pip"
    if not (tool / "bin" / "pip").exists():
        _do(SYSTEM_PYTHON, "-m", "venv", str(tool))
    listed = CACHE / "wanted.txt"
    listed.write_text(wanted + "\nwheel\n")
    line = ["download", "-q", "-d", str(WHEELS), "-r", str(listed)]
    if suite() == ours():
        _do(str(tool / "bin/pip"), *line)
    else:  # its own Python says which wheels fit
        _do(str(tool / "bin/pip"), "download", "-q", "--no-deps", "-d", str(tool), "pip")
        (pip,) = tool.glob("pip-*.whl")
        _within(base(), ["python3", f"{pip}/pip", *line])
    stamp.touch()


def _within(root: Path, line: list[str]) -> None:
    """Run that in the root, which sees this machine's cache, pip's settings and certificates; what
    else it writes is thrown away.
    """
    home, own = Path.home(), ("PIP_", "SSL_", "REQUESTS_")
    seen = [CACHE, *map(Path, ("/etc/ssl", "/etc/pip.conf", "/etc/xdg/pip", "/opt"))]
    seen += [home / ".config/pip", home / ".pip"]
    env = {key: value for key, value in os.environ.items() if key.startswith(own)}
    env |= {"PATH": PATH, "HOME": str(home)}
    with layer(root, Path(tempfile.mkdtemp(prefix="ai-within-", dir="/var/tmp"))) as top:
        mounts = ["--bind", str(top), "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
        for path in seen:
            mounts += ["--bind-try", str(path), str(path)]
        told = [f"{key}={value}" for key, value in env.items()]
        _do("bwrap", *mounts, "env", "-i", *told, *line)


@contextlib.contextmanager
def layer(root: Path, folder: Path) -> Iterator[Path]:
    """The root as something to write on, for the block."""
    try:
        yield _lay(root, folder)
    finally:
        _lift(folder)


def _lay(root: Path, folder: Path) -> Path:
    top = folder / "root"
    for name in ("root", "upper", "work"):
        (folder / name).mkdir(parents=True)
    layers = f"lowerdir={root},upperdir={folder / 'upper'},workdir={folder / 'work'}"
    _do("mount", "-t", "overlay", "overlay", "-o", layers, str(top))
    return top


def _lift(folder: Path) -> None:
    _do("umount", "-l", str(folder / "root"), check=False)
    shutil.rmtree(folder, ignore_errors=True)


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
