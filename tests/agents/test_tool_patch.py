"""Patches: all or nothing, in both forms, told so that the model can mend them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agents.toolbox.files import Files
from agents.toolbox.patch import Patch
from agents.toolbox.wire import Refused

ONE = "def one():\n    return 1\n\n\ndef two():\n    return 2\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.py").write_text(ONE)
    (tmp_path / "b.txt").write_text("red\ngreen\nblue\n")
    return tmp_path.resolve()


def apply(folder: Path, patch: str) -> dict[str, object]:
    return Patch(Files(str(folder))).apply(patch)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_an_envelope_adds_changes_moves_and_deletes(folder: Path) -> None:
    (folder / "old.txt").write_text("x\n")
    told = apply(
        folder,
        "*** Begin Patch\n*** Update File: a.py\n@@ def two():\n-    return 2\n+    return 1 + 1\n"
        "\n*** Add File: new/c.txt\n+first\n+second\n*** Update File: b.txt\n*** Move to: d.txt\n"
        " green\n-blue\n+black\n*** Delete File: old.txt\n*** End Patch\n",
    )
    assert tree(folder) == {
        "a.py": ONE.replace("return 2", "return 1 + 1").encode(),
        "new/c.txt": b"first\nsecond\n",
        "d.txt": b"red\ngreen\nblack\n",
    }
    assert told["files"] == ["a.py", "new/c.txt", "d.txt"]
    assert "moved b.txt to d.txt" in str(told["text"])


def test_the_diff_of_git_goes_in_as_it_comes(folder: Path) -> None:
    def git(*args: str) -> str:
        safe = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*"]
        ran = subprocess.run([*safe, *args], cwd=folder, check=True, capture_output=True, text=True)
        return ran.stdout

    (folder / "run.sh").write_text("echo 1\n" * 30)
    (folder / "run.sh").chmod(0o755)
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "x")
    was = tree(folder)
    (folder / "a.py").write_text("import os\n" + ONE.replace("return 2", "return 3").rstrip("\n"))
    (folder / "b.txt").unlink()
    (folder / "n.txt").write_text("new\n--- not a head\n+++ either\n")
    git("mv", "run.sh", "go.sh")
    (folder / "go.sh").write_text("echo 1\n" * 15 + "echo 2\n" + "echo 1\n" * 15)
    git("add", "-A")
    diff = git("diff", "--cached", "-M")
    now = {name: data for name, data in tree(folder).items() if not name.startswith(".git/")}
    git("reset", "-q", "--hard")
    assert {k: v for k, v in tree(folder).items() if k in was and not k.startswith(".git")} == {
        k: v for k, v in was.items() if not k.startswith(".git")
    }
    apply(folder, diff)
    assert {k: v for k, v in tree(folder).items() if not k.startswith(".git/")} == now
    assert os.access(folder / "go.sh", os.X_OK), "a moved file stays executable"


def test_nothing_is_changed_when_one_part_does_not_fit(folder: Path) -> None:
    was = tree(folder)
    with pytest.raises(Refused) as told:
        apply(
            folder,
            "*** Begin Patch\n*** Add File: c.txt\n+c\n*** Update File: a.py\n def one():\n"
            "-    return 7\n+    return 8\n*** Update File: b.txt\n-pink\n+x\n"
            "*** Update File: none.txt\n-a\n+b\n*** End Patch",
        )
    assert tree(folder) == was
    assert str(told.value) == (
        "nothing was changed; the patch does not fit:\n"
        "- a.py: hunk 1 of 1 does not fit: it is most like line 1, but line 2 is '    return 1', "
        "not '    return 7'\n"
        "- b.txt: hunk 1 of 1 does not fit: none of its lines is in the file, such as 'pink'\n"
        "- none.txt: no such file"
    )


def test_what_was_written_is_put_back_when_the_disk_refuses(folder: Path) -> None:
    was = tree(folder)
    (folder / "b.txt.d").mkdir()
    with pytest.raises(Refused, match="nothing was changed"):
        apply(
            folder,
            "*** Begin Patch\n*** Update File: a.py\n-def one():\n+def uno():\n"
            "*** Delete File: b.txt\n*** Add File: a.py/inside.txt\n+x\n*** End Patch",
        )
    assert tree(folder) == was


def test_a_hunk_that_fits_twice_must_say_more(folder: Path) -> None:
    (folder / "b.txt").write_text("a\nx\nb\nx\n")
    with pytest.raises(Refused, match=r"fits 2 places \(lines 2, 4\)"):
        apply(folder, "*** Begin Patch\n*** Update File: b.txt\n-x\n+y\n*** End Patch")
    apply(folder, "*** Begin Patch\n*** Update File: b.txt\n@@ b\n-x\n+y\n*** End Patch")
    assert (folder / "b.txt").read_text() == "a\nx\nb\ny\n"
    apply(folder, "--- a/b.txt\n+++ b/b.txt\n@@ -2 +2 @@\n-x\n+z\n")
    assert (folder / "b.txt").read_text() == "a\nz\nb\ny\n"


def test_line_ends_and_a_missing_last_newline_stay(folder: Path) -> None:
    (folder / "b.txt").write_bytes(b"red\r\ngreen\r\nblue")
    apply(folder, "*** Begin Patch\n*** Update File: b.txt\n-green\n+olive\n*** End Patch")
    assert (folder / "b.txt").read_bytes() == b"red\r\nolive\r\nblue"


@pytest.mark.parametrize(
    ("patch", "told"),
    [
        ("hello", "the patch names no file"),
        ("*** Begin Patch\n*** Update File: a.py\n-x", "the patch is cut: *** End Patch"),
        ("*** Begin Patch\n-x\n*** End Patch", "must come before '-x'"),
        ("*** Begin Patch\n*** Add File: a.py\n+x\n*** End Patch", "a.py: it exists already"),
        ("*** Begin Patch\n*** Add File: n\nx\n*** End Patch", "line 3: each line of an added"),
        ("*** Begin Patch\n*** Delete File: n\n*** End Patch", "n: no such file"),
        ("*** Begin Patch\n*** Update File: a.py\n*** End Patch", "nothing to change in it"),
        ("*** Begin Patch\n*** Add File: ../n\n+x\n*** End Patch", "is outside the workspace"),
        (
            "*** Begin Patch\n*** Update File: a.py\n*** Move to: b.txt\n*** End Patch",
            "b.txt: it e",
        ),
        ("--- a/a.py\n+++ b/a.py\n@@ def one @@\n-x\n", "is no hunk of a unified diff"),
        ("@@ -1 +1 @@\n-a\n+b\n", "a hunk before any --- and +++ line"),
        ("diff --git a/x b/x\nBinary files a/x and b/x differ\n", "binary files cannot be patched"),
    ],
)
def test_a_text_that_is_no_patch_is_told(folder: Path, patch: str, told: str) -> None:
    was = tree(folder)
    with pytest.raises(Refused) as error:
        apply(folder, patch)
    assert told in str(error.value)
    assert tree(folder) == was
