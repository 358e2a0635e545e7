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
    python = str(venv / "bin" / "python")
    line = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *more]
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
            shutil.copytree(
                place,
                new / place.name,
                symlinks=True,
                ignore=shutil.ignore_patterns(*OURS),
                copy_function=_link,
                dirs_exist_ok=True,
            )
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


def _link(old: str, new: str) -> None:
    try:
        os.link(old, new)
    except OSError:  # another file system
        shutil.copy2(old, new)


def _wanted(pyproject: Path) -> Any:
    told = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    return told["project"]["dependencies"], told["project"].get("requires-python")


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
        said = [one for one in done.err.splitlines() if one.startswith("ERROR: ")]
        raise ConflictError(f"{' '.join(line[1:4])}: {said[0] if said else done.words}")
