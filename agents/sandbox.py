"""Where the hands work: what of this machine the sandbox shows, and bubblewrap's arguments.

`look` measures, `argv` is a pure function of what was measured. The workspace appears at its own
real path, so that a path in a compiler's message is the path that the person has.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from base.errors import SandboxError

TOOLBOX = "/run/hands/toolbox.zip"
START = f"import sys; sys.path[:0] = [{TOOLBOX!r}]; from toolbox.server import main; main()"
HOME = "/home/hands"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": HOME,
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}
ROOT_NAMES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
ETC_NAMES = (
    "alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ssl/certs", "ssl/openssl.cnf",
    "ca-certificates", "pki", "localtime", "timezone", "mime.types", "magic", "perl",
    "java-11-openjdk", "java-17-openjdk", "java-21-openjdk", "java-25-openjdk",
)  # fmt: skip
#: Empty folders in memory, each with one part in so many of `Limits.scratch_bytes`.
SCRATCH = {"/tmp": 1, "/home": 2, "/var/tmp": 8, "/dev/shm": 8, "/run": 32, "/root": 32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one task's hands may take. Processes count together, the rest is for each process."""

    processes: int = 256
    memory_bytes: int = 4 << 30
    file_bytes: int = 2 << 30
    open_files: int = 1024
    cpu_s: int = 3600
    scratch_bytes: int = 512 << 20
    output_bytes: int = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who the hands are. `switch`: we are root and must become this user first."""

    name: str
    uid: int
    gid: int
    switch: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the sandbox shows. `roots`: name below / to its link target, or None for a folder.

    `more`: further folders shown read-only; `files`: path inside to the descriptor it is from.
    """

    bwrap: str
    python: str
    workspace: str
    roots: Mapping[str, str | None]
    files: Mapping[str, int]
    info_fd: int
    more: Sequence[str] = ()
    scratch_bytes: int = 512 << 20
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)


def argv(view: View) -> list[str]:
    """The whole command line: no network, no capabilities, process 1 is the toolbox."""
    out = [view.bwrap, "--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-ipc"]
    out += ["--unshare-uts", "--unshare-cgroup-try", "--unshare-net", "--hostname", "hands"]
    out += ["--cap-drop", "ALL", "--new-session", "--die-with-parent", "--as-pid-1"]
    out += ["--info-fd", str(view.info_fd), "--clearenv"]
    for name, value in view.environment.items():
        out += ["--setenv", name, value]
    out += ["--ro-bind", "/usr", "/usr"]
    for name, target in view.roots.items():
        out += (
            ["--symlink", target, f"/{name}"] if target else ["--ro-bind", f"/{name}", f"/{name}"]
        )
    out += ["--perms", "0755", "--dir", "/etc"]
    for name in ETC_NAMES:
        out += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    out += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    for path, share in SCRATCH.items():
        out += ["--perms", "1777", "--size", str(view.scratch_bytes // share), "--tmpfs", path]
    out += ["--dir", HOME]
    for path in view.more:
        out += ["--ro-bind", path, path]
    for path, fd in view.files.items():
        out += ["--perms", "0444", "--ro-bind-data", str(fd), path]
    out += ["--bind", view.workspace, view.workspace, "--remount-ro", "/"]
    out += ["--chdir", view.workspace, "--"]
    return [*out, view.python, "-I", "-S", "-B", "-X", "utf8", "-c", START]


def etc(account: Account) -> dict[str, str]:
    """The files of /etc that are made up, so that no account of the machine is told."""
    who = f"hands:x:{account.uid}:{account.gid}::{HOME}:/bin/bash\n"
    return {
        "/etc/passwd": f"root:x:0:0::/root:/bin/sh\n{who}nobody:x:65534:65534::/:/bin/false\n",
        "/etc/group": f"root:x:0:\nhands:x:{account.gid}:\nnogroup:x:65534:\n",
        "/etc/hosts": "127.0.0.1 localhost hands\n::1 localhost\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "/etc/resolv.conf": "# no network\n",
        "/etc/gitconfig": "[safe]\n\tdirectory = *\n"
        "[user]\n\tname = AI Infrastructure\n\temail = agent@localhost\n",
    }


def account(user: str | None) -> Account:
    """Who the hands shall be. Never root: SandboxError with the line that mends it."""
    uid = os.geteuid()
    if uid != 0:
        own = _own_name(uid)
        if user not in {None, own}:
            raise SandboxError(f"only root can start hands as {user}; we are {own}")
        return Account(name=own, uid=uid, gid=os.getegid(), switch=False)
    if user is None:
        raise SandboxError("hands never run as root: name an unprivileged user for them")
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise SandboxError(
            f"the hands' account {user!r} is missing: useradd --system --no-create-home "
            f"--shell /usr/sbin/nologin {user}"
        ) from None
    if entry.pw_uid == 0 or entry.pw_gid == 0:
        raise SandboxError(f"hands never run as root, and {user!r} is root or in its group")
    return Account(name=user, uid=entry.pw_uid, gid=entry.pw_gid, switch=True)


def bwrap() -> str:
    """The path of bubblewrap, or SandboxError with the line that installs it."""
    path = shutil.which("bwrap")
    if path is None:
        raise SandboxError("bubblewrap is not installed: apt-get install bubblewrap")
    return path


def roots() -> dict[str, str | None]:
    """How /bin, /lib and the like look on this machine."""
    return {
        name: os.readlink(f"/{name}") if os.path.islink(f"/{name}") else None
        for name in ROOT_NAMES
        if os.path.isdir(f"/{name}")
    }


def python(who: Account) -> tuple[str, tuple[str, ...]]:
    """An interpreter that `who` can run, and what must be shown for it besides /usr."""
    own = os.path.realpath(sys.executable)
    for path in (own, "/usr/bin/python3", "/usr/local/bin/python3"):
        if path.startswith("/usr/") and os.path.exists(path) and blocked(Path(path), who) is None:
            return path, ()
    prefix = sys.base_prefix
    deep = len(Path(prefix).parts) > 2 and own.startswith(prefix + "/")
    if deep and blocked(Path(own), who) is None:
        return own, (prefix,)
    raise SandboxError(
        f"no python3 that {who.name} can run ({own} is out of its reach): apt-get install python3"
    )


def blocked(path: Path, who: Account) -> Path | None:
    """The first folder on the way to `path` that `who` cannot pass, by its mode; None: free."""
    groups = {who.gid, *(os.getgroups() if not who.switch else ())}
    for folder in reversed(path.parents):
        try:
            status = folder.stat()
        except OSError:
            return folder
        bit = stat.S_IXOTH
        if status.st_uid == who.uid:
            bit = stat.S_IXUSR
        elif status.st_gid in groups:
            bit = stat.S_IXGRP
        if not status.st_mode & bit:
            return folder
    return None


def _own_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
