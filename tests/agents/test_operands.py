"""The files a call names: found, hashed from outside, and never beyond the task's view."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agents import operands
from base.approvals import UNBOUND
from base.errors import InputError

SECRET = "the secret"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    workspace = tmp_path / "w"
    (workspace / "src").mkdir(parents=True)
    (workspace / "a.sh").write_text("echo a\n")
    (workspace / "src" / "b.py").write_text("print(1)\n")
    (tmp_path / "outside").write_text(SECRET)
    return workspace


def look(place: Path, name: str = "shell", **given: Any) -> dict[str, str | None]:
    """What is bound by name; the whole workspace, bound besides, only where nothing is named."""
    found = operands.measure(name, given, place)
    by_name = {os.path.relpath(one.path, place): one.sha256 for one in found}
    named = {path: sha256 for path, sha256 in by_name.items() if path != "."}
    return by_name if name == "git" or not named else named


def test_what_a_named_file_reads_is_bound_with_the_workspace(place: Path) -> None:
    for name, field in (("shell", "command"), ("python", "code"), ("mcp__x__run", "script")):
        before = operands.measure(name, {field: "bash a.sh"}, place)
        (place / "src" / "b.py").write_text(f"print('{name}')\n")
        after = operands.measure(name, {field: "bash a.sh"}, place)
        assert [one.path for one in before] == [str(place), str(place / "a.sh")]
        assert [one == two for one, two in zip(before, after, strict=True)] == [False, True]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("bash a.sh", {"a.sh"}),
        ("bash ./a.sh && python3 src/../src/b.py", {"a.sh", "src/b.py"}),
        ("X=a.sh; tar --file=src/b.py <a.sh >new", {"a.sh", "src/b.py"}),
        ("cat 'a.sh'|sh;echo $(cat src/b.py)", {"a.sh", "src/b.py"}),
        ("rm src/*.py", {"src"}),
        ("cat /etc/hostname a.sh", {"a.sh"}),
        ("echo it is 'unclosed a.sh", {"a.sh"}),
    ],
)
def test_words_of_a_command_that_name_files_count(
    place: Path, command: str, names: set[str]
) -> None:
    assert set(look(place, command=command)) == names


def test_contents_are_hashed_and_what_is_missing_says_so(place: Path) -> None:
    found = look(place, "write", path="src/b.py", content="a.sh")
    assert found == {"src/b.py": sha("print(1)\n")}
    assert look(place, "write", path="none/new", content="") == {"none/new": None}


def test_a_link_counts_as_what_it_leads_to(place: Path) -> None:
    (place / "run").symlink_to("a.sh")
    assert look(place, command="sh run") == {"a.sh": sha("echo a\n")}
    (place / "run").unlink()
    (place / "run").symlink_to("src/b.py")
    assert look(place, command="sh run") == {"src/b.py": sha("print(1)\n")}
    (place / "src" / "loop").symlink_to("loop")
    assert look(place, "read", path="src/loop") == {"src/loop": "special:loop"}


def test_nothing_outside_the_view_is_read(place: Path) -> None:
    (place / "link").symlink_to("../outside")
    (place / "folder").symlink_to("/etc")
    assert look(place, "read", path="link") == {"../outside": operands.OUTSIDE}
    assert set(look(place, "read", path="folder/shadow").values()) == {operands.OUTSIDE}
    assert set(look(place, "read", path="/proc/1/environ").values()) == {operands.OUTSIDE}
    assert sha(SECRET) not in str(look(place, command="cat link ../outside a.sh"))
    seen = operands.measure("read", {"path": "../outside"}, place, [str(place.parent)])
    assert [one.sha256 for one in seen] == [sha(SECRET)]


def test_a_link_that_leads_out_is_told(place: Path) -> None:
    (place / "notes").symlink_to("../outside")
    (place / "folder").symlink_to("/etc")
    told = {"../outside": operands.OUTSIDE, os.path.relpath("/etc", place): operands.OUTSIDE}
    assert look(place, command="cat notes folder /etc/hostname ../outside") == told
    assert sha(SECRET) not in str(told)


def test_any_field_of_a_foreign_tool_may_name_a_file(place: Path) -> None:
    found = look(place, "mcp__site__deploy", source={"script": ["a.sh"]}, to="prod", n=1)
    assert found == {"a.sh": sha("echo a\n")}
    assert set(look(place, "mcp__site__deploy", to="prod")) == {"."}


def test_a_repository_that_lies_elsewhere_is_bound_with_the_workspace(place: Path) -> None:
    (place / "real" / "refs").mkdir(parents=True)
    (place / "src" / ".git").write_text("gitdir: ../real\n")
    before = look(place, "git", verb="push", folder="src")
    assert set(before) == {".", "src", "src/.git"}
    (place / "real" / "refs" / "main").write_text("other\n")
    assert look(place, "git", verb="push", folder="src") != before
    (place / "src" / ".git").unlink()
    assert "." in look(place, "git", verb="push", folder="src"), "the one above is taken"


def test_a_folder_changes_with_all_that_is_in_it(place: Path) -> None:
    before = look(place, "grep", path="src", pattern="x")
    assert str(before["src"]).startswith("tree:")
    assert look(place, "grep", path="src", pattern="y") == before
    changes = [
        lambda: (place / "src" / "new").write_text(""),
        lambda: (place / "src" / "b.py").write_text("print(2)\n"),
        lambda: (place / "src" / "b.py").chmod(0o755),
        lambda: (place / "src" / "new").rename(place / "src" / "old"),
        lambda: (place / "src" / "l").symlink_to("b.py"),
    ]
    for change in changes:
        change()
        after = look(place, "grep", path="src", pattern="x")
        assert after != before
        before = after


def test_pipes_and_sockets_are_not_waited_for(place: Path) -> None:
    os.mkfifo(place / "pipe")
    found = look(place, command="cat pipe src")
    assert str(found["pipe"]).startswith("special:")


def test_a_push_is_bound_to_what_the_repository_holds(place: Path) -> None:
    def git(*words: str) -> None:
        own = ["-c", "user.name=n", "-c", "user.email=e@x"]
        subprocess.run(["git", *own, *words], cwd=place, check=True, capture_output=True)

    git("init", "-q")
    git("add", "a.sh")
    git("commit", "-qm", "one")
    before = look(place, "git", verb="push")
    assert set(before) == {".git"}
    assert look(place, "git", verb="push") == before
    git("commit", "-qm", "two", "--allow-empty")
    assert look(place, "git", verb="push") != before


def test_a_command_that_names_nothing_is_bound_to_a_small_workspace(place: Path) -> None:
    before = look(place, command="make deploy")
    assert set(before) == {"."}
    (place / "Makefile").write_text("deploy: ;\n")
    assert look(place, command="make deploy") != before
    for number in range(operands.WORKSPACE_ENTRIES_MAX):
        (place / "src" / f"{number}").touch()
    assert look(place, command="make deploy") == {".": UNBOUND}


def test_a_workspace_not_made_yet_counts_as_empty(tmp_path: Path) -> None:
    before = operands.measure("shell", {"command": "make"}, tmp_path / "new")
    (tmp_path / "new").mkdir()
    assert operands.measure("shell", {"command": "make"}, tmp_path / "new") == before
    (tmp_path / "new" / "f").touch()
    assert operands.measure("shell", {"command": "make"}, tmp_path / "new") != before


def test_more_than_can_be_bound_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operands, "BYTES_MAX", 10)
    with pytest.raises(InputError, match="too many or too large"):
        look(place, command="cat a.sh src/b.py")
    monkeypatch.undo()
    names = [f"f{number}" for number in range(operands.OPERANDS_MAX + 1)]
    with pytest.raises(InputError, match="more than 200 files"):
        look(place, "git", verb="push", paths=names)


def test_odd_names_and_input_do_no_harm(place: Path) -> None:
    (place / os.fsdecode(b"bad\xff")).write_text("x")
    found = operands.measure("glob", {"path": ".", "pattern": "*"}, place)
    assert found[0].sha256
    operands.measure("shell", {"command": "cat " + "a" * 5000 + " '\ud800'"}, place)
    operands.measure("read", {"path": os.fsdecode(b"bad\xff")}, place)[0].model_dump_json()
