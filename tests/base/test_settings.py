"""Settings: sources, faults, secrets, and folders that two homes do not share."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from base.errors import SettingsError
from base.settings import SOCKET_PATH_MAX_BYTES, load


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own; nothing of ours comes from the environment outside."""
    for name in [name for name in os.environ if name.startswith("AI_INFRA_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    path = tmp_path / "home"
    monkeypatch.setenv("AI_INFRA_HOME", str(path))
    return path


def _file(home: Path, text: str) -> None:
    (home / "config").mkdir(parents=True, exist_ok=True)
    (home / "config" / "settings.toml").write_text(text)


# Sources -------------------------------------------------------------------------------------


def test_environment_over_file_over_default(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load().port, load().sweep_s, load().lease_s) == (8000, 5.0, 60.0)
    _file(home, "port = 1111\nsweep_s = 7\n")
    assert (load().port, load().sweep_s, load().lease_s) == (1111, 7.0, 60.0)
    monkeypatch.setenv("AI_INFRA_PORT", "2222")
    assert (load().port, load().sweep_s, load().lease_s) == (2222, 7.0, 60.0)
    assert load(port=3333).port == 3333


def test_a_list_from_either_source(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _file(home, "restart_backoff_s = [1, 2.5]\n")
    assert load().restart_backoff_s == (1.0, 2.5)
    for text in ("3, 4,5", "[3,4,5]"):
        monkeypatch.setenv("AI_INFRA_RESTART_BACKOFF_S", text)
        assert load().restart_backoff_s == (3.0, 4.0, 5.0)


def test_a_home_is_absolute_and_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AI_INFRA_HOME", "~/there")
    assert load().home == tmp_path / "there"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AI_INFRA_HOME", "here")
    assert load().home == tmp_path / "here"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().port = 1


# Faults --------------------------------------------------------------------------------------


def test_every_fault_at_once_from_both_sources(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _file(home, "host = 7\nprot = 1\n")
    monkeypatch.setenv("AI_INFRA_PORT", "99999")
    monkeypatch.setenv("AI_INFRA_LOG_LEVEL", "loud")
    monkeypatch.setenv("AI_INFRA_LEASE_S", "-1")
    monkeypatch.setenv("AI_INFRA_RESTART_BACKOFF_S", "10,soon")
    with pytest.raises(SettingsError) as caught:
        load()
    named = {fault.partition(":")[0] for fault in caught.value.faults}
    assert named == {"host", "prot", "port", "log_level", "lease_s", "restart_backoff_s.1"}
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["port = [", "= 1", "port = 1\nport = 2"])
def test_a_file_that_is_no_toml(home: Path, text: str) -> None:
    _file(home, text)
    with pytest.raises(SettingsError, match=r"settings\.toml: "):
        load()


def test_a_file_that_is_no_text(home: Path) -> None:
    _file(home, "")
    (home / "config" / "settings.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"settings\.toml: "):
        load()


@pytest.mark.parametrize("text", ["", "0", "1,-1"])
def test_a_backoff_without_a_wait_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("AI_INFRA_RESTART_BACKOFF_S", text)
    with pytest.raises(SettingsError, match="restart_backoff_s"):
        load()


# Secrets -------------------------------------------------------------------------------------


def test_secrets_are_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-hunter1")
    monkeypatch.setenv("AI_INFRA_POSTGRES_DSN", "postgresql://u:hunter2@h/d")
    monkeypatch.setenv("AI_INFRA_REDIS_URL", "redis://:hunter3@h/0")
    settings = load()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "sk-hunter1"
    assert settings.postgres == "postgresql://u:hunter2@h/d"
    assert settings.redis == "redis://:hunter3@h/0"
    for shown in (repr(settings), str(settings), settings.model_dump_json(), f"{settings!r:s}"):
        assert "hunter" not in shown
    assert "hunter" not in str(settings.model_dump())


def test_a_fault_never_quotes_the_value(home: Path) -> None:
    _file(home, 'postgres_dsn = ["hunter2"]\nport = "hunter3"\nhunted = "hunter4"\n')
    with pytest.raises(SettingsError) as caught:
        load()
    assert len(caught.value.faults) == 3
    assert "hunter" not in str(caught.value)


def test_the_key_comes_from_the_environment_or_its_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load().api_key is None
    assert load().rehearsal
    settings = load()
    settings.prepare()
    (settings.secrets / "anthropic-api-key").write_text("from-file\n")
    (settings.secrets / "anthropic-api-key").chmod(0o600)
    key = load().api_key
    assert key is not None
    assert key.get_secret_value() == "from-file"
    monkeypatch.setenv("ANTHROPIC_API_KEY", " from-environment ")
    key = load().api_key
    assert key is not None
    assert key.get_secret_value() == "from-environment"
    assert not load().rehearsal


def test_where_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().model_url == "http://127.0.0.1:8001"
    assert load(rehearsal_port=9999).model_url == "http://127.0.0.1:9999"
    monkeypatch.setenv("AI_INFRA_ANTHROPIC_BASE_URL", "http://model:1")
    assert load().model_url == "http://model:1"
    monkeypatch.delenv("AI_INFRA_ANTHROPIC_BASE_URL")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    assert load().model_url is None


# Folders -------------------------------------------------------------------------------------


def test_a_long_home_keeps_its_sockets_in_tmp(tmp_path: Path) -> None:
    settings = load(home=tmp_path / ("x" * 90))
    assert settings.run.parent == Path("/tmp")
    sockets = [settings.tmux_socket, settings.services_socket, settings.redis_socket]
    for path in [*sockets, settings.run / ".s.PGSQL.5432"]:
        assert len(bytes(path)) <= SOCKET_PATH_MAX_BYTES
    assert settings.postgres.endswith(f"?host={settings.run}")


def test_the_longest_home_that_fits_keeps_them_inside() -> None:
    room = SOCKET_PATH_MAX_BYTES - len("/run/.s.PGSQL.5432")
    fits = load(home=Path("/") / ("h" * (room - 1)))
    assert fits.run == fits.home / "run"
    assert load(home=Path("/") / ("h" * room)).run.parent == Path("/tmp")


def test_two_homes_share_nothing(tmp_path: Path) -> None:
    for long in ("", "x" * 90):
        one, two = load(home=tmp_path / f"a{long}"), load(home=tmp_path / f"b{long}")
        for name in ("run", "redis", "postgres", "tmux_socket", "services_socket", "logs", "work"):
            assert getattr(one, name) != getattr(two, name)
        assert one.workspace("u") != two.workspace("u")
        assert one.workspace("u") != one.workspace("v")


def test_prepare_twice_and_modes() -> None:
    settings = load()
    settings.prepare()
    settings.secrets.chmod(0o755)
    settings.prepare()
    for path in (settings.secrets, settings.config, settings.run, settings.logs):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot prepare"):
        load(home=tmp_path / "file" / "home").prepare()


def test_a_run_folder_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    settings = load(home=tmp_path / ("y" * 90))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    settings.run.symlink_to(elsewhere)
    try:
        with pytest.raises(SettingsError, match="symbolic link"):
            settings.prepare()
    finally:
        settings.run.unlink()
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755


def test_the_sdks_own_variable_for_the_address_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://sdk:1")
    assert load().model_url == "http://sdk:1"
    monkeypatch.setenv("AI_INFRA_ANTHROPIC_BASE_URL", "http://ours:1")
    assert load().model_url == "http://ours:1"
