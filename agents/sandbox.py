"""Where the hands work: what of this machine the sandbox shows.

`look` measures; `settings`, `first` and `last` are pure functions of what was measured: the
runtime's settings, and bubblewrap's arguments that we lay around the runtime's. The workspace
appears at its own real path, so that a path in a compiler's message is the path that the person
has.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from base.errors import SandboxError

TOOLBOX = "/run/hands/toolbox.zip"
START = f"import sys; sys.path[:0] = [{TOOLBOX!r}]; from toolbox.server import main; main()"
HOME = "/home/hands"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ROOT_NAMES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
ETC_NAMES = (
    "alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ssl/certs", "ssl/openssl.cnf",
    "ca-certificates", "pki", "localtime", "timezone", "mime.types", "magic", "perl",
    "java-11-openjdk", "java-17-openjdk", "java-21-openjdk", "java-25-openjdk",
)  # fmt: skip
#: Folders in memory that may be written, each with one part in so many of `scratch_bytes`.
SCRATCH = {"/tmp": 1, "/home": 1, "/var/tmp": 8, "/dev/shm": 8, "/run": 32, "/root": 32}
#: Folders of the kernel, which the runtime mounts anew; /sys is emptied by us.
KERNEL = {"proc", "dev", "sys"}
#: What the runtime sets in the environment and nothing here needs.
NOISE = (
    "SANDBOX_RUNTIME", "CLAUDE_CODE_HOST_HTTP_PROXY_PORT", "CLAUDE_CODE_HOST_SOCKS_PROXY_PORT",
    "CLOUDSDK_PROXY_TYPE", "CLOUDSDK_PROXY_ADDRESS", "CLOUDSDK_PROXY_PORT",
    "CLOUDSDK_PROXY_USERNAME", "CLOUDSDK_PROXY_PASSWORD", "DOCKER_HTTP_PROXY",
    "DOCKER_HTTPS_PROXY", "RSYNC_PROXY", "FTP_PROXY", "ftp_proxy", "GRPC_PROXY", "grpc_proxy",
)  # fmt: skip
#: Programs the sandbox is made of, and the package of each.
PACKAGES = {"bwrap": "bubblewrap", "socat": "socat", "rg": "ripgrep", "setpriv": "util-linux"}
#: On which bubblewrap tells its child, of the numbers inside the driver's command.
INFO_FD = 5
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who the hands are. `switch`: we are root and must become this user first."""

    name: str
    uid: int
    gid: int
    switch: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the sandbox shows and lets do. Every path is real and there.

    roots: the folders in / that are no links; read, write: what is shown of them; hidden: never
    shown, not even below what is read; frozen: read-only though below what is written; box: the
    folder with what is handed in; private_etc: names below /etc that are made up.
    """

    workspace: str
    writable: bool
    roots: tuple[str, ...]
    read: tuple[str, ...]
    write: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    box: str
    private_etc: tuple[str, ...]
    python: str
    code: str
    scratch_bytes: int
    environment: Mapping[str, str]


def settings(view: View) -> dict[str, Any]:
    """The runtime's own settings. No domain is allowed there, so that each one is asked for."""
    written = ((view.workspace,) if view.writable else ()) + view.write
    shown = view.read if view.writable else (*view.read, view.workspace)
    return {
        "network": {"allowedDomains": [], "deniedDomains": []},
        "filesystem": {
            "denyRead": [_literal(path) for path in ("/", *view.hidden)],
            "allowRead": [_literal(path) for path in shown],
            "allowWrite": [_literal(path) for path in written],
            "denyWrite": [_literal(path) for path in view.frozen],
        },
        "bwrapPath": f"{view.code}/bwrap",
        "socatPath": f"{view.code}/socat",
        "allowGitConfig": True,
    }


def command(view: View) -> str:
    """What runs inside, as a line for bash. No `pkill python` in there means it."""
    words = [view.python, "-I", "-S", "-B", "-X", "utf8", "-c", START]
    return f"exec -a hands {shlex.join(words)}"


def line(words: Sequence[str]) -> str:
    """A program and its arguments as a shell's line, which becomes the program."""
    return f"exec {shlex.join(words)}"


def first(info_fd: int) -> list[str]:
    """bubblewrap's arguments that come before those of the runtime."""
    out = ["--clearenv", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    return [*out, "--hostname", "hands", "--info-fd", str(info_fd)]


def last(view: View) -> list[str]:
    """bubblewrap's arguments that come behind those of the runtime, and so win."""
    out: list[str] = []
    for name in NOISE:
        out += ["--unsetenv", name]
    for name, value in view.environment.items():
        out += ["--setenv", name, value]
    scratch = shares(view.scratch_bytes)
    out += ["--perms", "1777", "--size", str(scratch["/dev/shm"]), "--tmpfs", "/dev/shm"]
    out += ["--remount-ro", "/dev", "--size", "4096", "--tmpfs", "/sys", "--remount-ro", "/sys"]
    out += ["--perms", "0755", "--dir", HOME]
    for name in view.private_etc:
        out += ["--ro-bind", f"{view.box}/etc/{name}", f"/etc/{name}"]
    out += ["--ro-bind", f"{view.box}/toolbox.zip", TOOLBOX]
    out += _again(view)
    shown = (*view.read, *view.write, view.workspace)
    for root in view.roots:
        if root not in scratch and not any(_within(root, path) for path in shown):
            out += ["--remount-ro", root]
    return [*out, "--chdir", view.workspace]


def _again(view: View) -> list[str]:
    """Written folders below one that is read: the runtime lays the reading over the writing.

    What is frozen in them comes with its parents, each a mount, so that none can be moved away.
    """
    out: list[str] = []
    for folder in ((view.workspace,) if view.writable else ()) + view.write:
        if not any(_within(folder, path) for path in view.read):
            continue
        frozen = [path for path in view.frozen if _within(path, folder)]
        parents = {str(up) for path in frozen for up in PurePath(path).parents}
        inner = sorted(up for up in parents if _within(up, folder) and up != folder)
        for path in (folder, *inner):
            out += ["--bind", path, path]
        for path in frozen:
            out += ["--ro-bind", path, path]
    return out


def shares(scratch_bytes: int) -> dict[str, int]:
    """Bytes of each scratch folder."""
    return {path: scratch_bytes // share for path, share in SCRATCH.items()}


def environment(
    rules: Sequence[str], more: Mapping[str, str], *, node: str | None
) -> dict[str, str]:
    """The variables inside, beside the runtime's own about its proxy.

    `rules`: the addresses that may be reached; a loopback host among them is asked for by proxy.
    """
    reached = {rule.rpartition(":")[0] for rule in rules}
    direct = ",".join(host for host in LOOPBACK if host not in reached)
    path = f"{HOME}/.local/bin:{PATH}" + (f":{node}/bin" if node else "")
    own = {"PATH": path, "HOME": HOME, "LANG": "C.UTF-8", "TERM": "dumb", "TMPDIR": "/tmp"}
    return {**own, "NO_PROXY": direct, "no_proxy": direct, **more}


def etc(account: Account) -> dict[str, str]:
    """The files of /etc that are made up, by name, so that no account of the machine is told."""
    who = f"hands:x:{account.uid}:{account.gid}::{HOME}:/bin/bash\n"
    return {
        "passwd": f"root:x:0:0::/root:/bin/sh\n{who}nobody:x:65534:65534::/:/bin/false\n",
        "group": f"root:x:0:\nhands:x:{account.gid}:\nnogroup:x:65534:\n",
        "hosts": "127.0.0.1 localhost hands\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "resolv.conf": "# names are resolved by the proxy\n",
        "gitconfig": "[safe]\n\tdirectory = *\n"
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


def programs() -> dict[str, str]:
    """The paths of what the sandbox needs, or SandboxError with the line that installs it."""
    found = {name: shutil.which(name) for name in PACKAGES}
    missing = [PACKAGES[name] for name, path in found.items() if path is None]
    if missing:
        raise SandboxError(
            f"{', '.join(missing)} not installed: apt-get install {' '.join(missing)}"
        )
    return {name: path for name, path in found.items() if path is not None}


def look(
    *, workspace: Path, writable: bool, read: Sequence[str], write: Sequence[str],
    frozen: Sequence[str], hidden: Sequence[str], box: Path, who: Account, code: Path,
    scratch_bytes: int, environment: Mapping[str, str],
) -> View:  # fmt: skip
    """Measure this machine for a view of it. Paths that are not there are left out."""
    interpreter, more = python(who)
    roots = tuple(
        sorted(entry.path for entry in os.scandir("/") if entry.is_dir(follow_symlinks=False))
    )
    system = ["/usr", *(f"/{name}" for name in ROOT_NAMES if f"/{name}" in roots)]
    system += [f"/etc/{name}" for name in ETC_NAMES]
    shown = dict.fromkeys(os.path.realpath(path) for path in (*system, *more, *read))
    open_etc = any(_within("/etc", path) for path in shown)
    return View(
        workspace=str(workspace),
        writable=writable,
        roots=tuple(path for path in roots if path[1:] not in KERNEL),
        read=tuple(path for path in shown if os.path.exists(path)),
        write=tuple(os.path.realpath(path) for path in write if os.path.isdir(path)),
        hidden=tuple(os.path.realpath(path) for path in hidden if os.path.isdir(path)),
        frozen=tuple(frozen),
        box=str(box),
        private_etc=tuple(
            name
            for name in etc(who)
            if not open_etc
            or (os.path.isfile(f"/etc/{name}") and not os.path.islink(f"/etc/{name}"))
        ),
        python=interpreter,
        code=str(code),
        scratch_bytes=scratch_bytes,
        environment=environment,
    )


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


def _literal(path: str) -> str | dict[str, Any]:
    """A path as the runtime takes it: marked when it would read as a pattern."""
    return {"path": path, "literal": True} if set("*?[]") & set(path) else path


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
