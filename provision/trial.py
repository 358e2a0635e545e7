"""`nginx -t` where it can do nothing: a read-only machine, no network, no capability.

As root, plain `nginx -t` creates every log file that a configuration names, wherever that is.
Here it runs in bubblewrap as nobody special in a user namespace (root's files can be read, as
certificates' keys must be), in an empty network namespace in which any port and any address may
be bound. What nginx opens for writing lies on throw-away file systems; names that it looks up
are in a hosts file, for there is nobody to ask.
"""

from __future__ import annotations

import os
from pathlib import Path

from base.errors import SandboxError
from provision.box import Box
from provision.child import command
from provision.disk import write
from provision.owner import Owner

TRIAL_S = 20.0
HOSTS = Path("/etc/hosts")
#: nginx was built to make its folders for bodies and answers here.
BUILT_IN = (Path("/var/lib/nginx"), Path("/var/log/nginx"), Path("/run"))
#: Run with a /proc of its own, for a hardened unit sees /proc/sys read-only.
OPEN_PORTS = """
echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
echo 1 >/proc/sys/net/ipv4/ip_nonlocal_bind
[ ! -e /proc/sys/net/ipv6/ip_nonlocal_bind ] || echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind
exec "$@"
"""


async def faults(
    box: Box, owner: Owner, root: Path, generation: Path | None, *, main: Path | None = None
) -> str | None:
    """nginx's own words against the whole configuration with `generation` in use, or None.

    root: the folder of generations. generation None: with none of ours, the owner's alone.
    main: tried in the place of nginx.conf. Raises SandboxError when the trial itself cannot be
    made: then nothing may be switched.
    """
    hosts = box.state / "nginx" / "trial-hosts"
    lines = [HOSTS.read_text() if HOSTS.exists() else "127.0.0.1 localhost"]
    write(hosts, "\n".join([*lines, *(f"127.0.0.1 {name}" for name in owner.hosts), ""]).encode())
    argv = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        argv += ["--user", "--map-root-user"]
    argv += ["/bin/sh", "-euc", OPEN_PORTS, "sh", "bwrap", "--ro-bind", "/", "/"]
    argv += ["--dev", "/dev", "--proc", "/proc"]
    argv += ["--unshare-user", "--uid", "65533", "--gid", "65533", "--unshare-pid"]
    argv += ["--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL", "--new-session"]
    argv += ["--die-with-parent", "--chdir", "/"]
    for folder in _outermost({*BUILT_IN, *owner.writes}, box):
        argv += ["--tmpfs", str(folder)]
    argv += ["--ro-bind", str(hosts), os.path.realpath(HOSTS)]
    if root.is_dir():
        argv += ["--tmpfs", str(root)]
        if generation is not None:
            inside = root / "generations" / "trial"
            argv += ["--ro-bind", str(generation), str(inside)]
            argv += ["--symlink", "generations/trial", str(root / "current")]
    if main is not None:
        argv += ["--ro-bind", str(main), str(box.nginx / "nginx.conf")]
    argv += ["nginx", "-t", "-q", "-c", str(box.nginx / "nginx.conf")]
    try:
        ended = await command(argv, deadline_s=TRIAL_S)
    except OSError as error:
        raise SandboxError(f"the trial of nginx's configuration cannot be made: {error}") from error
    said = "\n".join(line for line in ended.said.splitlines() if "[warn]" not in line).strip()
    if ended.well:
        return None
    if "nginx:" not in ended.said and "[emerg]" not in ended.said:
        raise SandboxError(f"the trial of nginx's configuration cannot be made: {said}")
    return said.replace(str(root / "generations" / "trial"), str(root / "current"))


def _outermost(folders: set[Path], box: Box) -> list[Path]:
    """Those that there are, without what lies in another, and none that hides what is read."""
    read = (box.nginx, box.letsencrypt, box.config, box.state, Path("/usr"), Path("/etc"))
    real = {folder.resolve() for folder in folders if folder.is_dir()}
    real = {one for one in real if not any(path.is_relative_to(one) for path in read)}
    return sorted(
        one for one in real if not any(one != two and one.is_relative_to(two) for two in real)
    )
