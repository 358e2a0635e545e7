"""A release's Python environment: its own, which shares with that of the release before what both
want alike. Then an update fetches no packages, takes seconds, and its disk is that of its own code.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from base.backup.command import run
from base.errors import ConflictError
from provision.source import OPEN

VENV_S, PACKAGES_S, COMPILE_S, SANDBOX_S = 180.0, 3_000.0, 300.0, 700.0
PARTS = ("base", "pai", "agents", "supervisor", "workers", "portal", "provision")
#: What was installed: the release's pyproject.toml as it was then.
INSTALLED = ".installed"
#: Where `agents/runtime_install.py` puts what the hands need, in trees named by what is in them.
HANDS = Path("share") / "ai-infra-sandbox"
NO_ANSWER = " (the package index does not answer: connection broken)"
#: pip's own words about the product, which each release says for itself.
OURS = ("ai_infrastructure-*", "__editable__*ai_infrastructure*")


async def make(release: Path, before: Path, environment: Mapping[str, str]) -> None:
    """With all packages, the compiled code and the sandbox of the agents' hands. before: the
    release that runs. environment: what pip and npm are told. Raises ConflictError.
    """
    venv, same = release / ".venv", alike(release, before)
    bare, more = (["--without-pip"], ["--no-deps"]) if same else ([], [])
    await _well([_python(), "-m", "venv", *bare, str(venv)], VENV_S, environment)
    if same:
        await asyncio.to_thread(share, before / ".venv", venv)
    elif (before / ".venv" / HANDS).is_dir():  # npm fetches it anew only where it is another
        await asyncio.to_thread(_hands, before / ".venv", venv)
    if same and await asyncio.to_thread(_builds, venv):
        more.append("--no-build-isolation")
    python = str(venv / "bin" / "python")
    line = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    line += ["--no-cache-dir", *more]
    await _well([*line, "--editable", str(release)], PACKAGES_S, environment)
    there = [name for name in PARTS if (release / name).is_dir()]
    await _well([python, "-m", "compileall", "-q", *there], COMPILE_S, environment, release)
    await _well([python, "-m", "agents", "--install-sandbox"], SANDBOX_S, environment, release)
    (venv / INSTALLED).write_bytes((release / "pyproject.toml").read_bytes())
    (venv / INSTALLED).chmod(0o644)


def alike(release: Path, before: Path) -> bool:
    """Whether it wants the very packages that the release before has, for the same Python."""
    number = f"python{sys.version_info.major}.{sys.version_info.minor}"
    try:
        same = _wanted(before / ".venv" / INSTALLED) == _wanted(release / "pyproject.toml")
    except (OSError, tomllib.TOMLDecodeError, KeyError):
        return False
    return same and (before / ".venv" / "lib" / number / "site-packages").is_dir()


def share(old: Path, new: Path) -> None:
    """What lies in the environment `old`, in the fresh one `new`: the same files, two names."""
    for place in old.iterdir():
        if place.is_dir() and not place.is_symlink() and place.name != "bin":
            _tree(place, new / place.name, *OURS)
    for program in (old / "bin").iterdir():
        at = new / "bin" / program.name
        if at.exists() or program.is_symlink() or program.is_dir():
            continue
        text = program.read_bytes()
        if text.startswith(b"#!"):  # it names the environment that it is of
            at.write_bytes(text.replace(bytes(old), bytes(new)))
            at.chmod(program.stat().st_mode)
        else:
            _link(str(program), str(at))


def _hands(old: Path, new: Path) -> None:
    for place in reversed(HANDS.parents[:-1]):
        (new / place).mkdir(exist_ok=True)
        shutil.copymode(old / place, new / place)
    _tree(old / HANDS, new / HANDS)


def _tree(old: Path, new: Path, *without: str) -> None:
    shutil.copytree(
        old,
        new,
        symlinks=True,
        ignore=shutil.ignore_patterns(*without),
        copy_function=_link,
        dirs_exist_ok=True,
    )


def _link(old: str, new: str) -> None:
    try:
        os.link(old, new)
    except OSError:  # another file system
        shutil.copy2(old, new)


def _builds(venv: Path) -> bool:
    """Whether what builds the release is in it; pip fetches it else, though nothing is wanted."""
    found = (venv / "lib").glob("python3*/site-packages/setuptools-*.dist-info")
    numbers = [path.name.removeprefix("setuptools-").partition(".")[0] for path in found]
    return any(int(number) > 70 for number in numbers)  # the first that needs no package `wheel`


def _wanted(pyproject: Path) -> Any:
    told = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    project, tools = told["project"], told.get("build-system")
    return project["dependencies"], project.get("requires-python"), tools


def _python() -> str:
    """The system's Python: that of a release's environment goes with the release."""
    for path in ("/usr/bin/python3", sys.executable):
        if os.access(path, os.X_OK):
            return path
    return "python3"


async def _well(
    line: list[str], deadline_s: float, environment: Mapping[str, str], cwd: Path = Path("/")
) -> None:
    done = await run([*OPEN, *line], deadline_s=deadline_s, environment=environment, cwd=cwd)
    if done.code:
        lines = map(str.strip, done.err.splitlines())  # pip sets in what a pip of its own says
        said = [one for one in lines if one.startswith("ERROR: ")]
        told = (said[0] if said else done.words).removeprefix("ERROR: ")
        cut = (
            NO_ANSWER if "connection broken" in done.err else ""
        )  # else it reads as if none had it
        raise ConflictError(f"{' '.join(line[2:4])}: {told}{cut}")
