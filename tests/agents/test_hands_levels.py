"""What each level's sandbox shows and lets change, and what is protected in a person's folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from agents.hands import Hands, ToolResult
from base.deadline import Deadline
from base.errors import SandboxError
from base.levels import Level, Levels
from base.settings import load

pytest_plugins = ["boxed"]

LEVELS = Levels.load()


async def _in(workspace: Path, user: str | None, level: Level, command: str) -> ToolResult:
    hands = await Hands.open(workspace=workspace, user=user, level=level)
    try:
        return await hands.call("shell", {"command": command}, deadline=Deadline.after(60))
    finally:
        await hands.close()


def _given(path: Path, user: str | None) -> None:
    if user is not None:
        subprocess.run(["chown", "-R", f"{user}:", str(path)], check=True)


async def test_restricted_reads_the_workspace_and_changes_nothing(
    workspace: Path, hands_user: str | None
) -> None:
    (workspace / "note").write_text("told", encoding="utf-8")
    _given(workspace, hands_user)
    level = LEVELS.get("restricted")
    got = await _in(workspace, hands_user, level, "cat note; echo x > new; echo x > note; rm note")
    assert "told" in got.text
    assert "Read-only file system" in got.text
    assert sorted(path.name for path in workspace.iterdir()) == ["note"]
    assert (workspace / "note").read_text(encoding="utf-8") == "told"


async def test_a_level_reads_and_writes_the_folders_it_names_and_no_others(
    workspace: Path, ground: Path, hands_user: str | None
) -> None:
    for name in ("shown", "shared", "other"):
        (ground / name).mkdir()
        (ground / name / "page").write_text(name, encoding="utf-8")
        _given(ground / name, hands_user)
    level = LEVELS.get("standard").model_copy(
        update={"read": (str(ground / "shown"), "/nowhere"), "write": (str(ground / "shared"),)}
    )
    command = f"cd {ground}; cat */page; for d in shown shared other; do echo new > $d/page; done"
    got = await _in(workspace, hands_user, level, command)
    assert "shown" in got.text.splitlines()[1]
    assert "shared" in got.text.splitlines()[1]
    assert "other" not in got.text.splitlines()[1]
    texts = {name: (ground / name / "page").read_text() for name in ("shown", "shared", "other")}
    assert texts == {"shown": "shown", "shared": "new\n", "other": "other"}


async def test_the_products_state_is_hidden_even_below_a_folder_that_is_shown(
    workspace: Path, ground: Path, hands_user: str | None
) -> None:
    secret = ground / "home" / "note"
    secret.write_text("hush", encoding="utf-8")
    secret.chmod(0o666)
    (ground / "home").chmod(0o755)
    level = LEVELS.get("standard").model_copy(update={"read": (str(ground),)})
    got = await _in(workspace, hands_user, level, f"ls {ground}; cat {secret}; echo x > here")
    assert "workspace" in got.text
    assert "hush" not in got.text
    assert (workspace / "here").exists()


async def test_the_private_folders_are_bounded(workspace: Path, hands_user: str | None) -> None:
    limits = LEVELS.get("standard").limits.model_copy(update={"scratch_bytes": 16_000_000})
    level = LEVELS.get("standard").model_copy(update={"limits": limits})
    fill = (
        "for d in /tmp ~ /run /dev/shm /var/tmp /root /etc /opt /sys /dev; do "
        "head -c 40M /dev/zero > $d/fill 2>/dev/null; du -sk $d/fill 2>/dev/null; done"
    )
    got = await _in(workspace, hands_user, level, fill)
    sizes = [int(line.split()[0]) for line in got.text.splitlines() if line.endswith("/fill")]
    assert len(sizes) == 6
    assert max(sizes) * 1024 <= 16_000_000 + 4096


@pytest.fixture
def repository(workspace: Path, hands_user: str | None) -> Path:
    """A person's repository with a hook, a start file and a nested repository."""
    for folder in (workspace, workspace / "sub" / "inner"):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
        (folder / ".git" / "hooks" / "pre-commit").write_text("#!/bin/sh\n", encoding="utf-8")
    (workspace / ".bashrc").write_text("# mine\n", encoding="utf-8")
    _given(workspace, hands_user)
    return workspace


PLANT = (
    "for r in . sub/inner; do echo evil >> $r/.git/hooks/pre-commit; "
    "echo evil > $r/.git/hooks/post-commit; "
    "git -C $r config core.hooksPath /tmp; mv $r/.git/hooks $r/.git/old; rm -rf $r/.git/hooks; "
    "mv $r/.git $r/.gone; done; mv sub other; echo evil >> .bashrc; rm .bashrc; mv .bashrc b"
)


@pytest.mark.parametrize("below", [False, True], ids=["alone", "below a folder that is read"])
async def test_what_would_run_as_the_person_cannot_be_changed(
    repository: Path, ground: Path, hands_user: str | None, below: bool
) -> None:
    before = _tree(repository)
    level = LEVELS.get("standard").model_copy(update={"read": (str(ground),) if below else ()})
    await _in(repository, hands_user, level, f"{PLANT}; touch came")
    assert _tree(repository) == before
    assert (repository / "came").exists()


async def test_a_submodules_repository_cannot_be_changed(
    repository: Path, hands_user: str | None
) -> None:
    """`git status` in the outer repository reads what is in the inner ones."""
    inner = repository / ".git" / "modules" / "lib" / "deep"
    subprocess.run(["git", "init", "-q", "--bare", str(inner)], check=True)
    _given(repository, hands_user)
    before = _tree(repository)
    plant = (
        "cd .git/modules/lib/deep; git config core.fsmonitor /tmp/x; echo evil > hooks/post-commit;"
        " cd ../..; mv lib/deep lib/other; mv lib other; cd ..; mv modules other"
    )
    await _in(repository, hands_user, LEVELS.get("standard"), plant)
    assert _tree(repository) == before
    assert inner.is_dir()


@pytest.mark.parametrize("where", [".git", "sub/inner/.git"])
async def test_a_repository_cannot_be_bent_to_another_configuration(
    repository: Path, hands_user: str | None, where: str
) -> None:
    bend = repository / where / "commondir"
    command = f"echo /tmp > {where}/commondir; sleep 20"
    with pytest.raises(SandboxError, match="would make git run its programs as who works there"):
        await _in(repository, hands_user, LEVELS.get("standard"), command)
    assert not bend.exists()
    await _in(repository, hands_user, LEVELS.get("standard"), f"echo /tmp > {where}/commondir")
    assert not bend.exists()


async def test_without_the_protection_it_would_be(
    repository: Path, hands_user: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    monkeypatch.setattr("agents.hands.frozen", lambda *_: ())
    before = _tree(repository)
    await _in(repository, hands_user, LEVELS.get("standard"), PLANT)
    assert _tree(repository) != before


def _tree(folder: Path) -> dict[str, str]:
    """Every path below, and the text of what would run."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8") if path.is_file() else ""
        for path in folder.rglob("*")
        if "hooks" in path.parts or path.name in {"config", ".bashrc", ".git", "sub"}
    }


async def test_git_works_and_nothing_is_littered(repository: Path, hands_user: str | None) -> None:
    before = {path.name for path in repository.iterdir()}
    command = (
        "rm .git/hooks/pre-commit; echo x > file; git add file && git commit -qnm one && "
        "git checkout -qb side && git init -q new && cd new && "
        "echo y > f && git add f && git commit -qm two && git log --format=%s && "
        "git clone -q . ../copy && cd ../copy && git log --format=%s"
    )
    got = await _in(repository, hands_user, LEVELS.get("standard"), command)
    assert got.ok, got.text
    assert got.text.splitlines()[-2:] == ["two", "two"]
    after = {path.name for path in repository.iterdir()}
    assert after - before == {"file", "new", "copy"}


async def test_the_products_own_workspaces_are_whole(ground: Path, hands_user: str | None) -> None:
    if hands_user is None:
        pytest.skip("the hands have no account of their own")
    (ground / "home").chmod(0o755)
    path = load().workspace("anna")
    level = LEVELS.get("standard")
    made = await _in(path, hands_user, level, "git init -q r")
    assert made.ok, made.text
    got = await _in(path, hands_user, level, "cd r && git remote add o /x && cd .. && rm -rf r")
    assert got.ok, got.text
    assert not (path / "r").exists()
    shutil.rmtree(path)


async def test_a_call_ends_at_the_levels_wall_time(workspace: Path, hands_user: str | None) -> None:
    limits = LEVELS.get("standard").limits.model_copy(update={"wall_s": 1})
    level = LEVELS.get("standard").model_copy(update={"limits": limits})
    got = await _in(workspace, hands_user, level, "echo begun; sleep 50")
    assert "its time limit" in got.text
    assert "begun" in got.text
