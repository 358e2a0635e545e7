"""Changing the configuration: what is kept, what is refused, who was first."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from base import budgets
from base.errors import ConflictError, FieldsError, InputError
from base.settings import Settings
from portal import config_files, configuring, toml_edit
from portal.configuring import ABSENT, read_file, write_file
from portal.toml_edit import Change

OWN = """# What we spend, as agreed in March.
[daily]  # both in dollars
hard_limit_usd = 40.0   # ask Ada first
warning_usd = 20.0

[task.deep]
usd = 10.0
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path)
    made.prepare()
    (made.config / "budgets.toml").write_text(OWN)
    return made


def change(settings: Settings, name: str, *changes: tuple[str, Any]) -> list[str]:
    """Keys by dotted names, on the version that is there now."""
    one = config_files.file(name)
    version = read_file(settings, one).version
    made = [Change(at=tuple(at.split(".")), value=value) for at, value in changes]
    keys, _ = write_file(settings, one, version, made, None)
    return [".".join(key) for key in keys]


def put(settings: Settings, name: str, text: str) -> None:
    one = config_files.file(name)
    write_file(settings, one, read_file(settings, one).version, (), text)


@pytest.mark.parametrize(
    ("before", "at", "value", "after"),
    [
        ("a = 1   # why\n", "a", 2, "a = 2   # why\n"),
        (
            "# top\n[t]  # t\na = 1\n\n# next\n[u]\n",
            "t.a",
            None,
            "# top\n[t]  # t\n\n# next\n[u]\n",
        ),
        ("[t]\nb = 1\n", "t.c", [1, "x"], '[t]\nb = 1\nc = [1, "x"]\n'),
        ("t.a = 1 # d\n", "t.a", True, "t.a = true # d\n"),
        ("t = { a = 1, b = 2 } # i\n", "t.b", "x", 't = { a = 1, b = "x" } # i\n'),
        ("", "use.agents.code.default", "m", '[use.agents.code]\ndefault = "m"\n'),
        ("a = 1\n", "gone.b", None, "a = 1\n"),
        (
            "[a.b]\nx = 1\n[c]\n[a.d]\ny = 1 # y\n",
            "a.d.y",
            2,
            "[a.b]\nx = 1\n[c]\n[a.d]\ny = 2 # y\n",
        ),
        ("a = 'x' # s\n", "a", 'q"\\\n', 'a = "q\\"\\\\\\n" # s\n'),
    ],
)
def test_an_edit_keeps_all_else(before: str, at: str, value: Any, after: str) -> None:
    found = toml_edit.edited(before, [Change(at=tuple(at.split(".")), value=value)])
    assert found == after


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("a = 1\n", ("a", "b")),
        ("[[a]]\nx = 1\n", ("a", "x")),
        ("a = [", ("a",)),
        ("a = 1\na = 2", ("b",)),
        ("a = nan\nb = 2\n", ("b",)),  # whether it stayed the same cannot be told
    ],
)
def test_an_edit_that_cannot_be(text: str, at: tuple[str, ...]) -> None:
    with pytest.raises(InputError):
        toml_edit.edited(text, [Change(at=at, value=1)])


def test_a_change_keeps_comments_order_mode_and_what_was_before(settings: Settings) -> None:
    path = settings.config / "budgets.toml"
    path.chmod(0o640)
    assert change(settings, "budgets", ("daily.hard_limit_usd", 60)) == ["daily.hard_limit_usd"]
    assert path.read_text() == OWN.replace("40.0", "60")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (settings.config / "budgets.toml.before").read_text() == OWN
    assert stat.S_IMODE((settings.config / "budgets.toml.before").stat().st_mode) == 0o640
    assert budgets.load(settings).daily.hard_limit_usd == 60
    assert change(settings, "budgets", ("daily.hard_limit_usd", 60)) == []
    assert (settings.config / "budgets.toml.before").read_text() == OWN  # nothing was written
    change(settings, "budgets", ("task.deep.usd", None), ("daily.hard_limit_usd", None))
    assert (
        budgets.load(settings).daily.hard_limit_usd
        == budgets.load(Settings(home=settings.home / "none")).daily.hard_limit_usd
    )
    assert "# ask Ada first" in (settings.config / "budgets.toml.before").read_text()
    left = {path.name for path in settings.config.iterdir()}
    assert left == {"agents", "budgets.toml", "budgets.toml.before"}
    assert list(settings.run.glob("proposed-*")) == []


def test_a_file_that_is_not_there_is_made(settings: Settings) -> None:
    change(settings, "models", ("use.agents.code.default", "claude-opus-5-5"))
    path = settings.config / "models.toml"
    assert path.read_text().startswith("# Laid over the shipped models.toml")
    assert tomllib.loads(path.read_text()) == {
        "use": {"agents": {"code": {"default": "claude-opus-5-5"}}}
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (settings.config / "models.toml.before").exists()


@pytest.mark.parametrize(
    ("name", "at", "value", "field"),
    [
        ("budgets", "daily.hard_limit_usd", -1, "daily.hard_limit_usd"),
        ("budgets", "daily.hard_limit_usd", "much", "daily.hard_limit_usd"),
        ("budgets", "daily.soft_usd", 1, "daily.soft_usd"),
        ("budgets", "task.deep.tokens", 1.5, "task.deep.tokens"),
        ("models", "use.efforts.huge", "claude-opus-5-5", "use.efforts.huge.[key]"),
        ("models", "models.claude-opus-5-5.input_usd", -1, "models.claude-opus-5-5.input_usd"),
        ("levels", "levels.standard.network", ["GitHub.com"], "levels.standard.network"),
        ("levels", "levels.standard.rank", 3, "levels.standard"),
        ("levels", "levels.standard.read", ["/proc"], "levels.standard.read"),
        ("levels", "users.user", 7, "users.user"),
        ("approvals", "expires_s", 0, "expires_s"),
        ("approvals", "auto.x.kind", "all", "auto.x.kind"),
        ("limits", "api.anonymous", "often", "api.anonymous"),
        ("memory", "warm.items", -5, "warm.items"),
        ("search", "kind", "google", "kind"),
        ("search", "url", "file:///etc/passwd", "url"),
        ("mcp", "servers.x.url", "http://elsewhere.example/mcp", "servers.x"),
        ("settings", "port", 99999, "port"),
        ("settings", "no_such_key", 1, "no_such_key"),
        ("settings", "postgres_dsn", "postgresql://a@b/c", "postgres_dsn"),
        ("agents/code", "level", 9, "level"),
        ("agents/code", "daily_usd", 0, "daily_usd"),
        ("agents/new", "title", "Lacks the rest", "capabilities"),
    ],
)
def test_what_the_loaders_refuse_is_not_written(
    settings: Settings, name: str, at: str, value: Any, field: str
) -> None:
    before = {path: path.read_bytes() for path in settings.config.rglob("*") if path.is_file()}
    with pytest.raises(FieldsError) as refused:
        change(settings, name, (at, value))
    path, told, message = refused.value.fields[0]
    assert (path, told.startswith(field)) == (f"{name}.toml", True), refused.value.fields
    assert message
    assert str(settings.home) not in str(refused.value)
    assert {p: p.read_bytes() for p in settings.config.rglob("*") if p.is_file()} == before


def test_a_level_in_use_is_not_taken_away(settings: Settings) -> None:
    put(settings, "levels", '[levels.publisher]\nabove = "standard"\n')
    change(settings, "agents/code", ("level", "publisher"))
    with pytest.raises(FieldsError) as refused:
        put(settings, "levels", "")
    assert refused.value.fields[0][:2] == ("agents/code.toml", "level")
    assert "publisher" in (settings.config / "levels.toml").read_text()


def test_a_fault_in_another_file_is_in_nobodys_way(settings: Settings) -> None:
    (settings.config / "limits.toml").write_text("[api]\nanonymous = 'often'\n")
    change(settings, "budgets", ("daily.hard_limit_usd", 60))
    assert "60" in (settings.config / "budgets.toml").read_text()
    shown = read_file(settings, config_files.file("limits"))
    assert [fault.field for fault in shown.faults] == ["api.anonymous"]
    put(settings, "limits", "[api]\nanonymous = '9/minute'\n")
    assert read_file(settings, config_files.file("limits")).values["api"]["anonymous"] == "9/minute"


def test_who_changed_it_first_is_not_overwritten(settings: Settings) -> None:
    one, path = config_files.file("budgets"), settings.config / "budgets.toml"
    seen = read_file(settings, one).version
    path.write_text(OWN.replace("20.0", "25.0"))
    made = [Change(at=("daily", "hard_limit_usd"), value=60)]
    with pytest.raises(ConflictError, match="changed by somebody else meanwhile"):
        write_file(settings, one, seen, made, None)
    with pytest.raises(ConflictError):
        write_file(settings, one, ABSENT, made, None)
    assert path.read_text() == OWN.replace("20.0", "25.0")
    path.unlink()
    with pytest.raises(ConflictError):
        write_file(settings, one, seen, made, None)
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[daily", "budgets.toml: Expected"),
        ("[daily]\nhard_limit_usd = 1\nhard_limit_usd = 2\n", "overwrite"),
        ("# \u202eeludom\n", "turn the text around"),
        (
            '[servers.x]\ncommand = ["x", "sk-ant-api03-abcdefgh12345678"]\nagents = ["code"]\n',
            "secret",
        ),
        ("x" * (configuring.FILE_MAX_BYTES + 1), "more than"),
        ("[a]\n" * 200 + "[[[[[", "budgets.toml: "),
        ("a = " + "[" * 5000, "budgets.toml: "),
    ],
)
def test_hostile_texts_are_refused(settings: Settings, text: str, said: str) -> None:
    name = "mcp" if "servers" in text else "budgets"
    with pytest.raises(InputError, match=said):
        put(settings, name, text)
    assert (settings.config / "budgets.toml").read_text() == OWN


def test_links_and_what_holds_a_secret(settings: Settings, tmp_path: Path) -> None:
    path, elsewhere = settings.config / "limits.toml", tmp_path / "elsewhere.toml"
    elsewhere.write_text("[api]\n")
    path.symlink_to(elsewhere)
    with pytest.raises(InputError, match="no plain file"):
        put(settings, "limits", "")
    assert path.is_symlink()
    assert "no plain file" in read_file(settings, config_files.file("limits")).faults[0].message
    (settings.config / "settings.toml").write_text(
        'redis_url = "redis://:hunter2hunter2@db:1/0"\nlog_level = "debug"\nheartbeat_s = 5.0\n'
    )
    shown = read_file(settings, config_files.file("settings"))
    assert shown.text is None
    assert shown.withheld
    assert "hunter2" not in shown.model_dump_json()
    assert shown.own == {"heartbeat_s": 5.0}
    change(settings, "settings", ("log_level", "info"))
    after = (settings.config / "settings.toml").read_text()
    assert "hunter2hunter2" in after
    assert 'log_level = "info"' in after


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(settings: Settings) -> None:
    settings.config.chmod(0o500)
    try:
        with pytest.raises(ConflictError, match="cannot write"):
            change(settings, "budgets", ("daily.hard_limit_usd", 60))
    finally:
        settings.config.chmod(0o700)


@pytest.mark.parametrize(
    ("name", "keys", "programs"),
    [
        ("budgets", [("daily", "warning_usd")], ("supervisor",)),
        ("models", [("use", "agents", "qa", "default")], ("qa",)),
        ("models", [("use", "default")], ("supervisor", "code", "data", "infra", "qa", "research")),
        ("search", [("kind",)], ()),
        ("settings", [("log_level",)], ("everything",)),
        ("settings", [("embed_model",), ("model_timeout_s",)],
         ("supervisor", "code", "data", "infra", "memory", "qa", "research", "workers", "portal")),
        ("agents/qa", [("level",)], ("supervisor", "qa")),
        ("agents/supervisor", [("prompt",)], ("supervisor",)),
    ],
)  # fmt: skip
def test_what_has_to_start_anew(
    settings: Settings, name: str, keys: list[tuple[str, ...]], programs: tuple[str, ...]
) -> None:
    assert config_files.restarts(config_files.file(name), keys, settings) == programs
