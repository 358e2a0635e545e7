"""Backups and releases against a server that plays GitHub, with real git on both sides."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from fake_github import FakeGithub

from base import redact
from base.errors import AIError, ConflictError, ForbiddenError, NotFoundError, SettingsError
from base.verbs_outside import GithubRelease
from provision import folders, outside
from provision.box import Box
from provision.git import oid
from provision.github_jobs import Jobs, planned, quiet

KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\n"


async def test_a_backup_is_what_is_there_and_again_is_nothing(
    jobs: Jobs, github: FakeGithub, files: Path
) -> None:
    github.write("me/store", {"README.md": "mine", "MEMORY/old.md": "old"})
    (files / "a b.md").write_text("one")
    (files / "deep").mkdir()
    (files / "deep" / 'q"uo\\te.md').write_text("two")
    (files / "skip").mkdir()
    (files / "skip" / "x.md").write_text("left out")
    (files / "big.md").write_text("x" * 10_001)
    (files / ".env").write_text("A=1")
    (files / "link").symlink_to("/etc/passwd")
    (files / ".git").mkdir()
    (files / ".git" / "config").write_text("not ours")
    dry = await jobs.backup("memory", quiet, dry_run=True)
    assert any("push 3 files" in step for step in planned(dry)), planned(dry)
    assert github.files("me/store") == {"README.md": "mine", "MEMORY/old.md": "old"}
    done = await jobs.backup("memory", quiet)
    assert github.files("me/store") == {
        "README.md": "mine",
        "MEMORY/a b.md": "one",
        'MEMORY/deep/q"uo\\te.md': "two",
    }
    assert done.left == {
        "MEMORY/.env": "holds secrets, by its name",
        "MEMORY/big.md": "10001 bytes are too many",
        "MEMORY/link": "a link",
        "MEMORY/skip/x.md": "left out by outside.toml",
    }
    again = await jobs.backup("memory", quiet)
    assert again.commit is None
    assert jobs.state("memory").commit == done.commit
    assert jobs.state("memory").left == 4


async def test_somebody_pushes_in_the_same_moment(
    jobs: Jobs, github: FakeGithub, files: Path
) -> None:
    (files / "a.md").write_text("one")
    await jobs.backup("memory", quiet)
    (files / "a.md").write_text("two")
    github.before_push = lambda: github.write("me/store", {"other.md": "theirs"})
    await jobs.backup("memory", quiet)
    assert github.files("me/store") == {"MEMORY/a.md": "two", "other.md": "theirs"}


async def test_a_run_that_is_stopped_in_the_middle_is_made_up_for(
    jobs: Jobs, github: FakeGithub, files: Path
) -> None:
    (files / "a.md").write_text("one")
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(jobs.backup("memory", quiet), name="backup")
    stopped = threading.Event()

    def stop() -> None:
        loop.call_soon_threadsafe(task.cancel)
        stopped.wait(10)

    github.before_push = stop
    with pytest.raises(asyncio.CancelledError):
        await task
    stopped.set()
    assert "stopped" in (jobs.state("memory").problem or "")
    await jobs.backup("memory", quiet)
    assert github.files("me/store") == {"MEMORY/a.md": "one"}
    assert jobs.state("memory").problem is None


@pytest.mark.parametrize(
    ("name", "text", "kept"),
    [
        ("note.md", KEY, True),
        ("conf.py", 'api_key = "q8Zr5Lw2Xv9Tb4Nc7Md1"', True),
        ("dump.bin", "\x00\x01 the-owners-own-secret-9 \x02", True),
        ("note.md", "the password is in the safe", False),
    ],
)
async def test_a_secret_is_never_pushed(
    jobs: Jobs,
    github: FakeGithub,
    files: Path,
    give: Callable[[str, str], Path],
    name: str,
    text: str,
    kept: bool,
) -> None:
    give("other", "the-owners-own-secret-9")
    (files / "fine.md").write_text("fine")
    (files / name).write_text(f"first line\n{text}")
    if not kept:
        await jobs.backup("memory", quiet)
        assert set(github.files("me/store")) == {"MEMORY/fine.md", f"MEMORY/{name}"}
        return
    with pytest.raises(ConflictError, match="looks like a secret") as error:
        await jobs.backup("memory", quiet)
    assert f"MEMORY/{name}{'' if name == 'dump.bin' else ':2'}" in str(error.value)
    assert text not in str(error.value)
    assert not any("receive-pack" in one for one in github.asked), "nothing was even begun"
    assert "secret" in (jobs.state("memory").problem or "")
    name_of_it = oid((files / name).read_bytes())
    objects = jobs._folder / "memory.git" / "objects"
    assert objects.is_dir()
    assert not (objects / name_of_it[:2] / name_of_it[2:]).exists(), "not even kept here"


async def test_a_token_is_in_no_argument_address_file_or_log(
    jobs: Jobs, github: FakeGithub, files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """git itself writes down what it was started with."""
    caplog.set_level(logging.DEBUG)
    seen = tmp_path / "seen"
    seen.write_text("")
    wrapped = tmp_path / "wrapped"
    wrapped.mkdir()
    script = f'#!/bin/sh\nprintf "%s\\n" "$@" >> {seen}\nexec /usr/bin/git "$@"\n'
    (wrapped / "git").write_text(script)
    (wrapped / "git").chmod(0o755)
    (files / "a.md").write_text("one")
    import provision.git as ours

    real = ours.shutil.which
    ours.shutil.which = lambda name, path=None: str(wrapped / name)  # type: ignore[assignment]
    try:
        await jobs.backup("memory", quiet)
    finally:
        ours.shutil.which = real  # type: ignore[assignment]
    token = github.token
    assert "push" in seen.read_text()
    assert token not in seen.read_text()
    assert token not in caplog.text
    for path in (tmp_path / "state").rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path
    assert token not in " ".join(github.asked)
    assert token not in redact.redact(f"x {token} y")


async def test_a_repository_that_everybody_can_read_is_refused(
    jobs: Jobs, github: FakeGithub, files: Path
) -> None:
    (files / "a.md").write_text("one")
    github.repositories["me/store"] = False
    with pytest.raises(ForbiddenError, match="me/store is public"):
        await jobs.backup("memory", quiet)
    assert not any("receive-pack" in one for one in github.asked)


async def test_what_is_not_set_up_says_so(
    box: Box, jobs: Jobs, github: FakeGithub, files: Path
) -> None:
    (files / "a.md").write_text("one")
    del github.repositories["me/store"]
    with pytest.raises(NotFoundError, match="no repository me/store for this token"):
        await jobs.backup("memory", quiet)
    github.token = "another"
    with pytest.raises(ForbiddenError, match="does not accept the token github-pat"):
        await jobs.backup("memory", quiet)
    (box.config / "secrets" / "github-pat").unlink()
    with pytest.raises(ConflictError, match="no secret github-pat; put the token into"):
        await jobs.backup("memory", quiet)
    with pytest.raises(NotFoundError, match="no repository 'code'; there are: memory, config"):
        await jobs.backup("code", quiet)
    (box.config / "outside.toml").unlink()
    with pytest.raises(ConflictError, match="name some under"):
        await jobs.backup("memory", quiet)
    (box.config / "outside.toml").write_text('[github]\nurl = "http://example.org"\n')
    with pytest.raises(SettingsError, match=r"github\.url"):
        await jobs.backup("memory", quiet)


async def test_github_asks_to_wait(jobs: Jobs, github: FakeGithub, files: Path) -> None:
    (files / "a.md").write_text("one")
    steps: list[str] = []

    async def tell(step: str) -> None:
        steps.append(step)

    github.refusals = [(429, {"Retry-After": "1"}, {"message": "You have exceeded a limit"})]
    await jobs.backup("memory", tell)
    assert "GitHub asks to wait 1 s" in steps
    github.refusals = [(403, {"Retry-After": "3600"}, {"message": "secondary rate limit"})]
    with pytest.raises(ConflictError, match="ask again in 3600 s"):
        await jobs.backup("memory", tell)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of two owners")
async def test_what_agents_lay_out_for_root_is_not_read(
    jobs: Jobs, github: FakeGithub, files: Path, tmp_path: Path
) -> None:
    root_only = tmp_path / "shadow"
    root_only.write_text("root's own")
    os.chown(files, 65_534, 65_534)
    os.link(root_only, files / "mine.md")
    (files / "fine.md").write_text("1")
    done = await jobs.backup("memory", quiet)
    assert done.left["MEMORY/mine.md"] == "a second name of somebody else's file"
    lured = tmp_path / "lured"
    lured.symlink_to(files)
    os.chown(lured, 65_534, 65_534, follow_symlinks=False)
    with pytest.raises(ConflictError, match="a link that somebody else made"):
        list(folders.files(lured, limit_bytes=10))


async def test_folders_of_keys_are_never_pushed(box: Box, jobs: Jobs, files: Path) -> None:
    text = (box.config / "outside.toml").read_text()
    (box.config / "outside.toml").write_text(text.replace(str(files), str(box.config / "secrets")))
    with pytest.raises(ConflictError, match="holds secrets or keys"):
        await jobs.backup("memory", quiet)
    (box.config / "outside.toml").write_text(text.replace(str(files), str(box.config)))
    done = await jobs.backup("memory", quiet)
    assert "secrets" not in json.dumps([done.pushed, done.left])


async def test_a_release_is_made_once_and_brought_to_what_is_asked(
    jobs: Jobs, github: FakeGithub
) -> None:
    wanted = GithubRelease(name="memory", tag="v1.0", title="One", notes="first")
    assert (await jobs.release(wanted, quiet, dry_run=True)).made
    assert github.releases == {}
    made = await jobs.release(wanted, quiet)
    assert made.made
    assert github.releases["v1.0"]["body"] == "first"
    again = await jobs.release(wanted, quiet)
    assert (again.made, again.changed) == (False, ())
    other = wanted.model_copy(update={"notes": "second"})
    assert (await jobs.release(other, quiet)).changed == ("notes",)
    assert github.releases["v1.0"]["body"] == "second"
    github.refusals = [(404, {}, {"message": "Not Found"})]
    with pytest.raises(NotFoundError, match="me/store"):
        await jobs.release(wanted, quiet)


async def test_a_missing_repository_is_made_private(
    box: Box, jobs: Jobs, github: FakeGithub, files: Path
) -> None:
    (files / "a.md").write_text("one")
    del github.repositories["me/store"]
    own = box.config / "outside.toml"
    own.write_text(own.read_text().replace('kind = "backup"', 'kind = "backup"\ncreate = true'))
    with pytest.raises(NotFoundError, match="would be made"):
        await jobs.backup("memory", quiet, dry_run=True)
    await jobs.backup("memory", quiet)
    assert github.repositories["me/store"] is True
    assert set(github.files("me/store")) == {"MEMORY/a.md"}


async def test_what_is_due(jobs: Jobs, github: FakeGithub, files: Path) -> None:
    assert jobs.due() == ["memory", "config"], "never run: at once"
    (files / "a.md").write_text("one")
    for name in ("memory", "config"):
        await jobs.run(name, quiet)
    now = datetime.now(ZoneInfo("Europe/Berlin"))
    if now.weekday() == 6 and now.hour < 3:  # the hour of the weekly one is near
        now = now.astimezone(ZoneInfo("Asia/Tokyo"))
    assert jobs.due(now) == []
    assert jobs.due(now + timedelta(minutes=31)) == ["config"]
    assert jobs.due(now + timedelta(days=7)) == ["memory", "config"], "longest ago first"
    sunday = now + timedelta(days=(6 - now.weekday()) % 7 or 7)
    assert "memory" not in jobs.due(sunday.replace(hour=2, minute=59))
    assert "memory" in jobs.due(sunday.replace(hour=3, minute=1))
    github.repositories["me/store"] = False
    with pytest.raises(AIError):
        await jobs.run("memory", quiet)
    assert "memory" not in jobs.due(now + timedelta(minutes=50))
    assert "memory" in jobs.due(now + timedelta(minutes=62)), "what failed is tried again sooner"


def test_the_shipped_file_asks_for_nothing(box: Box) -> None:
    found = outside.read(box)
    assert found.cloudflare.zones == ()
    assert found.repositories == {}
