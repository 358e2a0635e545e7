"""Sync both ways against a server that plays GitHub, with real git on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_github import FakeGithub

from base.errors import ConflictError
from provision import folders
from provision.box import Box
from provision.github_jobs import Jobs, planned, quiet


async def test_both_sides_get_what_the_other_changed(
    jobs: Jobs, github: FakeGithub, files: Path
) -> None:
    (files / "here.md").write_text("1")
    (files / "both.md").write_text("a\nb\nc\nd\ne\n")
    (files / "gone.md").write_text("1")
    (files / "here.md").chmod(0o604)
    await jobs.sync("config", {}, quiet)
    assert set(github.files("me/store")) == {"config/here.md", "config/both.md", "config/gone.md"}
    (files / "here.md").write_text("2")
    (files / "both.md").write_text("A\nb\nc\nd\ne\n")
    github.write("me/store", {
        "config/new/there.md": "3", "config/both.md": "a\nb\nc\nd\nE\n", "config/gone.md": None,
        "README.md": "outside of the paths",
    })  # fmt: skip
    dry = await jobs.sync("config", {}, quiet, dry_run=True)
    assert any(step.startswith("take 3 files from GitHub") for step in planned(dry))
    assert (files / "gone.md").exists()
    done = await jobs.sync("config", {}, quiet)
    assert (files / "new" / "there.md").read_text() == "3"
    assert (files / "both.md").read_text() == "A\nb\nc\nd\nE\n", "changes in different places"
    assert not (files / "gone.md").exists()
    assert (files / "here.md").stat().st_mode & 0o777 == 0o604
    assert github.files("me/store") == {
        "README.md": "outside of the paths",
        "config/here.md": "2",
        "config/both.md": "A\nb\nc\nd\nE\n",
        "config/new/there.md": "3",
    }
    assert not done.both
    assert (await jobs.sync("config", {}, quiet)).commit is None


async def test_what_both_changed_stays_on_both_and_says_so(
    jobs: Jobs, github: FakeGithub, files: Path
) -> None:
    (files / "team.toml").write_text("a = 1\n")
    (files / "other.md").write_text("1")
    await jobs.sync("config", {}, quiet)
    (files / "team.toml").write_text("a = 2\n")
    (files / "other.md").write_text("2")
    github.write("me/store", {"config/team.toml": "a = 3\n"})
    for _ in range(2):
        with pytest.raises(ConflictError, match=r"config/team\.toml \(it was changed on both"):
            await jobs.sync("config", {}, quiet)
        assert (files / "team.toml").read_text() == "a = 2\n"
        assert github.files("me/store")["config/team.toml"] == "a = 3\n"
    assert github.files("me/store")["config/other.md"] == "2", "it holds up nothing else"
    status = await jobs.status("config")
    assert "-a = 2\n+a = 3" in status["differ"]["config/team.toml"]
    assert "1 file stays as it is on both sides" in status["problem"]
    await jobs.sync("config", {"config/team.toml": "there"}, quiet)
    assert (files / "team.toml").read_text() == "a = 3\n"
    assert jobs.state("config").problem is None
    git = jobs._folder / "config.git"
    log = github.git("-C", str(git), "log", "-p", "refs/ours/here").decode()
    assert "a = 2" in log, "what was replaced can still be had"


async def test_both_add_the_same_key(jobs: Jobs, github: FakeGithub, files: Path) -> None:
    """As text the two fit together; as TOML they do not."""
    (files / "t.toml").write_text("a = 1\n\n\n\n\nb = 1\n")
    await jobs.sync("config", {}, quiet)
    (files / "t.toml").write_text("new = 1\na = 1\n\n\n\n\nb = 1\n")
    github.write("me/store", {"config/t.toml": "a = 1\n\n\n\n\nb = 1\nnew = 2\n"})
    with pytest.raises(ConflictError, match=r"config/t\.toml"):
        await jobs.sync("config", {}, quiet)
    assert "new = 2" not in (files / "t.toml").read_text()
    github.write(
        "me/store", {"config/t.toml": "a = 1\n\n\n\n\nb = 1\n", "config/u.toml": "= broken"}
    )
    with pytest.raises(ConflictError, match=r"u\.toml \(it cannot be read as it is there"):
        await jobs.sync("config", {}, quiet)
    assert not (files / "u.toml").exists()
    assert "new = 1" in github.files("me/store")["config/t.toml"]


async def test_all_gone_is_taken_for_an_accident(
    jobs: Jobs, github: FakeGithub, files: Path
) -> None:
    for name in ("a.md", "b.md"):
        (files / name).write_text(name)
    await jobs.sync("config", {}, quiet)
    for name in ("a.md", "b.md"):
        (files / name).unlink()
    with pytest.raises(ConflictError, match="is gone here: this is not carried on"):
        await jobs.sync("config", {}, quiet)
    assert len(github.files("me/store")) == 2
    for name in ("a.md", "b.md"):
        (files / name).write_text(name)
    github.write("me/store", {"config/a.md": None, "config/b.md": None, "x": "y"})
    with pytest.raises(ConflictError, match="is gone at GitHub"):
        await jobs.sync("config", {}, quiet)
    assert (files / "a.md").exists()


async def test_a_link_leads_nowhere(jobs: Jobs, github: FakeGithub, files: Path) -> None:
    """Neither one that GitHub sends nor one that lies where a file should go."""
    (files / "a.md").write_text("1")
    (files / "b.md").write_text("1")
    await jobs.sync("config", {}, quiet)
    outside_of_it = files.parent / "victim"
    outside_of_it.mkdir()
    (files / "sub").symlink_to(outside_of_it)
    github.write("me/store", {"config/sub/x.md": "1"}, link="config/evil")
    with pytest.raises(ConflictError):
        await jobs.sync("config", {}, quiet)
    assert not list(outside_of_it.iterdir())
    assert not (files / "evil").is_symlink()
    with pytest.raises(ConflictError, match="no folder"):
        folders.put(files, "sub/x.md", b"1")


async def test_rights_are_taken_only_by_name(jobs: Jobs, github: FakeGithub, files: Path) -> None:
    """Whoever writes to the repository does not write to what agents may."""
    agent = 'title = "Code"\nlevel = 1\n\n\n\nprompt = "old"\n'
    (files / "code.toml").write_text(agent)
    await jobs.sync("config", {}, quiet)
    github.write("me/store", {"config/code.toml": agent.replace("old", "new")})
    await jobs.sync("config", {}, quiet)
    assert "new" in (files / "code.toml").read_text(), "a prompt comes through"
    (files / "code.toml").write_text((files / "code.toml").read_text() + "daily_usd = 5.0\n")
    raised = agent.replace("old", "new").replace("level = 1", "level = 3")
    fresh = 'title = "Mine"\nlevel = 3\ntools = ["shell"]\n'
    github.write("me/store", {
        "config/code.toml": raised, "config/mine.toml": fresh, "config/hooks/run.sh": "id",
    })  # fmt: skip
    with pytest.raises(ConflictError) as error:
        await jobs.sync("config", {}, quiet)
    for path in ("code.toml", "mine.toml", "hooks/run.sh"):
        assert f"config/{path}" in str(error.value)
    assert "level = 1" in (files / "code.toml").read_text()
    assert not (files / "mine.toml").exists()
    assert not (files / "hooks").exists()
    with pytest.raises(ConflictError, match=r"^2 files"):
        await jobs.sync("config", {"config/mine.toml": "there"}, quiet)
    assert (files / "mine.toml").read_text() == fresh


async def test_a_file_that_is_written_in_this_moment_is_not_gone_over(
    jobs: Jobs, github: FakeGithub, files: Path
) -> None:
    for name in ("a.md", "b.md"):
        (files / name).write_text("1\n")
    await jobs.sync("config", {}, quiet)
    github.write("me/store", {"config/a.md": "theirs\n"})
    (files / "b.md").write_text("2\n")
    github.before_push = lambda: (files / "a.md").write_text("mine, just now\n")
    with pytest.raises(ConflictError, match=r"a\.md \(it was changed here in this moment"):
        await jobs.sync("config", {}, quiet)
    assert (files / "a.md").read_text() == "mine, just now\n"
    with pytest.raises(ConflictError, match=r"a\.md \(it was changed on both sides"):
        await jobs.sync("config", {}, quiet)
    assert github.files("me/store") == {"config/a.md": "theirs\n", "config/b.md": "2\n"}


async def test_a_fresh_machine_gets_what_is_at_github(
    box: Box, jobs: Jobs, github: FakeGithub, files: Path
) -> None:
    """Into an empty folder, and into a path that is one file."""
    own = box.config / "outside.toml"
    one_file = files.parent / "team.toml"
    own.write_text(
        own.read_text().replace("{ config = ", f'{{ "team.toml" = "{one_file}", config = ')
    )
    github.write("me/store", {"config/deep/a.md": "1", "team.toml": "a = 1\n"})
    with pytest.raises(ConflictError, match=r"team\.toml is not there"):
        await jobs.sync("config", {}, quiet)
    one_file.write_text("a = 1\n")
    await jobs.sync("config", {}, quiet)
    assert (files / "deep" / "a.md").read_text() == "1"
    github.write("me/store", {"team.toml": "a = 2\n"})
    await jobs.sync("config", {}, quiet)
    assert one_file.read_text() == "a = 2\n"
    one_file.write_text("a = 3\n")
    await jobs.sync("config", {}, quiet)
    assert github.files("me/store")["team.toml"] == "a = 3\n"
