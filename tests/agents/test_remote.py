"""Where a push goes, as git reads the configuration, or no answer at all."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agents import remote
from base.errors import InputError

GOOD = '[remote "origin"]\n\turl = https://git.example.org/team/x.git\n'


def repository(place: Path, config: str) -> None:
    (place / ".git").mkdir()
    (place / ".git" / "config").write_text(config, newline="")


def test_the_whole_address_is_told_without_its_password(tmp_path: Path) -> None:
    repository(tmp_path, GOOD.replace("https://", "https://me:hidden@"))
    told = ("git.example.org:443", "https://git.example.org/team/x.git")
    assert remote.destination({}, tmp_path) == told
    other = remote.destination({"url": "https://h.example:8443/y"}, tmp_path)
    assert other == ("h.example:8443", "https://h.example:8443/y")


@pytest.mark.parametrize(
    "more",
    [
        '[remote "origin"] pushurl = https://evil.example/x\n',
        "[remote.origin]\n\tpushurl = https://evil.example/x\n",
        '[remote "orig\\in"]\n\tpushurl = https://evil.example/x\n',
        "\tpushurl = https://evil.example/x # it is fine\n",
        "\tpushurl = https://evil.example/x ;\n",
        "\tpushurl = https://evil.example;@git.example.org/x\n",
        "\tpushurl = https://evil.example#@git.example.org/x\n",
        "\tnote = a\x0c[core]\n\tpushurl = https://evil.example/x\n",
        "\tnote = a\u2028[core]\n\tpushurl = https://evil.example/x\n",
        "[extensions]\n\tworktreeConfig = true\n",
        "#" * remote.CONFIG_MAX_BYTES + '\n[remote "origin"]\n\tpushurl = https://evil.example/x\n',
    ],
)
def test_what_git_would_read_otherwise_is_refused(tmp_path: Path, more: str) -> None:
    repository(tmp_path, GOOD + more)
    try:
        host = remote.destination({}, tmp_path)[0]
    except InputError:
        return
    assert host == "evil.example:443", "what git itself would go to"


def test_git_reads_those_as_another_address(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    with (tmp_path / ".git" / "config").open("a") as file:
        file.write(GOOD + "\tpushurl = https://evil.example;@git.example.org/x\n")
    asked = ["git", "remote", "get-url", "--push", "origin"]
    told = subprocess.run(asked, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "https://evil.example"
    with pytest.raises(InputError):
        remote.destination({}, tmp_path)
