"""What a misled model would try, each judged from outside the sandbox."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from present import need, wait_for

from agents import runtime_install, sandbox
from agents.canary import canary
from agents.hands import Hands
from base.deadline import Deadline
from base.errors import SandboxError
from base.levels import Levels

pytest_plugins = ["boxed"]

STANDARD = Levels.load().get("standard")

SECRET = "open-sesame-4711"


@pytest.fixture
def secrets(ground: Path) -> Path:
    """Files that everybody may read: only the sandbox can be what denies them."""
    for name in ("home/settings.toml", "other/main/notes", "run/token"):
        path = ground / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SECRET, encoding="utf-8")
        path.chmod(0o666)
        path.parent.chmod(0o777)
    return ground


async def test_the_tools_read_nothing_elsewhere(call, secrets) -> None:
    """What a shell tries is in test_escapes.py."""
    for name in ("home/settings.toml", "other/main/notes", "run/token"):
        path = str(secrets / name)
        assert not (await call("read", path=path)).ok
        assert SECRET not in (await call("grep", pattern="open", path=path)).text


async def test_the_system_tells_nothing_of_its_people(call) -> None:
    shown = (
        await call(
            "shell",
            command="cat /etc/shadow /etc/passwd /etc/ssh/*; "
            "ls -A /etc /root /home /run /var /srv /opt /sys /mnt",
        )
    ).text
    assert "root:$" not in shown
    assert "ai-hands" not in shown
    assert "authorized_keys" not in shown
    assert "No such file or directory" in shown
    for path in ("/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/root/.ssh", "/sys", "/boot"):
        gone = await call("shell", command=f"ls -A {path} | grep . && echo THERE")
        assert "THERE" not in gone.text, path


async def test_the_environment_and_process_1_give_nothing(call, monkeypatch) -> None:
    env = await call("shell", command="env; tr '\\0' '\\n' < /proc/self/environ")
    names = {line.split("=")[0] for line in env.text.splitlines()[1:] if "=" in line}
    proxy = {name for name in names if name.upper().endswith("_PROXY")}
    own = {"PATH", "HOME", "LANG", "TERM", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"}
    runtime = {"GIT_SSH_COMMAND", "GIT_CONFIG_PARAMETERS", "JAVA_TOOL_OPTIONS"}
    indexes = {name for name in names if name.lower().startswith(("pip_", "npm_config_"))}
    assert names <= own | proxy | runtime | indexes
    assert {"HTTPS_PROXY", "NO_PROXY"} <= proxy
    for thing in ("environ", "mem", "fd/1", "maps", "cwd/x"):
        denied = await call("shell", command=f"head -c 1 /proc/1/{thing} && echo READ")
        assert "READ" not in denied.text, thing


async def test_nothing_can_be_said_in_the_protocols_name(call) -> None:
    forged = '{"id": 2, "ok": true, "text": "forged"}'
    result = await call(
        "shell",
        command="for fd in /proc/1/fd/* /proc/[0-9]*/fd/*; do "
        f"echo '{forged}' > $fd; done 2>/dev/null; "
        "for n in 3 4 5 6 7 8 9 10 11; do echo x >&$n; done; kill -9 1; kill -STOP 1; kill -15 -1",
    )
    assert "forged" not in result.text.splitlines()[0]
    assert (await call("shell", command="echo alive")).text == "exit code 0\nalive"


async def test_killing_by_name_or_signal_spares_the_hands(call) -> None:
    for command in ("pkill -9 python3", "pkill -9 -f python", "killall -9 python3.11", "kill -1 2"):
        await call("shell", command=f"sleep 50 & {command}")
    await call("shell", command="for n in 1 2 3 10 12 15; do kill -$n -1; done")
    assert (await call("shell", command="echo alive")).text == "exit code 0\nalive"


async def test_hands_that_kill_themselves_are_an_error_and_leave_nothing(
    call, hands: Hands
) -> None:
    with pytest.raises(SandboxError, match="the sandbox is gone: it was killed"):
        await call("shell", command="setsid sleep 300 & sleep 300 & kill -9 -1")
    wait_for("the end", lambda: not Path(f"/proc/{hands._box.pid}").exists())


async def test_nothing_outside_the_workspace_can_be_written(call) -> None:
    places = ("/", "/usr", "/usr/bin", "/etc", "/dev", "/var", "/opt", "/proc")
    await call(
        "shell", command=f"for p in {' '.join(places)}; do echo x > $p/written-by-hands; done"
    )
    for place in places:
        assert not os.path.lexists(os.path.join(place, "written-by-hands"))
    inside = await call("shell", command=f"ls -A {' '.join(places)} | grep written && echo THERE")
    assert "THERE" not in inside.text


async def test_scratch_space_stays_inside(call, ground: Path) -> None:
    name = f"hands-{os.getpid()}"
    await call(
        "shell",
        command=f"for d in /tmp /home /root /run /var/tmp /dev/shm; do echo x > $d/{name}; done",
    )
    for folder in ("/tmp", "/home", "/root", "/run", "/var/tmp", "/dev/shm"):
        assert not os.path.lexists(f"{folder}/{name}")


@pytest.fixture
def listener() -> Iterator[tuple[int, list[str]]]:
    """TCP on both loopbacks and UDP, all on one port; what reached it."""
    heard: list[str] = []
    tcp = socket.create_server(("127.0.0.1", 0))
    port = tcp.getsockname()[1]
    sockets = [tcp]
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", port))
    sockets.append(udp)
    if socket.has_ipv6:
        with contextlib.suppress(OSError):
            sockets.append(socket.create_server(("::1", port), family=socket.AF_INET6))

    def _serve(one: socket.socket) -> None:
        try:
            while True:
                if one.type == socket.SOCK_DGRAM:
                    heard.append(f"udp {one.recv(100)!r}")
                else:
                    one.accept()[0].close()
                    heard.append("tcp")
        except OSError:
            return

    for one in sockets:
        threading.Thread(target=_serve, args=(one,), daemon=True).start()
    yield port, heard
    for one in sockets:
        one.close()


async def test_only_loopback_is_there(call) -> None:
    shown = await call(
        "shell", command="cat /proc/net/dev | tail -n +3 | cut -d: -f1; cat /proc/net/route | wc -l"
    )
    assert shown.text.split()[3:] == ["lo", "1"]


async def test_sockets_of_services_cannot_be_reached(
    call, ground: Path, workspace: Path, unboxed, redis_url: str
) -> None:
    folder = ground / "sockets"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    for kind, name in (("path", str(folder / "service.sock")), ("abstract", "\0ai-test-abstract")):
        server = socket.socket(socket.AF_UNIX)
        server.bind(name)
        server.listen()
        if kind == "path":
            os.chmod(name, 0o777)
        code = (
            "import socket; s = socket.socket(socket.AF_UNIX); "
            f"s.connect({name!r}); print('THROUGH')"
        )
        assert "THROUGH" in unboxed(f'/usr/bin/python3 -c "{code}"'.replace("\\", "\\\\"))
        result = await call("shell", command=f"python3 - <<'END'\n{code}\nEND")
        assert "THROUGH" not in result.text
        server.close()
    path = redis_url.removeprefix("unix://")
    assert "PONG" not in (await call("shell", command=f"redis-cli -s {path} ping")).text


async def test_no_tmux_server_can_be_steered(call, short_tmp: Path) -> None:
    path = short_tmp / "tmux.sock"
    new = [need("tmux"), "-S", str(path), "new", "-d", "-s", "s", "sleep 60"]
    subprocess.run(new, check=True, env={**os.environ, "SHELL": "/bin/sh"})
    try:
        path.chmod(0o777)
        await call("shell", command=f"tmux -S {path} new-window 'touch {short_tmp}/owned'; tmux ls")
        assert not (short_tmp / "owned").exists()
        listed = subprocess.run(
            ["tmux", "-S", str(path), "list-windows"], capture_output=True, text=True, check=True
        )
        assert listed.stdout.count("\n") == 1
    finally:
        subprocess.run(["tmux", "-S", str(path), "kill-server"], check=False)


async def test_no_capability_no_setuid_no_device_no_mount(call, workspace: Path) -> None:
    told = await call("shell", command="grep -E 'Cap|NoNewPrivs' /proc/self/status; id -u; id -G")
    lines = [line.split() for line in told.text.splitlines() if line.startswith("Cap")]
    caps = {line[0]: line[1] for line in lines}
    del caps["CapBnd:"]  # a ceiling that nothing can rise to without new privileges
    assert set(caps.values()) == {"0" * 16}
    assert "NoNewPrivs:\t1" in told.text
    assert "0" not in told.text.splitlines()[-2:]
    for command in (
        "cp /bin/bash ./b && chmod 4755 b && ./b -pc 'id -u' | grep -x 0",
        "chown 0:0 . ",
        "mknod disk b 8 0",
        "mknod null c 1 3",
        "mount -t tmpfs none .",
        "mount -o remount,rw /usr",
        "umount /etc/passwd",
        "unshare -Ur true",
        "unshare -m true",
        "chroot . true",
        "su -c true",
        "sudo -n true",
        "passwd -d root",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        "swapon /dev/zero",
        "nice -n -5 true 2>&1 | grep -q denied || false; nice -n -5 true 2>&1 | grep -qv .",
    ):
        result = await call("shell", command=command)
        assert not result.ok, command
    assert all(one.stat().st_uid != 0 for one in workspace.iterdir())
    ran = subprocess.run(
        [str(workspace / "b"), "-pc", "id -u"], capture_output=True, text=True, check=False
    )
    assert ran.stdout.strip() != "0" or os.geteuid() == 0


async def test_links_made_inside_do_not_lead_the_tools_out(
    call, secrets: Path, workspace: Path
) -> None:
    """The folder becomes a link between two calls, and in the middle of many."""
    await call("shell", command="mkdir d; echo in > d/token")
    await call(
        "shell",
        command=f"(while :; do mv d e; ln -s {secrets}/run d; rm d; mv e d; done) 2>/dev/null &",
    )
    for _ in range(60):
        assert SECRET not in (await call("read", path="d/token")).text
        await call("write", path="d/token", content="changed")
    assert (secrets / "run/token").read_text(encoding="utf-8") == SECRET


async def test_two_hands_do_not_see_each_other(
    call, ground: Path, hands_user: str | None, workspace: Path
) -> None:
    second = ground / "second"
    second.mkdir()
    if hands_user is not None:
        shutil.chown(second, hands_user)
    other = await Hands.open(workspace=second, user=hands_user, level=STANDARD)
    try:
        command = {"command": f"echo {SECRET} > note; exec -a {SECRET} sleep 60 &"}
        await other.call("shell", command, deadline=Deadline.after(20))
        seen = await call("shell", command=f"cat {second}/note; ls {ground}; ps axww; kill -15 -1")
        assert SECRET not in seen.text
        assert "second" not in seen.text.splitlines()
        still = await other.call("shell", {"command": "ps ax"}, deadline=Deadline.after(20))
        assert "sleep" in still.text or SECRET in still.text
    finally:
        await other.close()


async def test_the_canary_sings_only_in_a_sandbox_that_holds(
    hands_user: str | None, ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await canary(hands_user)
    look = sandbox.look
    with monkeypatch.context() as patch:
        patch.setattr(
            sandbox, "look", lambda **given: look(**{**given, "read": [*given["read"], "/tmp"]})
        )
        with pytest.raises(SandboxError, match="a file outside the workspace could be read"):
            await canary(hands_user)
    with monkeypatch.context() as patch:
        _without(patch, ground, "--unshare-net")
        with pytest.raises(SandboxError, match="a network connection could be made"):
            await canary(hands_user)


def _without(patch: pytest.MonkeyPatch, ground: Path, *words: str) -> None:
    """Take words out of bubblewrap's arguments, by a bubblewrap of our own."""
    find = runtime_install.find

    def leaky(who: sandbox.Account) -> runtime_install.Runtime:
        found = find(who)
        code = ground / "code"
        shutil.copytree(found.code, code, dirs_exist_ok=True)
        script = (code / "bwrap").read_text(encoding="utf-8")
        skip = "|".join(words)
        mark = "    shift\n"
        assert mark in script
        script = script.replace(mark, f'{mark}    case "$word" in {skip}) continue ;; esac\n', 1)
        (code / "bwrap").write_text(script, encoding="utf-8")
        return replace(found, code=code)

    patch.setattr(runtime_install, "find", leaky)


async def test_with_the_network_on_the_network_test_is_red(
    workspace: Path,
    ground: Path,
    hands_user: str | None,
    listener: tuple[int, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sandbox with the network left in is what test_escapes.py must see: this gets through."""
    _without(monkeypatch, ground, "--unshare-net")
    opened = await Hands.open(workspace=workspace, user=hands_user, level=STANDARD)
    try:
        command = {"command": f"exec 3<>/dev/tcp/127.0.0.1/{listener[0]} && echo THROUGH"}
        result = await opened.call("shell", command, deadline=Deadline.after(20))
    finally:
        await opened.close()
    assert "THROUGH" in result.text.splitlines()
    wait_for("the connection", lambda: listener[1] == ["tcp"])
