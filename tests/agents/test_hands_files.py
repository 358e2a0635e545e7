"""read, write, edit, glob and grep, through the real sandbox."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agents import sandbox
from agents.hands import Hands
from base.deadline import Deadline
from base.levels import Levels

pytest_plugins = ["boxed"]

STANDARD = Levels.load().get("standard")


async def test_write_makes_parents_replaces_whole_and_keeps_the_mode(call, workspace: Path) -> None:
    first = await call("write", path="a/b/c.sh", content="echo ä\n")
    assert first.ok
    assert first.files == ("a/b/c.sh",)
    path = workspace / "a/b/c.sh"
    assert path.read_text(encoding="utf-8") == "echo ä\n"
    path.chmod(0o755)
    second = await call("write", path=str(path), content="")
    assert second.ok
    assert second.text.startswith("replaced a/b/c.sh")
    assert path.read_bytes() == b""
    assert path.stat().st_mode & 0o777 == 0o755
    assert [one.name for one in path.parent.iterdir()] == ["c.sh"]


async def test_a_megabyte_goes_in_and_comes_back_byte_for_byte(call, workspace: Path) -> None:
    content = "\x1b[31m \0 \u2028 'quotes' \\n\r\n" * 40_000
    assert (await call("write", path="big", content=content[:999_000])).ok
    assert (workspace / "big").read_bytes() == content[:999_000].encode()


async def test_read_numbers_lines_and_says_how_to_go_on(call, workspace: Path) -> None:
    (workspace / "f").write_text("".join(f"line {n}\n" for n in range(1, 5001)), encoding="utf-8")
    whole = await call("read", path="f")
    assert whole.text.startswith("     1\tline 1\n     2\tline 2\n")
    assert whole.text.endswith("[lines 1 to 2000 of 5000; go on with offset 2001]")
    part = await call("read", path="f", offset=4999, limit=10)
    assert part.text == "  4999\tline 4999\n  5000\tline 5000"
    past = await call("read", path="f", offset=5001)
    assert not past.ok
    assert "has 5000 lines" in past.text


async def test_read_neutralises_control_characters_and_long_lines(call, workspace: Path) -> None:
    (workspace / "f").write_bytes(b"\x1b]0;title\x07\x9b\xff\x7f\n" + b"x" * 5000 + b"\r\n")
    text = (await call("read", path="f")).text
    assert all(char >= " " or char in "\n\t" for char in text)
    assert "\x9b" not in text
    assert "[… 3,000 more characters]" in text


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("none", "No such file"),
        ("folder", "is a folder"),
        ("pipe", "no regular file"),
        ("binary", "is binary"),
        ("huge", "has 20,000,001 bytes; at most 20,000,000"),
        ("/etc/passwd", "is outside the workspace"),
        ("../outside", "is outside the workspace"),
        ("link", "leads outside the workspace"),
        ("chain", "leads outside the workspace"),
        ("folder/up/outside", "outside the workspace"),
        ("/proc/self/environ", "outside the workspace"),
        ("n" * 300, "File name too long"),
    ],
)
async def test_read_and_edit_refuse(call, workspace: Path, path: str, told: str) -> None:
    (workspace / "folder").mkdir()
    (workspace.parent / "outside").write_text("secret", encoding="utf-8")
    os.mkfifo(workspace / "pipe")
    (workspace / "binary").write_bytes(b"\x7fELF\0\0")
    with (workspace / "huge").open("wb") as file:
        file.truncate(20_000_001)
    (workspace / "link").symlink_to("../outside")
    (workspace / "chain").symlink_to("link")
    (workspace / "folder/up").symlink_to("../..")
    for result in (
        await call("read", path=path),
        await call("edit", path=path, old="secret", new="x")
        if path != "binary"
        else await call("read", path=path),
    ):
        assert not result.ok
        assert told in result.text
    assert (workspace.parent / "outside").read_text(encoding="utf-8") == "secret"


@pytest.mark.parametrize("path", ["../x", "/tmp/x", "out/x", "/usr/x", "folder", "."])
async def test_write_refuses(call, workspace: Path, path: str) -> None:
    (workspace / "folder").mkdir()
    (workspace / "out").symlink_to("/tmp")
    result = await call("write", path=path, content="x")
    assert not result.ok
    assert sorted(one.name for one in workspace.iterdir()) == ["folder", "out"]


async def test_edit_wants_one_place_unless_told_all(call, workspace: Path) -> None:
    path = workspace / "f"
    path.write_text("a = 1\nb = 1\n", encoding="utf-8")
    twice = await call("edit", path="f", old="1", new="2")
    assert not twice.ok
    assert "found 2 times in f (lines 1, 2)" in twice.text
    none = await call("edit", path="f", old="a  =  1", new="x")
    assert "line 1 is like it but for white space" in none.text
    assert "the same" in (await call("edit", path="f", old="a", new="a")).text
    assert path.read_text(encoding="utf-8") == "a = 1\nb = 1\n"
    once = await call("edit", path="f", old="a = 1", new="a = 3")
    assert once.ok
    assert once.text == "changed 1 place in f (line 1)"
    assert once.files == ("f",)
    assert (await call("edit", path="f", old=" = ", new="=", replace_all=True)).ok
    assert path.read_text(encoding="utf-8") == "a=3\nb=1\n"


async def test_edit_keeps_carriage_returns_and_bytes_that_are_no_text(call, workspace) -> None:
    path = workspace / "f"
    path.write_bytes(b"one\r\ntwo\r\n\xff\r\n")
    assert (await call("edit", path="f", old="one\ntwo", new="1\n2\n3")).ok
    assert path.read_bytes() == b"1\r\n2\r\n3\r\n\xff\r\n"


async def test_glob_matches_names_newest_first(call, workspace: Path) -> None:
    for age, name in enumerate(("a.py", "src/b.py", "src/deep/c.ts", "src/d.tsx", ".git/e.py")):
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    assert (await call("glob", pattern="*.py")).text == "a.py\nsrc/b.py"
    assert (await call("glob", pattern="src/**/*.{ts,tsx}")).text == "src/deep/c.ts\nsrc/d.tsx"
    assert (await call("glob", pattern="[ab].??", path="src")).text == "src/b.py"
    assert (await call("glob", pattern="x*")).text == "no file matches x*"
    assert not (await call("glob", pattern="*", path="../")).ok
    assert not (await call("glob", pattern="*", path="a.py")).ok


async def _grep_all(hands: Hands, workspace: Path) -> None:
    (workspace / "src").mkdir()
    (workspace / "src/a.py").write_text("def alpha():\n    return 'Beta'\n", encoding="utf-8")
    (workspace / "b.txt").write_text("beta\n", encoding="utf-8")
    (workspace / "bin").write_bytes(b"\0beta\n")
    (workspace / "link").symlink_to("/etc")

    async def grep(**given: object) -> str:
        return (await hands.call("grep", given, deadline=Deadline.after(20))).text

    assert await grep(pattern="beta") == "b.txt:1:beta"
    assert await grep(pattern="beta", ignore_case=True, glob="*.py") == (
        "src/a.py:2:    return 'Beta'"
    )
    assert await grep(pattern=r"^def \w+", path="src") == "src/a.py:1:def alpha():"
    assert await grep(pattern="--pre=id") == "nothing matches --pre=id"
    assert "grep" in await grep(pattern="(") or "not a regular" in await grep(pattern="(")
    assert "no such file" in await grep(pattern="x", path="none")
    assert "outside the workspace" in await grep(pattern="root", path="/etc")
    assert "outside the workspace" in await grep(pattern="root", path="link")


async def test_grep_with_ripgrep(hands: Hands, workspace: Path) -> None:
    await _grep_all(hands, workspace)


async def test_grep_without_ripgrep(
    workspace: Path, hands_user: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty PATH hides ripgrep; a pattern that never ends is given up at the deadline."""
    monkeypatch.setattr(
        sandbox,
        "environment",
        lambda *_, **__: {"PATH": "/none", "HOME": "/tmp", "LANG": "C.UTF-8", "TERM": "dumb"},
    )
    hands = await Hands.open(workspace=workspace, user=hands_user, level=STANDARD)
    try:
        await _grep_all(hands, workspace)
        (workspace / "evil").write_text("a" * 60 + "!", encoding="utf-8")
        slow = await hands.call("grep", {"pattern": "(a+)+$"}, deadline=Deadline.after(1))
        assert not slow.ok
        assert "time limit" in slow.text
        again = await hands.call("glob", {"pattern": "evil"}, deadline=Deadline.after(10))
        assert again.text == "evil"
    finally:
        await hands.close()
