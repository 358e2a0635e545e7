"""The doctor's lines about MCP servers."""

from __future__ import annotations

from pathlib import Path

from base.settings import Settings
from portal import cli_mcp

GOOD = 'command = ["python3", "/x.py"]\nagents = ["code"]\n'


def rows(home: Path, text: str) -> dict[str, tuple[bool, str, str]]:
    (home / "config").mkdir()
    (home / "config" / "mcp.toml").write_text(text)
    found = cli_mcp.rows(Settings(home=home))
    return {row["name"]: (row["ok"], row["detail"], row["mend"]) for row in found}


def test_without_servers_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert cli_mcp.rows(Settings(home=tmp_path)) == []


def test_each_server_has_a_line_and_each_fault(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        f"[servers.good]\n{GOOD}"
        f"[servers.bad]\n{GOOD}level = 7\n"
        f'[servers.absent]\ncommand = ["no-such-program"]\nagents = ["code"]\n'
        f'[servers.blind]\n{GOOD}read = ["/opt/no-such-folder"]\n'
        '[servers.far]\nurl = "https://far.example/mcp"\nagents = ["code", "qa"]\n'
        'secrets = { Authorization = "far-token" }\n',
    )
    assert found["mcp good"][0]
    assert found["mcp good"][1] == "python3 for code at level 1; not started or called"
    assert not found["mcp"][0]
    assert "servers.bad.level" in found["mcp"][1]
    assert "mcp.toml" in found["mcp"][2]
    assert found["mcp absent"][1].endswith("there is no program no-such-program")
    assert found["mcp blind"][1].endswith("there is no folder /opt/no-such-folder")
    assert not found["mcp far"][0]
    assert found["mcp far"][2] == "ai-infra secrets set far-token"


def test_a_secret_that_is_there_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o700)
    secret = tmp_path / "secrets" / "far-token"
    secret.write_text("the word itself")
    secret.chmod(0o600)
    found = rows(
        tmp_path,
        '[servers.far]\nurl = "https://far.example/mcp"\nagents = ["code"]\n'
        'secrets = { Authorization = "far-token" }\n',
    )
    assert found["mcp far"][0]
    assert "the word" not in str(found)
