"""install.sh at its edges, and once whole: in a copy of this checkout, with this environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import ROOT, free_ports

SCRIPT = ROOT / "install.sh"
#: Enough to look around and too little to install anything.
TOOLS = """
bash cat cmp dirname env find grep id ls mktemp mkdir mv printf readlink realpath rm rmdir sed sleep
sort stat tail touch true uname unshare xargs
"""


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment with a home of its own and hardly any program."""
    (tmp_path / "bin").mkdir()
    for name in TOOLS.split():
        if found := shutil.which(name):
            (tmp_path / "bin" / name).symlink_to(found)
    return {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}


def program(bare: dict[str, str], name: str, body: str) -> None:
    """Put a shell script of that name first on the bare PATH."""
    path = Path(bare["PATH"]) / name
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def install(
    *arguments: str, env: dict[str, str], script: Path = SCRIPT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", str(script), *arguments],
        env=env,
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_a_script_that_did_not_arrive_whole_runs_nothing(
    tmp_path: Path, bare: dict[str, str]
) -> None:
    """At its last 40 places, where a call could stand alone, and at some before."""
    script = SCRIPT.read_bytes()
    whole = len(script.rstrip())
    folder = tmp_path / "checkout"
    (folder / "supervisor").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    for length in (*range(1, whole, 1499), *range(whole - 40, whole)):
        done = subprocess.run(
            ["/bin/bash"],
            input=script[:length],
            env=bare,
            cwd=folder,
            capture_output=True,
            check=False,
            timeout=20,
        )
        assert done.stdout == b"", f"cut at {length}"
    assert not Path(bare["HOME"]).exists()
    assert (
        b"[1/5]"
        in subprocess.run(
            ["/bin/bash"], input=script, env=bare, cwd=folder, capture_output=True, check=False
        ).stdout
    ), "whole, it would have run"


def test_what_takes_long_says_that_it_goes_on(tmp_path: Path) -> None:
    """Where there is no terminal, too: a line now and then, with what the log says last."""
    text = SCRIPT.read_text()
    names = ("say", "fail", "last_line", "telling", "news", "quietly")
    parts = [re.search(rf"^{name}\(\) {{.*?}}$", text, re.MULTILINE | re.DOTALL) for name in names]
    log = tmp_path / "log"
    work = "printf 'Collecting torch\\n  Downloading 3%%\\r  Downloading 97%%\\n\\n'; sleep 1.4"
    lines = [*(found[0] for found in parts if found), f"LOG={log}", "LIFE_S=1"]
    script = "\n".join([*lines, f'quietly sh -c "{work}"', "echo done"])
    done = subprocess.run(
        ["/bin/bash", "-eu", "-c", script], capture_output=True, text=True, check=True, timeout=20
    )
    first, *_, last = done.stdout.splitlines()  # between them another, where a second began late
    assert re.fullmatch(r"      \d s, still at work: Downloading 97%", first)
    assert last == "done"


def test_a_terminal_has_one_line_that_goes_on_and_is_gone_in_the_end(tmp_path: Path) -> None:
    text = SCRIPT.read_text()
    names = ("say", "fail", "last_line", "telling", "news", "quietly")
    parts = [re.search(rf"^{name}\(\) {{.*?}}$", text, re.MULTILINE | re.DOTALL) for name in names]
    long = ", ".join(f"package-{number}" for number in range(90))
    work = f"printf 'Installing collected packages: {long}\n  ━━━━━━━━\r  ━━━━\n'; sleep 2.6"
    lines = [*(found[0] for found in parts if found), f"LOG={tmp_path / 'log'}"]
    lines += ["LIFE_S=1", "LOOK_S=1", 'SCRATCH="" FILLS=""']
    script = "\n".join([*lines, f'quietly sh -c "{work}"', "echo done"])
    mine, theirs = os.openpty()
    subprocess.run(["/bin/bash", "-euo", "pipefail", "-c", script], stdout=theirs, check=True)
    os.close(theirs)
    said = os.read(mine, 65_536).decode()
    os.close(mine)
    *shown, last = said.split("\r\n")[0].split("\r")
    assert last == "done"
    assert shown[-1].isspace()  # what stood there is written over
    assert max(len(one) for one in shown) < 80
    assert any(
        "  2 s  Installing collected packages: package-0, package-1," in one for one in shown
    )
    assert not any("nothing new" in one for one in shown)


def test_what_pip_says_of_folders_that_are_not_there_stays_in_the_log(tmp_path: Path) -> None:
    """Once a package and a folder, so that nothing else would be seen; other warnings are."""
    text = SCRIPT.read_text()
    names = ("say", "fail", "last_line", "telling", "news", "quietly")
    parts = [re.search(rf"^{name}\(\) {{.*?}}$", text, re.MULTILINE | re.DOTALL) for name in names]
    folders = [f"file:///opt/shelf/simple/package-{number}/" for number in range(40)]
    ends = ("neither a file nor a directory.", "either a non-existing path or lacks a specific")
    gone = [f"WARNING: Location '{one}' is ignored: it is {end}" for one in folders for end in ends]
    (tmp_path / "said").write_text(
        "\n".join(["Collecting torch", "WARNING: Retrying", *gone]) + "\n"
    )
    log = tmp_path / "log"
    head = [
        *(found[0] for found in parts if found),
        f"LOG={log}",
        "LIFE_S=1",
        'SCRATCH="" FILLS=""',
    ]
    for code in (0, 1):
        work = f"quietly sh -c 'cat {tmp_path}/said; sleep 1.4; exit {code}'"
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", "\n".join([*head, work])],
            capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
        assert done.returncode == code
        assert "still at work: WARNING: Retrying" in done.stdout
        assert ("Collecting torch" in done.stderr) == bool(code)
        assert "is ignored" not in done.stdout + done.stderr
    assert log.read_text().count("is ignored") == 2 * len(gone)


def test_a_silent_command_is_not_told_of_by_its_last_line(tmp_path: Path) -> None:
    """pip unpacks for half a minute under its line of what it took away before."""
    text = SCRIPT.read_text()
    names = ("say", "fail", "last_line", "telling", "news", "quietly")
    parts = [re.search(rf"^{name}\(\) {{.*?}}$", text, re.MULTILINE | re.DOTALL) for name in names]
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "big").write_bytes(b"x" * 3_000_000)
    log = tmp_path / "log"
    head = [*(found[0] for found in parts if found), f"LOG={log}", "LIFE_S=1", 'SCRATCH=""']
    for fills, begun, then in (
        (f"{tmp_path}/venv", "  Successfully uninstalled setuptools-66", "unpacking, 3 MB so far"),
        ("", "Collecting torch", f"nothing new in {log}"),
    ):
        lines = [*head, f"FILLS={fills}", f"quietly sh -c 'echo \"{begun}\"; sleep 3.2'"]
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", "\n".join(lines)],
            capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
        first, *more = done.stdout.splitlines()
        assert "uninstalled" not in first
        assert ("Collecting torch" in first) == (not fills)
        assert more[-1].endswith(then), done.stdout


def test_help_and_wrong_usage(bare: dict[str, str]) -> None:
    told = install("--help", env=bare)
    assert told.returncode == 0
    assert "--uninstall" in told.stdout
    for arguments, words in ((["--frob"], "unknown option: --frob"), (["--purge"], "--uninstall")):
        done = install(*arguments, env=bare)
        assert done.returncode == 2
        assert words in done.stderr


@pytest.mark.parametrize("port", ["abc", "0", "70000", "80 "])
def test_a_port_that_is_none_is_refused(bare: dict[str, str], port: str) -> None:
    done = install("--yes", env={**bare, "AI_INFRA_PORT": port})
    assert done.returncode == 2
    assert "AI_INFRA_PORT" in done.stderr


def test_a_home_with_other_things_is_never_purged(tmp_path: Path, bare: dict[str, str]) -> None:
    """`rm` only writes down what it was given: red must not cost anybody a disk."""
    program(bare, "rm", f'echo "$@" >> {tmp_path}/removed')
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "letter").touch()
    Path(bare["HOME"]).mkdir()
    for home in ("/", bare["HOME"], f"{bare['HOME']}/", str(tmp_path), str(ROOT), str(theirs)):
        done = install("--uninstall", "--purge", env={**bare, "AI_INFRA_HOME": home})
        assert done.returncode == 2, home
        assert "folder of its own" in done.stderr
    assert not (tmp_path / "removed").exists()


def test_a_home_in_which_only_the_sandbox_was_tried_is_ours(
    tmp_path: Path, bare: dict[str, str]
) -> None:
    """What is looked at next is the port, which ends it before anything is done."""
    (tmp_path / "tried" / "run").mkdir(parents=True)
    env = {**bare, "AI_INFRA_HOME": str(tmp_path / "tried"), "AI_INFRA_PORT": "none"}
    assert "none is no port" in install(env=env).stderr
    (tmp_path / "tried" / "thesis.odt").touch()
    assert "folder of its own" in install(env=env).stderr


def test_without_root_the_missing_is_named_as_a_command(bare: dict[str, str]) -> None:
    program(bare, "id", "echo 1000")
    program(bare, "apt-get", "touch $HOME/ran")
    done = install("--yes", env=bare)
    assert done.returncode == 3
    assert "sudo apt-get update && sudo apt-get install -y tmux git bubblewrap" in done.stderr
    assert not (Path(bare["HOME"]) / "ran").exists()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("bwrap: cannot open /proc/sys/user/x: Read-only file system", "container"),
        ("bwrap: setting up uid map: Permission denied", "sysctl -w "),
    ],
)
def test_a_machine_that_refuses_the_sandbox_is_told_before_anything_is_fetched(
    bare: dict[str, str], said: str, advice: str
) -> None:
    program(bare, "id", "echo 1000")
    program(bare, "bwrap", f"echo '{said}' >&2; exit 1")
    for name in ("tmux", "git", "socat", "rg", "unshare", "setpriv"):
        program(bare, name, "true")
    (Path(bare["PATH"]) / "python3").symlink_to(sys.executable)
    done = install("--yes", env=bare)
    assert done.returncode == 3
    assert said in done.stderr
    assert advice in done.stderr


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A copy of this checkout whose .venv leads to the Python that runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="ai-c-", dir="/tmp"))
    folder.chmod(0o755)
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / "c" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "c" / name)
    programs = folder / "c" / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, module in (("python", ""), ("ai-infra", "-m portal.cli")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        (programs / name).chmod(0o755)
    shutil.copy(folder / "c" / "pyproject.toml", folder / "c" / ".venv" / ".installed")
    yield folder / "c"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="it has the card")
@pytest.mark.parametrize(("needs", "told"), [("nvidia-cudnn==9.2", True), ("sympy", False)])
def test_a_machine_without_a_card_is_told_of_the_large_pytorch_first(
    checkout: Path, needs: str, told: bool
) -> None:
    """pip is played: it would bring what needs `needs`, and then cannot be reached."""
    report = f'{{"install": [{{"metadata": {{"requires_dist": ["{needs}"]}}}}]}}'
    python = checkout / ".venv" / "bin" / "python"
    python.write_text(
        f"""#!/bin/sh
case "$*" in
*--version*) exit 0 ;;
*--report*torch==*) echo '{report}' ;;
*) exit 1 ;;
esac
"""
    )
    (checkout / ".venv" / ".installed").unlink()
    env = {**os.environ, "HOME": str(checkout.parent), "AI_INFRA_HOME": f"{checkout.parent}/h"}
    done = install("--yes", env=env, script=checkout / "install.sh")
    assert done.returncode == 1
    assert "this failed" in done.stderr
    assert (f"{python} -m pip config set global.extra-index-url" in done.stdout) == told


@pytest.mark.timeout(300)
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout")
def test_whole_and_again_and_gone(checkout: Path) -> None:
    home = checkout.parent / "home"
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("A")},
        "HOME": str(home),
        "AI_INFRA_HOME": str(home / "state"),
        "TMPDIR": str(checkout.parent),
    }
    script = checkout / "install.sh"
    try:
        first = install("--yes", env={**env, "AI_INFRA_PORT": str(free_ports())}, script=script)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "This is a rehearsal" in first.stdout
        assert "/login?token=" in first.stdout
        (checkout / "base" / "newer.py").write_text("NEWER = 1\n")
        again = install("--yes", "--no-task", env=env, script=script)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "restarting" in again.stdout
    finally:
        gone = install("--uninstall", env=env, script=script)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert not (checkout / ".venv").exists()
    assert (home / "state" / "data").is_dir(), "the state is kept without --purge"
    assert not list(checkout.parent.glob("ai-infra-install.*")), "no log of a good end is left"
