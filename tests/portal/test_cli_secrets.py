"""`ai-infra secrets` and doctor's line: names, sources and faults, never a value."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from present import wait_for

from base import secrets_files
from base.settings import Settings
from portal import cli_secrets

CANARY = "canary-Value-0123456789"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CREDENTIALS_DIRECTORY", "ANTHROPIC_API_KEY", "AI_INFRA_AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AI_INFRA_HOME", str(tmp_path))
    return tmp_path


def run(*words: str, given: str | bytes = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "portal.cli", "secrets", *words],
        input=given.encode() if isinstance(given, str) else given,
        capture_output=True,
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert CANARY not in out + err
    assert "Traceback" not in err
    return subprocess.CompletedProcess(words, done.returncode, out, err)


def test_set_list_remove_by_standard_input(home: Path) -> None:
    done = run("set", "github-pat", given=CANARY + "\n")
    path = home / "secrets" / "github-pat"
    assert (done.returncode, path.read_text()) == (0, CANARY + "\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    (row,) = json.loads(run("list", "--json").stdout)
    assert (row["name"], row["source"], row["fault"]) == ("github-pat", "file", None)
    assert 0 <= row["age_s"] < 600
    assert "github-pat" in run("list").stdout
    assert run("remove", "github-pat").returncode == 0
    assert run("remove", "github-pat").returncode == 2
    assert "nothing there" in run("list").stdout


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("../x", CANARY),
        ("UPPER", CANARY),
        ("empty", ""),
        ("big", "x" * 70_000),
        ("no", b"\xff\xfe"),
    ],
)
def test_what_cannot_be_kept_is_one_line_and_exit_2(
    home: Path, name: str, given: str | bytes
) -> None:
    done = run("set", name, given=given)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    folder = home / "secrets"
    assert not folder.exists() or list(folder.iterdir()) == []


def test_a_person_types_it_unseen(home: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "portal.cli", "secrets", "set", "github-pat"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while b"shown)" not in seen:
        seen += os.read(ours, 1024)
    # Only then is typing unseen; what was typed before is thrown away.
    wait_for("no echo", lambda: not termios.tcgetattr(ours)[3] & termios.ECHO, 20)
    os.write(ours, CANARY.encode() + b"\n")
    assert process.wait(30) == 0
    try:
        while piece := os.read(ours, 1024):
            seen += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert CANARY.encode() not in seen
    assert (home / "secrets" / "github-pat").read_text().strip() == CANARY


def test_a_file_that_is_open_is_named_with_what_mends_it(home: Path) -> None:
    path = secrets_files.put(home / "secrets", "github-pat", CANARY)
    path.chmod(0o644)
    done = run("list")
    assert done.returncode == 1
    assert f"run: chmod 600 {path}" in done.stderr
    ok, detail = cli_secrets.check(Settings(home=home))
    assert not ok
    assert detail == f"no API key; {path} has mode 0644, others may use it; run: chmod 600 {path}"
    path.chmod(0o600)
    assert cli_secrets.check(Settings(home=home)) == (True, "no API key")


def test_doctor_tells_where_the_key_is_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = secrets_files.put(home / "secrets", "anthropic-api-key", CANARY)
    assert cli_secrets.check(Settings(home=home)) == (True, "API key from file")
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    assert cli_secrets.check(Settings(home=home)) == (True, "API key from environment")
    assert cli_secrets.listed(Settings(home=home))[0]["source"] == "environment"
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    path.chmod(0o604)
    ok, detail = cli_secrets.check(Settings(home=home))
    assert not ok
    assert detail.startswith("the API key cannot be had; ")
    assert detail.count("chmod 600") == 1


def test_what_goes_before_the_file_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / "credentials"
    folder.mkdir()
    (folder / "github-pat").write_text("from systemd")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert "note: credential goes before the file" in run("set", "github-pat", given="x").stdout
    (row,) = json.loads(run("list", "--json").stdout)
    assert row["source"] == "credential"
