"""mcp.toml: what is taken, and each fault by file and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from base.mcp import SHIPPED, Servers, load
from base.settings import Settings

AGENTS = ("code", "data")


def read(home: Path, text: str) -> Servers:
    (home / "config").mkdir(exist_ok=True)
    (home / "config" / "mcp.toml").write_text(text)
    return load(Settings(home=home), AGENTS)


def test_the_shipped_file_gives_nobody_a_server() -> None:
    assert SHIPPED.is_file()
    assert load(None, AGENTS) == Servers()


def test_the_shipped_example_is_a_sound_one(tmp_path: Path) -> None:
    lines = SHIPPED.read_text().splitlines()
    begin = lines.index("# [servers.weather]")
    code = [line.removeprefix("# ") for line in lines[begin:] if "=" in line or "[" in line]
    told = "\n".join(code).replace("research", "code")
    found = read(tmp_path, told)
    assert not found.faults
    assert set(found.known) == {"weather", "tracker"}
    assert found.known["weather"].rank("set_station") == 2
    assert found.known["weather"].rank("other") == 1
    assert not found.known["weather"].enabled("debug")
    assert [server.name for server in found.of("data")] == ["weather"]


def test_only_agents_that_are_named_have_the_server(tmp_path: Path) -> None:
    found = read(tmp_path, '[servers.one]\ncommand = ["x"]\nagents = ["code"]\n')
    assert [server.name for server in found.of("code")] == ["one"]
    assert found.of("data") == ()


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ('command = ["x"]', "servers.bad.agents: Field required"),
        ('agents = ["code"]', "servers.bad: give either `command` or `url`"),
        ('command = ["x"]\nurl = "https://x"\nagents = ["code"]', "give either"),
        ('command = []\nagents = ["code"]', "give either"),
        ('command = ["  "]\nagents = ["code"]', "servers.bad.command: must be a program"),
        ('command = ["x"]\nagents = ["code"]\nlevel = 4', "servers.bad.level"),
        ('command = ["x"]\nagents = ["code"]\nlimit_s = 0', "servers.bad.limit_s"),
        ('command = ["x"]\nagents = ["code"]\nsize = 1', "servers.bad.size"),
        ('command = ["x"]\nagents = ["code"]\nhosts = ["api"]', "servers.bad.hosts: 'api'"),
        ('command = ["x"]\nagents = ["code"]\nread = ["opt"]', "servers.bad.read: 'opt'"),
        ('command = ["x"]\nagents = ["code"]\nread = ["/proc/1"]', "servers.bad.read"),
        ('command = ["x"]\nagents = ["code"]\nread = ["HOME/secrets"]', "the product's own state"),
        ('command = ["x"]\nagents = ["code"]\nsecrets = { A = "b" }', "`secrets` are for"),
        ('command = ["x"]\nagents = ["code"]\nenvironment = { "A B" = "b" }', "no variable"),
        (
            'command = ["x"]\nagents = ["code"]\nenvironment = { K = "ghp_' + "a1" * 18 + '" }',
            "servers.bad.environment: K holds a secret",
        ),
        (
            'command = ["x", "--token=ghp_' + "a1" * 18 + '"]\nagents = ["code"]',
            "servers.bad.command: holds a secret",
        ),
        ('url = "ftp://x"\nagents = ["code"]', "servers.bad.url: must be an https"),
        ('url = "http://example.com"\nagents = ["code"]', "servers.bad.url: must be https"),
        ('url = "https://u:p@example.com"\nagents = ["code"]', "servers.bad.url: holds a secret"),
        ('url = "https://example.com:99999"\nagents = ["code"]', "servers.bad.url"),
        (
            'url = "https://x"\nagents = ["code"]\nhosts = ["a:1"]',
            "are for a server with a `command`",
        ),
        ('url = "https://x"\nagents = ["code"]\nsecrets = { Host = "b" }', "'Host' is no header"),
        ('command = ["x"]\nagents = ["code"]\n[servers.bad.tools.t]\nlevel = 9', "tools.t.level"),
    ],
)
def test_a_bad_server_is_one_fault_and_the_others_load(
    tmp_path: Path, lines: str, fault: str
) -> None:
    good = '\n[servers.good]\nurl = "http://127.0.0.1:1/mcp"\nagents = ["code"]\n'
    lines = lines.replace("HOME", str(tmp_path))
    found = read(tmp_path, f"[servers.bad]\n{lines}\n{good}")
    assert list(found.known) == ["good"]
    assert len(found.faults) == 1, found.faults
    assert str(tmp_path / "config" / "mcp.toml") in found.faults[0]
    assert fault in found.faults[0]
    assert "ghp_" not in found.faults[0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[servers", "mcp.toml"),
        ("[server.x]\n", "server: unknown"),
        ("servers = 3\n", "servers: must be a table"),
        ('[servers.a_b]\ncommand = ["x"]\nagents = ["code"]\n', "servers.a_b: the name must match"),
        ('[servers.a]\nname = "b"\ncommand = ["x"]\nagents = ["code"]\n', "without `name`"),
        ("[servers]\na = 3\n", "servers.a: must be a table"),
    ],
)
def test_a_bad_file_is_told(tmp_path: Path, text: str, fault: str) -> None:
    found = read(tmp_path, text)
    assert not found.known
    assert len(found.faults) == 1
    assert fault in found.faults[0]


def test_an_unknown_agent_is_told_and_the_known_ones_have_it(tmp_path: Path) -> None:
    found = read(tmp_path, '[servers.one]\ncommand = ["x"]\nagents = ["code", "cod"]\n')
    assert [server.name for server in found.of("code")] == ["one"]
    assert found.faults[0].endswith("servers.one.agents: there is no agent named 'cod'")
