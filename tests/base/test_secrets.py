"""Secrets on this machine: what is taken, what is refused, and the line that mends it."""

from __future__ import annotations

import os
import pickle
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from base import secrets_files
from base.errors import InputError, SettingsError
from base.redact import redact
from base.secrets import Secrets, of
from base.settings import Settings

CANARY = "canary-Value-0123456789"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("CREDENTIALS_DIRECTORY", "ANTHROPIC_API_KEY", "AI_INFRA_AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    found = Settings(home=tmp_path / "home")
    found.prepare()
    return found


def kept(settings: Settings, name: str, text: str | bytes, mode: int = 0o600) -> Path:
    path = settings.secrets / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def value(settings: Settings, name: str) -> str | None:
    found = Secrets(settings).get(name)
    return found.get_secret_value() if found else None


def test_a_file_that_is_ours_alone_is_taken_without_its_line_end(settings: Settings) -> None:
    for text in (CANARY, CANARY + "\n", f"  {CANARY}\r\n\n"):
        kept(settings, "github-pat", text)
        assert value(settings, "github-pat") == CANARY
        assert Secrets(settings).source("github-pat") == "file"
    assert CANARY not in redact(f"say {CANARY}")


@pytest.mark.parametrize("text", ["", "\n", " \n\n"])
def test_an_empty_file_is_no_secret(settings: Settings, text: str) -> None:
    kept(settings, "anthropic-api-key", text)
    assert value(settings, "anthropic-api-key") is None
    assert Secrets(settings).source("anthropic-api-key") == "none"
    assert settings.api_key is None
    with pytest.raises(SettingsError, match="run: ai-infra secrets set anthropic-api-key"):
        Secrets(settings).need("anthropic-api-key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o602, 0o610, 0o700])
def test_a_file_that_others_may_use_is_refused_with_the_line_that_mends_it(
    settings: Settings, mode: int
) -> None:
    path = kept(settings, "github-pat", CANARY, mode)
    with pytest.raises(SettingsError) as caught:
        Secrets(settings).get("github-pat")
    assert f"mode {mode:04o}" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert secrets_files.faults(settings.secrets) == list(caught.value.faults)
    line = str(caught.value).partition("run: ")[2]
    subprocess.run(shlex.split(line), check=True)
    assert value(settings, "github-pat") == CANARY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused(settings: Settings) -> None:
    path = kept(settings, "github-pat", CANARY)
    os.chown(path, 65534, -1)
    with pytest.raises(SettingsError, match=r"belongs to another user; run: chown root ") as caught:
        Secrets(settings).get("github-pat")
    subprocess.run(shlex.split(str(caught.value).partition("run: ")[2]), check=True)
    assert value(settings, "github-pat") == CANARY


def test_a_link_a_pipe_and_a_folder_are_refused_at_once(settings: Settings, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text(CANARY)
    target.chmod(0o600)
    (settings.secrets / "link").symlink_to(target)
    os.mkfifo(settings.secrets / "pipe", 0o600)
    (settings.secrets / "folder").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(SettingsError, match="no plain file"):
            Secrets(settings).get(name)
    assert len(secrets_files.faults(settings.secrets)) == 3


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "A", "x" * 65, "a\n", "a b"])
def test_a_name_is_no_way_out_of_the_folder(settings: Settings, name: str) -> None:
    with pytest.raises(InputError):
        Secrets(settings).get(name)
    with pytest.raises(InputError):
        secrets_files.put(settings.secrets, name, "x")


def test_what_is_no_text_or_too_large_is_refused(settings: Settings) -> None:
    kept(settings, "github-pat", b"\xff\xfecanary")
    with pytest.raises(SettingsError, match="no UTF-8"):
        Secrets(settings).get("github-pat")
    kept(settings, "github-pat", "x" * 70_000)
    with pytest.raises(SettingsError, match="larger"):
        Secrets(settings).get("github-pat")


def test_a_systemd_credential_goes_before_the_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(settings, "github-pat", "from the file")
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "github-pat").write_text(CANARY + "\n")
    (folder / "github-pat").chmod(0o440)  # as systemd leaves it to a unit with User=
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert value(settings, "github-pat") == CANARY
    assert Secrets(settings).source("github-pat") == "credential"
    (folder / "github-pat").write_text("")
    assert value(settings, "github-pat") == "from the file"


def test_a_changed_file_counts_from_the_next_question_on(settings: Settings) -> None:
    assert settings.api_key is None
    secrets_files.put(settings.secrets, "anthropic-api-key", "sk-first-one")
    key = settings.api_key
    secrets_files.put(settings.secrets, "anthropic-api-key", "sk-second-one")
    again = settings.api_key
    assert key is not None
    assert again is not None
    assert (key.get_secret_value(), again.get_secret_value()) == ("sk-first-one", "sk-second-one")


def test_put_is_whole_or_not_at_all_and_leaves_nothing_beside_it(settings: Settings) -> None:
    old_umask = os.umask(0)
    try:
        path = secrets_files.put(settings.secrets, "github-pat", CANARY + "\n")
    finally:
        os.umask(old_umask)
    assert path.read_text() == CANARY + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    secrets_files.put(settings.secrets, "github-pat", "next")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for bad in ("", " \n", "x" * 70_000):
        with pytest.raises(InputError):
            secrets_files.put(settings.secrets, "github-pat", bad)
    assert [one.name for one in settings.secrets.iterdir()] == ["github-pat"]
    assert path.read_text() == "next\n"
    assert secrets_files.remove(settings.secrets, "github-pat")
    assert not secrets_files.remove(settings.secrets, "github-pat")


@pytest.mark.parametrize(
    "text", ["two\nlines-canary", "sk-cän-canary", "a b canary", "x\x00canary"]
)
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(
    settings: Settings, text: str
) -> None:
    kept(settings, "anthropic-api-key", text)
    with pytest.raises(SettingsError) as caught:
        _ = settings.api_key
    assert "canary" not in str(caught.value)
    assert "ai-infra secrets set" in str(caught.value)


def test_nothing_prints_or_pickles_a_secret(settings: Settings) -> None:
    kept(settings, "anthropic-api-key", CANARY)
    secrets = of(settings)
    assert settings.api_key is not None
    assert not settings.rehearsal
    found = secrets.find("anthropic-api-key")
    for shown in (repr(secrets), repr(settings), repr(found), str(found), repr(settings.api_key)):
        assert CANARY not in shown
    assert CANARY.encode() not in pickle.dumps(settings)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secrets)


def test_addresses_get_their_password_from_a_secret(settings: Settings) -> None:
    kept(settings, "postgres", '{"username": "u", "password": "p@ss/canary", "port": 5432}')
    kept(settings, "redis-password", "r:canary")
    remote = Settings(
        home=settings.home,
        postgres_dsn="postgresql://ai@db.example:5432/ai?sslmode=require",
        redis_url="rediss://cache.example:6380/0",
    )
    assert remote.postgres == "postgresql://ai:p%40ss%2Fcanary@db.example:5432/ai?sslmode=require"
    assert remote.redis == "rediss://:r%3Acanary@cache.example:6380/0"
    assert "canary" not in repr(remote)
    assert "p@ss/canary" not in redact("said p@ss/canary")
    own = Settings(home=settings.home, redis_url="redis://:own@h/0", postgres_dsn="postgresql:///x")
    assert (own.redis, own.postgres) == ("redis://:own@h/0", "postgresql:///x")
