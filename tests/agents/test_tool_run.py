"""Jobs, Python and git in a real sandbox."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agents.hands import ToolResult

pytest_plugins = ["boxed"]

Call = Callable[..., Awaitable[ToolResult]]


async def test_a_job_runs_while_other_calls_do_and_its_output_comes_in_pieces(call: Call) -> None:
    begun_s = time.monotonic()
    await call("shell", command="mkdir sub; cd sub; export TINT=green")
    started = await call(
        "shell", command='echo in "$PWD" "$TINT"; sleep 2; echo late; sleep 600', background=True
    )
    assert started.ok
    assert started.text.startswith("job 1: running")
    assert "/sub green" in started.text
    assert time.monotonic() - begun_s < 10
    assert "fine" in (await call("shell", command="echo fine")).text
    waited = await call("jobs", verb="output", job=1, wait_s=3)
    assert "late" in waited.text
    assert "green" not in waited.text, "only what is new"
    assert "(no new output)" in (await call("jobs", verb="output", job=1)).text
    killed = await call("jobs", verb="kill", job=1)
    assert "killed, with all it had started" in killed.text
    assert "sleep 600" not in (await call("shell", command="ps -eo args || true")).text


async def test_a_job_ends_by_itself_and_fails_at_once(call: Call) -> None:
    failed = await call("shell", command="echo no such thing >&2; exit 3", background=True)
    assert not failed.ok
    assert failed.text == "job 1: ended with exit code 3\nno such thing"
    await call("shell", command="sleep 0.7; exit 4", background=True)
    assert "ended with exit code 4" in (await call("jobs", verb="output", job=2, wait_s=9)).text
    listed = (await call("jobs", verb="list")).text.splitlines()
    assert [line.split(": ")[1] for line in listed] == [
        "ended with exit code 3",
        "ended with exit code 4",
    ]


async def test_a_jobs_time_limit_ends_it_with_its_children(call: Call) -> None:
    command = "(while :; do date +%s%N >>tick; sleep 0.05; done) & wait"
    await call("shell", command=command, background=True, limit_s=1)
    await asyncio.sleep(2)
    assert "its time limit passed" in (await call("jobs", verb="output", job=1)).text
    first = (await call("shell", command="wc -c <tick")).text
    await asyncio.sleep(0.5)
    assert (await call("shell", command="wc -c <tick")).text == first, "its child is dead too"


async def test_a_command_that_is_killed_spares_the_jobs(call: Call) -> None:
    await call("shell", command="sleep 600", background=True)
    assert "killed after 1 s" in (await call("shell", command="sleep 60", limit_s=1)).text
    assert "running" in (await call("jobs", verb="list")).text


async def test_a_flood_of_a_job_is_counted_and_its_end_shown(call: Call) -> None:
    command = "seq 1 200000; echo the end"
    await call("shell", command=command, background=True)
    seen = (await call("jobs", verb="output", job=1, wait_s=10)).text
    if "the end" not in seen:
        seen = (await call("jobs", verb="output", job=1, wait_s=10)).text
    assert seen.endswith("the end") or "no new output" in seen
    assert len(seen) < 70_000


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"verb": "output", "job": 9}, "there is no job 9; there are: none"),
        ({"verb": "kill"}, "field 'job' is missing"),
        ({"verb": "stop"}, "'verb' must be one of list, output, kill, not 'stop'"),
    ],
)
async def test_a_wrong_call_of_jobs_is_told(
    call: Call, given: dict[str, object], told: str
) -> None:
    assert told in (await call("jobs", **given)).text


async def test_python_has_the_shells_folder_and_variables(call: Call, workspace: Path) -> None:
    await call("shell", command="mkdir pkg; echo 'x = 42' > pkg/thing.py; cd pkg; export HUE=red")
    code = "import os, thing\nprint(thing.x, os.environ['HUE'], os.getcwd())\n1/0\n"
    ran = await call("python", code=code)
    assert not ran.ok
    assert ran.text.startswith("exit code 1")
    assert f"42 red {workspace}/pkg" in ran.text
    assert "line 3, in <module>\n    1/0" in ran.text, "a traceback shows the line"
    assert not list(workspace.rglob("__pycache__"))


async def test_python_is_killed_at_its_limit_and_takes_any_text(call: Call) -> None:
    slow = await call("python", code="import time\ntime.sleep(60)", limit_s=1)
    assert "killed after 1 s" in slow.text
    odd = "print('''it's $HOME `x` \\\\ \"q\" é''')"
    assert 'it\'s $HOME `x` \\ "q" é' in (await call("python", code=odd)).text
    assert "SyntaxError" in (await call("python", code="def")).text


async def test_git_from_init_to_a_reset(call: Call) -> None:
    assert (await call("git", verb="init")).ok
    await call("write", path="a.txt", content="one\n")
    assert "?? a.txt" in (await call("git", verb="status")).text
    assert (await call("git", verb="add")).ok
    assert (await call("git", verb="commit", message="first: $(id) `x`")).ok
    log = (await call("git", verb="log")).text
    assert "first: $(id) `x`" in log
    assert "AI Infrastructure <agent@localhost>" in log
    assert (await call("git", verb="checkout", ref="side", create=True)).ok
    await call("write", path="a.txt", content="two\n")
    assert "+two" in (await call("git", verb="diff")).text
    await call("git", verb="add", paths=["a.txt"])
    assert "a.txt | 2 +-" in (await call("git", verb="diff", staged=True, stat=True)).text
    assert (await call("git", verb="commit", message="second")).ok
    assert "-one" in (await call("git", verb="show")).text
    assert "* side" in (await call("git", verb="branch")).text
    assert (await call("git", verb="checkout", ref="main")).ok
    assert (await call("git", verb="branch", branch="side", delete=True, force=True)).ok
    await call("write", path="a.txt", content="three\n")
    assert (await call("git", verb="checkout", paths=["a.txt"])).ok
    assert "one" in (await call("read", path="a.txt")).text
    await call("write", path="junk.txt", content="x")
    assert "Would remove junk.txt" in (await call("git", verb="clean")).text
    await call("git", verb="clean", force=True)
    await call("write", path="a.txt", content="four\n")
    assert (await call("git", verb="reset", hard=True)).ok
    assert (await call("git", verb="status")).text.strip() == "## main"


async def test_nothing_that_a_repository_configures_runs(call: Call, workspace: Path) -> None:
    await call("git", verb="init")
    trap = f"#!/bin/sh\ntouch {workspace}/sprung\n"
    await call("write", path="trap", content=trap)
    traps = {
        "core.fsmonitor": "./trap", "core.pager": "./trap", "core.editor": "./trap",
        "core.hooksPath": "hooks", "diff.external": "./trap", "credential.helper": "!./trap",
        "filter.f.clean": "./trap", "filter.f.smudge": "./trap", "diff.f.textconv": "./trap",
        "diff.f.command": "./trap", "core.sshCommand": "./trap", "gpg.program": "./trap",
        "commit.gpgSign": "true", "alias.status": "!./trap", "core.askPass": "./trap",
        "sequence.editor": "./trap", "log.showSignature": "true",
    }  # fmt: skip
    config = "; ".join(f"git config {name} '{value}'" for name, value in traps.items())
    hooks = "mkdir hooks; for h in pre-commit post-checkout reference-transaction post-commit"
    await call("shell", command=f"chmod +x trap; {config}")
    await call("shell", command=f"{hooks}; do cp trap hooks/$h; cp trap .git/hooks/$h; done; true")
    await call("write", path=".gitattributes", content="* filter=f diff=f\n")
    await call("write", path="a.txt", content="one\n")
    for given in (
        {"verb": "status"}, {"verb": "add"}, {"verb": "commit", "message": "m"}, {"verb": "log"},
        {"verb": "show"}, {"verb": "diff", "ref": "HEAD"}, {"verb": "branch", "branch": "b"},
        {"verb": "checkout", "ref": "b"}, {"verb": "reset", "hard": True},
        {"verb": "fetch", "url": "https://git.invalid/x.git", "limit_s": 10},
    ):  # fmt: skip
        await call("git", **given)
    assert not (workspace / "sprung").exists()
    sprung = await call("shell", command="git add . ; git status >/dev/null; ls sprung")
    assert sprung.ok, "the trap is set right: plain git falls into it"


async def test_settings_of_a_worktree_or_an_included_file_count_as_the_repositorys(
    call: Call, workspace: Path
) -> None:
    await call("git", verb="init")
    await call("shell", command="git config extensions.worktreeConfig true")
    evil = "git config --worktree url.https://evil.example/.insteadOf https://github.com/"
    assert (await call("shell", command=evil)).ok
    pushed = await call("git", verb="push", branch="main", url="https://github.com/a/b")
    assert "can lead the connection elsewhere" in pushed.text
    trap = "git config -f more.conf filter.f.clean ./trap; git config include.path ../more.conf"
    await call("shell", command=f"echo 'touch sprung' > trap; chmod +x trap; {trap}")
    await call("write", path=".gitattributes", content="* filter=f\n")
    await call("git", verb="add")
    assert not (workspace / "sprung").exists()


async def test_a_repository_cannot_lead_a_connection_elsewhere(call: Call) -> None:
    await call("git", verb="init")
    for name, value in (
        ("url.https://evil.example/.insteadOf", "https://github.com/"),
        ("http.proxy", "http://evil.example:1"),
        ("remote.origin.vcs", "ext"),
        ("include.path", "../evil.conf"),
    ):
        await call("shell", command=f"git config '{name}' '{value}'")
        pushed = await call("git", verb="push", branch="main", url="https://github.com/a/b")
        assert not pushed.ok
        assert "can lead the connection elsewhere" in pushed.text
        await call("shell", command=f"git config --unset-all '{name}'")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"verb": "clone", "url": "ext::sh -c touch% x", "folder": "x"}, "is no https address"),
        ({"verb": "clone", "url": "file:///etc", "folder": "x"}, "is no https address"),
        ({"verb": "clone", "url": "/etc", "folder": "x"}, "is no https address"),
        ({"verb": "clone", "url": "ssh://a/b", "folder": "x"}, "is no https address"),
        ({"verb": "clone", "url": "https://u:p@h/b", "folder": "x"}, "without a name or password"),
        ({"verb": "clone", "url": "https://h/b"}, "name a new `folder`"),
        ({"verb": "clone", "url": "https://h/b", "folder": "../x"}, "is outside the workspace"),
        ({"verb": "log", "ref": "--output=x"}, "is no ref"),
        ({"verb": "diff", "ref": "--no-index"}, "is no ref"),
        ({"verb": "fetch", "remote": "--upload-pack=x"}, "is no remote"),
        ({"verb": "push", "branch": "+main"}, "exit code 128"),
        ({"verb": "push"}, "needs `branch`"),
        ({"verb": "commit"}, "needs `message`"),
        ({"verb": "checkout"}, "needs `ref`"),
        ({"verb": "status", "message": "x"}, "git status takes no 'message'; it takes: folder"),
        ({"verb": "rebase"}, "'verb' must be one of status, log"),
    ],
)
async def test_a_wrong_call_of_git_is_told(
    call: Call, workspace: Path, given: dict[str, object], told: str
) -> None:
    ran = await call("git", **given)
    assert not ran.ok
    assert told in ran.text
    assert not list(workspace.iterdir())


async def test_git_reads_no_path_as_an_option_or_a_pattern(call: Call) -> None:
    await call("git", verb="init")
    await call("write", path="--all", content="x")
    await call("write", path="b", content="x")
    assert (await call("git", verb="add", paths=["--all"])).ok
    assert (await call("git", verb="status")).text.splitlines()[1:] == ["A  --all", "?? b"]
    assert not (await call("git", verb="add", paths=["*"])).ok


def test_the_machines_git_is_the_one_under_test() -> None:
    assert subprocess.run(["git", "--version"], check=True, capture_output=True).returncode == 0
    assert os.access("/usr/bin/git", os.X_OK)
