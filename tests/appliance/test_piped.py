"""install.sh piped from a URL: it fetches the rest by git, and half of it does nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "install.sh"
FETCHED = '#!/bin/sh\necho "fetched as $0 with $*"\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository whose install.sh only says that it was come to."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "install.sh").write_text(FETCHED)
    (folder / "install.sh").chmod(0o755)
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(folder)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run(["git", *name, *words], check=True, capture_output=True)
    return folder


def piped(folder: Path, text: str, **more: str) -> subprocess.CompletedProcess[str]:
    """As `curl … | bash -s -- --yes --no-task` does it."""
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), **more}
    return subprocess.run(
        ["/bin/bash", "-s", "--", "--yes", "--no-task"],
        check=False,
        input=text,
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_fetches_the_rest_and_goes_on_there(tmp_path: Path, source: Path) -> None:
    place = tmp_path / "here"
    told = {"AI_INFRA_SOURCE": str(source), "AI_INFRA_SOURCE_FOLDER": str(place)}
    for _ in range(2):  # the second time it is there already
        done = piped(tmp_path, SCRIPT.read_text(), **told)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"fetched as {place}/install.sh with --yes --no-task\n"
    (source / "install.sh").write_text(FETCHED.replace("fetched", "newer"))
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(source)]
    subprocess.run(["git", *name, "commit", "-qam", "y"], check=True)
    assert piped(tmp_path, SCRIPT.read_text(), **told).stdout.startswith("newer")


@pytest.mark.skipif(os.geteuid() != 0, reason="git is installed by root")
def test_git_that_it_brings_is_not_the_owners(tmp_path: Path, source: Path) -> None:
    """Else removing the product would leave it there."""
    tools, place, etc = tmp_path / "tools", tmp_path / "here", tmp_path / "etc"
    tools.mkdir()
    for name in ("bash", "sh", "mkdir", "dirname", "id", "awk", "sort", "comm", "cat", "realpath"):
        (tools / name).symlink_to(str(shutil.which(name)))
    brings = f"ln -s {shutil.which('git')} {tools}/git; echo 'ii git' >> {tmp_path}/dpkg"
    for name, text in {"dpkg-query": f"cat {tmp_path}/dpkg", "apt-get": brings}.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n".replace("ln ", "/usr/bin/ln "))
        (tools / name).chmod(0o755)
    (tmp_path / "dpkg").write_text("ii bash\nrc gone\nii nginx\n")
    told = {"AI_INFRA_SOURCE": str(source), "AI_INFRA_SOURCE_FOLDER": str(place)}
    assert piped(tmp_path, SCRIPT.read_text(), PATH=str(tools), **told).returncode == 0
    here = SCRIPT.read_text().partition("# What dpkg has here")[2].partition("\n\n")[0]
    more = f"{here.partition(chr(10))[2]}\n. {SCRIPT.parent}/provision/appliance.sh\n"
    more += f"set -eu; FOLDER={place} ETC={etc} LOGS={tmp_path}/logs; remember"
    path = f"{tools}:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", more], check=True, env={"PATH": path}, timeout=60)
    assert (etc / "packages-before").read_text() == "bash\nnginx\n"
    assert not list(tmp_path.glob("here.*"))


def test_without_a_source_it_says_what_is_missing(tmp_path: Path) -> None:
    done = piped(tmp_path, SCRIPT.read_text())
    assert done.returncode == 2
    assert "AI_INFRA_SOURCE=<git URL>" in done.stderr
    told = {"AI_INFRA_SOURCE": str(tmp_path / "no"), "AI_INFRA_SOURCE_FOLDER": str(tmp_path / "x")}
    done = piped(tmp_path, SCRIPT.read_text(), **told)
    assert done.returncode == 1
    assert "could not fetch" in done.stderr


@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_a_download_that_was_cut_off_does_nothing(
    tmp_path: Path, source: Path, part: float
) -> None:
    text = SCRIPT.read_text()
    told = {"AI_INFRA_SOURCE": str(source), "AI_INFRA_SOURCE_FOLDER": str(tmp_path / "here")}
    done = piped(tmp_path, text[: int(len(text) * part)], **told)
    assert done.stdout == ""
    assert not (tmp_path / "here").exists()
