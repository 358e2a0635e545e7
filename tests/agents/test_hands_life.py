"""How hands begin and end: who they are, what they refuse, and that nothing outlives them."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from present import wait_for

from agents import box, runtime_install, sandbox
from agents.hands import Hands
from base.deadline import Deadline
from base.errors import SandboxError
from base.levels import Levels
from base.settings import load

pytest_plugins = ["boxed"]

STANDARD = Levels.load().get("standard")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def processes_with(word: str) -> list[int]:
    """Host pids whose command line has `word`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(word in part for part in process.info["cmdline"] or ()):
            found.append(process.pid)
    return found


async def _sleeper(hands: Hands, word: str) -> None:
    """Start processes that try to outlive everything."""
    command = (
        f"for i in 1 2 3; do (setsid bash -c 'trap \"\" TERM HUP; exec -a {word} sleep 300' "
        "</dev/null >/dev/null 2>&1 &); done; sleep 0.3"
    )
    assert (await hands.call("shell", {"command": command}, deadline=Deadline.after(20))).ok
    wait_for("the sleepers", lambda: len(processes_with(word)) == 3)


async def test_close_leaves_no_orphan_and_may_be_called_twice(hands: Hands) -> None:
    word = f"orphan-{os.getpid()}-a"
    await _sleeper(hands, word)
    await hands.close()
    assert processes_with(word) == []
    await hands.close()
    with pytest.raises(SandboxError, match="it was closed"):
        await hands.call("shell", {"command": "id"}, deadline=Deadline.after(5))


async def test_closing_ends_the_call_that_waits(hands: Hands) -> None:
    running = asyncio.create_task(
        hands.call("shell", {"command": "sleep 60"}, deadline=Deadline.after(60))
    )
    await asyncio.sleep(0.2)
    await hands.close()
    with pytest.raises(SandboxError):
        await running


async def test_everything_dies_with_the_agent(
    workspace: Path, hands_user: str | None, ground: Path
) -> None:
    """kill -9 of the process that holds the hands, in the middle of a call."""
    word = f"orphan-{os.getpid()}-b"
    program = f"""
        import asyncio
        from pathlib import Path
        from agents.hands import Hands
        from base.deadline import Deadline
        from base.levels import Levels
        async def main():
            hands = await Hands.open(
                workspace=Path({str(workspace)!r}),
                user={hands_user!r},
                level=Levels.load().get("standard"),
            )
            command = "(exec -a {word} setsid sleep 300 &) ; exec -a {word} sleep 300"
            await hands.call("shell", {{"command": command}}, deadline=Deadline.after(300))
        asyncio.run(main())
    """
    before = set(Path("/tmp").glob(f"{box.PREFIX}*"))
    agent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    try:
        wait_for("the sleepers", lambda: len(processes_with(f"{workspace}")) >= 1)
        wait_for("the sleeper", lambda: len(_named(word)) >= 1)
        fresh = set(Path("/tmp").glob(f"{box.PREFIX}*")) - before
        below = {one.pid for one in psutil.Process(agent.pid).children(recursive=True)}
        folders = {folder for folder in fresh if below & set(_ours({folder}))}
        assert folders
    finally:
        agent.kill()
        agent.wait(10)
    wait_for("the end of all", lambda: _named(word) == [] and not _bwraps(workspace))
    wait_for("the end of the driver", lambda: not _ours(folders))
    box.sweep()
    assert [folder for folder in folders if folder.exists()] == []


def _ours(folders: set[Path]) -> list[int]:
    """The drivers and bridges of these sandboxes."""
    return [
        process.pid
        for process in psutil.process_iter(["environ"])
        if any(
            str(folder) in (process.info["environ"] or {}).get("TMPDIR", "") for folder in folders
        )
    ]


def _named(word: str) -> list[int]:
    return [pid for pid in processes_with(word) if pid != os.getpid() and _is(pid, "sleep")]


def _is(pid: int, name: str) -> bool:
    try:
        return psutil.Process(pid).name() == name
    except psutil.Error:
        return False


def _bwraps(workspace: Path) -> list[int]:
    return [pid for pid in processes_with(str(workspace)) if _is(pid, "bwrap")]


@pytest.mark.parametrize("victim", ["bwrap", "process 1", "driver"])
async def test_a_sandbox_killed_in_mid_call_is_an_error(
    hands: Hands, workspace: Path, victim: str
) -> None:
    running = asyncio.create_task(
        hands.call("shell", {"command": "touch begun; sleep 60"}, deadline=Deadline.after(60))
    )
    while not (workspace / "begun").exists():
        await asyncio.sleep(0.02)
    process_1 = hands._box.pid
    parts = {
        "process 1": process_1,
        "bwrap": psutil.Process(process_1).ppid(),
        "driver": hands._process.pid,
    }
    begun_s = time.monotonic()
    os.kill(parts[victim], signal.SIGKILL)
    with pytest.raises(SandboxError, match="the sandbox is gone: it was killed"):
        await running
    assert time.monotonic() - begun_s < 10
    with pytest.raises(SandboxError, match="gone"):
        await hands.call("read", {"path": "begun"}, deadline=Deadline.after(5))


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("print('hello')", "no answer"),
        ("print('[]')", "no answer"),
        ('print(\'{"id": 1, "ok": true}\')', "no answer"),
        ('print(\'{"id": 7, "ok": true, "text": "x"}\')', "nobody had asked"),
        ('print(\'{"id": 1, "ok": 1, "text": "x"}\')', "nobody had asked"),
        ("print('[' * 100_000)", "no answer"),
        ("print('x' * 9_000_000)", "too long"),
        ("raise SystemExit('broken toolbox')", "broken toolbox"),
    ],
)
async def test_an_answer_that_is_none_ends_the_sandbox(
    workspace: Path,
    hands_user: str | None,
    monkeypatch: pytest.MonkeyPatch,
    says: str,
    told: str,
) -> None:
    archive = _zip(
        f"import sys, time\nsys.stdin.readline()\n{says}\nsys.stdout.flush()\ntime.sleep(9)"
    )
    monkeypatch.setattr(box, "toolbox", lambda: archive)
    with pytest.raises(SandboxError, match=told):
        await Hands.open(workspace=workspace, user=hands_user, level=STANDARD)
    wait_for("the end", lambda: not _bwraps(workspace))


async def test_an_answer_is_text_that_can_be_stored(
    workspace: Path, hands_user: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
        import json, sys
        half = chr(0xd800)
        for line in sys.stdin:
            answer = {"id": json.loads(line)["id"], "ok": True, "text": f"a{half}"}
            print(json.dumps({**answer, "files": [half], "untrusted": half}), flush=True)
        """
    archive = _zip(textwrap.dedent(program))
    monkeypatch.setattr(box, "toolbox", lambda: archive)
    hands = await Hands.open(workspace=workspace, user=hands_user, level=STANDARD)
    try:
        got = await hands.call("shell", {"command": "x"}, deadline=Deadline.after(10))
    finally:
        await hands.close()
    assert (got.text, got.files, got.untrusted) == ("a?", ("?",), "?")


async def test_a_start_that_fails_leaves_nothing_open(
    workspace: Path, hands_user: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def _no_process(*_: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    def _full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = os.listdir("/proc/self/fd")
    for name, fails in (("_start", _no_process), ("_prepare", _full), ("_write", _full)):
        with monkeypatch.context() as patch:
            patch.setattr(box, name, fails)
            with pytest.raises(SandboxError, match="did not start"):
                await Hands.open(workspace=workspace, user=hands_user, level=STANDARD)
    wait_for("the end", lambda: not _bwraps(workspace))
    await asyncio.sleep(0.5)
    assert len(os.listdir("/proc/self/fd")) <= len(before)


async def test_a_toolbox_that_does_not_answer_is_given_up(
    workspace: Path, hands_user: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box, "toolbox", lambda: _zip("import time; time.sleep(60)"))
    monkeypatch.setattr(box, "START_S", 5.0)  # the driver needs a part of it
    monkeypatch.setattr("agents.hands.GRACE_S", 0.2)
    with pytest.raises(SandboxError, match="did not answer in time"):
        await Hands.open(workspace=workspace, user=hands_user, level=STANDARD)


def _zip(program: str) -> bytes:
    import io
    import zipfile

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("toolbox/__init__.py", "")
        archive.writestr("toolbox/server.py", f"{program}\n\ndef main(): pass\n")
    return data.getvalue()


async def test_byte_code_of_another_python_is_passed_over(
    workspace: Path, hands_user: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box, "MAGIC_NUMBER", b"\0\0\r\n")
    monkeypatch.setattr(box, "toolbox", box.toolbox.__wrapped__)
    hands = await Hands.open(workspace=workspace, user=hands_user, level=STANDARD)
    try:
        result = await hands.call("shell", {"command": "echo up"}, deadline=Deadline.after(20))
    finally:
        await hands.close()
    assert result.text == "exit code 0\nup"


async def test_without_boxwrap_there_are_no_hands(
    workspace: Path, hands_user: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxError, match="apt-get install bubblewrap"):
        await Hands.open(workspace=workspace, user=hands_user, level=STANDARD)


async def test_a_boxwrap_that_fails_tells_why_and_what_mends_it(
    workspace: Path, hands_user: str | None, ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ground / "bin"
    folder.mkdir()
    fake = folder / "bwrap"
    text = "bwrap: setting up uid map: Permission denied"
    fake.write_text(f"#!/bin/sh\necho '{text}' >&2; exit 1\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    with pytest.raises(SandboxError, match=r"uid map.*apparmor_restrict_unprivileged_userns"):
        await Hands.open(workspace=workspace, user=hands_user, level=STANDARD)


@as_root
async def test_root_is_refused(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in (None, "root"):
        with pytest.raises(SandboxError, match="never run as root"):
            await Hands.open(workspace=workspace, user=user, level=STANDARD)
    with pytest.raises(SandboxError, match=r"useradd --system .* no-such-hands"):
        await Hands.open(workspace=workspace, user="no-such-hands", level=STANDARD)


@as_root
async def test_everything_inside_is_the_unprivileged_user(hands: Hands, hands_user: str) -> None:
    uid = pwd.getpwnam(hands_user).pw_uid
    word = f"who-{os.getpid()}"
    command = {"command": f"(exec -a {word} sleep 60 &)"}
    await hands.call("shell", command, deadline=Deadline.after(20))
    outer = psutil.Process(hands._process.pid)
    family = [outer, *outer.children(recursive=True)]
    assert len(family) >= 3
    for process in family:
        assert set(process.uids()) == {uid}
        assert set(process.gids()) == {pwd.getpwnam(hands_user).pw_gid}
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        assert "\nGroups:\t\n" in status.replace(" \n", "\n")
        assert Path(f"/proc/{process.pid}/environ").read_bytes().count(b"SECRET") == 0


async def test_the_workspaces_of_the_product_are_made_for_the_hands(
    ground: Path, hands_user: str | None
) -> None:
    (ground / "home").chmod(0o755)
    path = load().workspace("anna")
    hands = await Hands.open(workspace=path, user=hands_user, level=STANDARD)
    try:
        result = await hands.call(
            "write", {"path": "a", "content": "b"}, deadline=Deadline.after(20)
        )
    finally:
        await hands.close()
    assert result.ok
    assert (path / "a").read_text(encoding="utf-8") == "b"
    assert path.stat().st_mode & 0o777 == 0o700
    assert path.parent.stat().st_mode & 0o777 == 0o711
    if hands_user is not None:
        assert path.owner() == hands_user
        assert path.parent.owner() == "root"


async def test_folders_that_are_no_workspace(ground: Path, hands_user: str | None) -> None:
    (ground / "home").chmod(0o755)
    settings = load()
    settings.prepare()
    (settings.workspaces / "anna" / "main").mkdir(parents=True)
    (settings.workspaces / "anna" / "trick").symlink_to(settings.home)
    (ground / "file").touch()
    (ground / "link").symlink_to(settings.workspaces / "anna" / "main")
    for path, told in (
        ("/", "folder of the system"),
        ("/etc", "part of the system"),
        ("/usr/share/doc", "part of the system"),
        ("/tmp", "folder of the system"),
        (ground, "holds the product's own"),
        (settings.home, "holds the product's own"),
        (settings.secrets, "the product's own state"),
        (settings.work, "the product's own state"),
        (settings.workspaces, "holds the product's own workspaces"),
        (settings.workspaces / "anna", "holds all workspaces of a user"),
        (settings.workspaces / "anna" / "trick", "no link may do that"),
        (settings.workspaces / "bob/../anna/main/../../../secrets", "the product's own state"),
        (ground / "link", "no link may do that"),
        (ground / "none", "there is no folder"),
        (ground / "file", "there is no folder"),
    ):
        with pytest.raises(SandboxError, match=told):
            await Hands.open(workspace=Path(path), user=hands_user, level=STANDARD)


@as_root
async def test_a_workspace_out_of_reach_tells_the_line_that_mends_it(
    ground: Path, hands_user: str
) -> None:
    theirs = ground / "theirs"
    theirs.mkdir(mode=0o755)
    with pytest.raises(SandboxError, match=rf"setfacl -R .*u:{hands_user}:rwX .*theirs .*chown"):
        await Hands.open(workspace=theirs, user=hands_user, level=STANDARD)
    deep = ground / "shut" / "deep"
    deep.mkdir(parents=True)
    shutil.chown(deep, hands_user)
    deep.parent.chmod(0o700)
    with pytest.raises(SandboxError, match=rf"setfacl -m u:{hands_user}:x {deep.parent},"):
        await Hands.open(workspace=deep, user=hands_user, level=STANDARD)


async def test_limits_are_what_was_asked(
    workspace: Path, hands_user: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = STANDARD.limits.model_copy(
        update={"processes": 20, "open_files": 64, "file_bytes": 1 << 20}
    )
    monkeypatch.setattr("agents.hands.OUTPUT_BYTES", 1000)
    level = STANDARD.model_copy(update={"limits": limits})
    hands = await Hands.open(workspace=workspace, user=hands_user, level=level)
    try:
        command = {"command": "ulimit -u -n -f; for i in $(seq 12); do sleep 60 & done"}
        result = await hands.call("shell", command, deadline=Deadline.after(20))
        flood = await hands.call("shell", {"command": "seq 100000"}, deadline=Deadline.after(20))
    finally:
        await hands.close()
    assert "(-u) 20" in result.text
    assert "(-n) 64" in result.text
    assert "-f) 1024" in result.text
    assert "it left 12 processes behind, too many: all were killed" in result.text
    assert "the first 1,000 bytes are in" in flood.text


def test_the_view_is_data() -> None:
    view = sandbox.View(
        workspace="/srv/work",
        writable=True,
        roots=("/boot", "/etc", "/home", "/srv", "/tmp", "/usr"),
        read=("/usr", "/opt/python", "/srv/[odd]"),
        hidden=("/var/lib/state",),
        frozen=("/srv/work/.git/hooks",),
        box="/tmp/box",
        private_etc=("passwd",),
        python="/usr/bin/python3",
        code="/code",
        scratch_bytes=1000,
        environment={"HOME": "/home/hands"},
    )
    told = sandbox.settings(view)
    assert told["network"] == {"allowedDomains": [], "deniedDomains": []}
    assert told["filesystem"] == {
        "denyRead": ["/", "/var/lib/state"],
        "allowRead": ["/usr", "/opt/python", {"path": "/srv/[odd]", "literal": True}],
        "allowWrite": ["/srv/work"],
        "denyWrite": ["/srv/work/.git/hooks"],
    }
    only_read = sandbox.settings(replace(view, writable=False))["filesystem"]
    assert only_read["allowWrite"] == []
    assert "/srv/work" in only_read["allowRead"]
    first = " ".join(sandbox.first(5))
    assert first.startswith("--clearenv --unshare-ipc --unshare-uts")
    assert first.endswith("--hostname hands --info-fd 5")
    last = " ".join(sandbox.last(view))
    for part in (
        "--setenv HOME /home/hands",
        "--size 125 --tmpfs /dev/shm --remount-ro /dev --size 4096 --tmpfs /sys --remount-ro /sys",
        "--ro-bind /tmp/box/etc/passwd /etc/passwd --ro-bind /tmp/box/toolbox.zip",
        "--remount-ro /boot --remount-ro /etc --remount-ro /srv --chdir /srv/work",
    ):
        assert part in last
    assert "--bind" not in last.split()
    assert sandbox.last(view) == sandbox.last(view)


def test_every_file_system_in_memory_is_bounded(tmp_path: Path) -> None:
    """The program before bubblewrap, tried with a bubblewrap that prints its arguments."""
    fake = tmp_path / "bwrap"
    fake.write_text('#!/bin/sh\nfor one; do echo "$one"; done\n', encoding="utf-8")
    fake.chmod(0o755)
    for name in ("first", "last"):
        (tmp_path / name).touch()
    given = ["--ro-bind", "/", "/", "--tmpfs", "/tmp", "--tmpfs", "/var", "--tmpfs", "/opt"]
    given += ["--", "sh", "-c", "--tmpfs"]
    told = subprocess.run(
        [runtime_install.SOURCE / "bwrap", *given, "two words -- --tmpfs"],
        env={
            "PATH": os.environ["PATH"],
            "HANDS_BWRAP": str(fake),
            "HANDS_FIRST": str(tmp_path / "first"),
            "HANDS_LAST": str(tmp_path / "last"),
            "HANDS_SCRATCH": "/tmp 900\n/home 800\n/var/tmp 700",
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert " ".join(told) == (
        "--args 7 --ro-bind / / --perms 1777 --size 900 --tmpfs /tmp --size 1048576 --tmpfs /var "
        "--perms 1777 --size 700 --tmpfs /var/tmp --size 1048576 --tmpfs /opt "
        "--args 8 -- sh -c --tmpfs two words -- --tmpfs"
    )


async def test_opening_many_at_once(ground: Path, hands_user: str | None) -> None:
    async def one(number: int) -> str:
        path = load().workspace("anna", f"w{number}")
        hands = await Hands.open(workspace=path, user=hands_user, level=STANDARD)
        try:
            command = {"command": f"echo {number} > n; cat n"}
            return (await hands.call("shell", command, deadline=Deadline.after(30))).text
        finally:
            await hands.close()

    (ground / "home").chmod(0o755)
    texts = await asyncio.gather(*(one(number) for number in range(8)))
    assert texts == [f"exit code 0\n{number}" for number in range(8)]
