"""Backups to another machine: restic by way of ssh, to an sshd of our own on this one."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from present import need, wait_for

from base.backup import command, restore, staging
from base.backup import create as making
from base.errors import BackupError
from tests.backup.conftest import Home, say

SERVER = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/allowed
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
"""
#: What stands in ~/.ssh of whoever makes backups.
CLIENT = """IdentityFile {folder}/own
IdentitiesOnly yes
UserKnownHostsFile {folder}/known
GlobalKnownHostsFile /dev/null
"""


@dataclass(frozen=True, kw_only=True)
class Nas:
    """The other machine; files: `allowed` says who may come, `known` who it is."""

    folder: Path
    port: int

    def know(self) -> None:
        key = (self.folder / "host.pub").read_text()
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {key}")

    def allow(self) -> None:
        (self.folder / "allowed").write_text((self.folder / "own.pub").read_text())


@pytest.fixture
def nas(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nas]:
    program = need("sshd")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    for name in ("host", "own"):
        line = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(line, check=True)
    for name, text in (("sshd", SERVER), ("client", CLIENT)):
        (tmp_path / name).write_text(text.format(folder=tmp_path, port=port))
    # ssh looks for its files in the account's home, whatever HOME says.
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {need("ssh")} -F {tmp_path / "client"} "$@"\n')
    ssh.chmod(0o755)
    monkeypatch.setattr(command, "PATH", f"{ssh.parent}:{command.PATH}")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    server = subprocess.Popen(
        [program, "-D", "-f", str(tmp_path / "sshd"), "-E", str(tmp_path / "log")]
    )

    def listens() -> bool:
        with socket.socket() as asked:
            return asked.connect_ex(("127.0.0.1", port)) == 0

    wait_for("sshd", listens)
    place = f"sftp://{getpass.getuser()}@127.0.0.1:{port}{tmp_path / 'kept'}"
    (home.path / "config" / "backup.toml").write_text(f'repository = "{place}"\n')
    yield Nas(folder=tmp_path, port=port)
    server.terminate()
    server.wait(10)


def test_there_and_back(home: Home, nas: Nas) -> None:
    nas.know()
    nas.allow()
    done = asyncio.run(making.create(home.settings, say))
    assert (nas.folder / "kept" / "config").is_file()
    asyncio.run(making.verify(home.settings, whole=True))
    home.add_user("later")
    told = asyncio.run(restore.restore(home.settings, say))
    assert told.snapshot == done.snapshot
    assert home.users() == ["ada@example.org"]


@pytest.mark.parametrize(
    ("knows", "allows", "words"),
    [
        (False, True, "Host key verification failed"),
        (True, False, "Permission denied"),
    ],
)
def test_one_that_is_not_known_or_does_not_let_in_is_named(
    home: Home, nas: Nas, knows: bool, allows: bool, words: str
) -> None:
    """In ssh's own words if restic hands them on, and without a question that nobody answers."""
    if knows:
        nas.know()
    if allows:
        nas.allow()
    with pytest.raises(BackupError, match=f"{words}|ssh ended without a word") as error:
        asyncio.run(making.create(home.settings, say))
    assert f"`ssh -p {nas.port} {getpass.getuser()}@127.0.0.1` must work" in str(error.value)
    assert not staging.folder(home.settings).exists()
