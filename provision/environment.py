"""A release's Python environment: its own, begun with the packages of the release before.

What both want lies on the disk once, under two names; pip fetches what differs, and what is wanted
no more goes. pip takes a file away before it writes one of that name, so that nothing of the
release before changes. Where no consistent environment comes of it, all packages come anew.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from base.backup.command import Done, run
from base.errors import ConflictError
from provision import packages
from provision.source import NAME, OPEN
from provision.verb import Tell

VENV_S, PACKAGES_S, COMPILE_S, SANDBOX_S = 180.0, 3_000.0, 300.0, 700.0
PARTS = ("base", "pai", "agents", "supervisor", "workers", "portal", "provision")
#: What was installed: the release's pyproject.toml as it was then.
INSTALLED = ".installed"
#: Where `agents/runtime_install.py` puts what the hands need, in trees named by what is in them.
HANDS = Path("share") / "ai-infra-sandbox"
NO_ANSWER = " (the package index does not answer: connection broken)"
#: In pip's words, what it would say of all packages anew, too.
FOR_GOOD = (
    "Could not find a version", "No matching distribution", "conflicting dependencies",
    "requires a different Python", "No space left", NO_ANSWER,
)  # fmt: skip
#: pip's own words about the product, which each release says for itself.
OURS = ("ai_infrastructure-*", "__editable__*ai_infrastructure*")
#: pip's own cache would be of root's home, or go with what is made.
INSTALL = ("install", "--quiet", "--no-cache-dir")


async def make(release: Path, before: Path, environment: Mapping[str, str], tell: Tell) -> None:
    """With all packages, the compiled code and the sandbox of the agents' hands. before: the
    release that runs. environment: what pip and npm are told. Raises ConflictError.
    """
    venv = release / ".venv"
    if not (_known(before) and await _begun(release, before, environment, tell)):
        await _well([_python(), "-m", "venv", str(venv)], VENV_S, environment)
        if (before / ".venv" / HANDS).is_dir():  # npm fetches it anew only where it is another
            await asyncio.to_thread(_hands, before / ".venv", venv)
        await _pip(venv, environment, *INSTALL, "--editable", str(release))
    python = str(venv / "bin" / "python")
    there = [name for name in PARTS if (release / name).is_dir()]
    await _well([python, "-m", "compileall", "-q", *there], COMPILE_S, environment, release)
    await _well([python, "-m", "agents", "--install-sandbox"], SANDBOX_S, environment, release)
    (venv / INSTALLED).write_bytes((release / "pyproject.toml").read_bytes())
    (venv / INSTALLED).chmod(0o644)


def alike(release: Path, before: Path) -> bool:
    """Whether it wants the very packages that the release before has, for the same Python."""
    if not _known(before):
        return False
    known = packages.project(before / ".venv" / INSTALLED)
    return known == packages.project(release / "pyproject.toml")


def size_bytes(release: Path) -> int:
    """What its environment takes of the disk, were it alone there."""
    found: dict[int, int] = {}
    for folder, _, names in os.walk(release / ".venv"):
        for name in names:
            one = os.lstat(os.path.join(folder, name))
            found[one.st_ino] = one.st_blocks * 512
    return sum(found.values())


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


# Inside ----------------------------------------------------------------------------------------


async def _begun(release: Path, before: Path, environment: Mapping[str, str], tell: Tell) -> bool:
    """Its packages, from those of the release before; False: that did not do, and is away again.

    Raises ConflictError where all of them anew would not do, either.
    """
    venv, same = release / ".venv", alike(release, before)
    try:
        await _well([_python(), "-m", "venv", "--without-pip", str(venv)], VENV_S, environment)
        await asyncio.to_thread(share, before / ".venv", venv)
        if not same:
            await _changed(release, before, environment, tell)
        await _ourselves(release, environment)
        if not same:
            await _pip(venv, environment, "check")
            await tell(packages.told(_versions(before / ".venv"), _versions(venv)))
    except (ConflictError, OSError) as error:
        if any(words in str(error) for words in FOR_GOOD):
            raise
        await tell(f"those of {before.name} do not do ({error}): all packages anew")
        await asyncio.to_thread(shutil.rmtree, venv, ignore_errors=True)
        return False
    return True


async def _changed(release: Path, before: Path, environment: Mapping[str, str], tell: Tell) -> None:
    """In the environment as that of the release before, to what this one wants."""
    venv, project = release / ".venv", packages.project(release / "pyproject.toml")
    wanted = project.dependencies
    other = packages.differ(packages.project(before / ".venv" / INSTALLED).dependencies, wanted)
    await tell(f"its packages are those of {before.name}, but: {', '.join(other) or 'no other'}")
    if wanted:
        await _pip(venv, environment, *INSTALL, "--", *wanted)
    there = packages.there(_site(venv))
    kept = {*packages.needed(wanted, there), *packages.tools(project)}
    if gone := sorted(set(there) - kept):
        await _pip(venv, environment, "uninstall", "--quiet", "--yes", *gone)


async def _ourselves(release: Path, environment: Mapping[str, str]) -> None:
    """The product itself, where all packages are there. No index is asked for what builds it,
    where that is there, too.
    """
    project = packages.project(release / "pyproject.toml")
    how = ["--no-build-isolation"] if packages.builds(project, _site(release / ".venv")) else []
    line = [*INSTALL, *how, "--no-deps", "--editable", str(release)]
    await _pip(release / ".venv", environment, *line)


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


def _known(before: Path) -> bool:
    """Whether it is known which packages the release before has, for this very Python."""
    try:
        packages.project(before / ".venv" / INSTALLED)
    except (OSError, tomllib.TOMLDecodeError):
        return False
    return _site(before / ".venv").is_dir()


def _site(venv: Path) -> Path:
    number = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return venv / "lib" / number / "site-packages"


def _versions(venv: Path) -> dict[str, str]:
    found = packages.there(_site(venv))
    return {name: one.version for name, one in found.items() if name != NAME}


def _python() -> str:
    """The system's Python: that of a release's environment goes with the release."""
    for path in ("/usr/bin/python3", sys.executable):
        if os.access(path, os.X_OK):
            return path
    return "python3"


async def _pip(venv: Path, environment: Mapping[str, str], *words: str) -> None:
    line = [str(venv / "bin" / "python"), "-m", "pip", *words]
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    await _well(line, PACKAGES_S, {**environment, **quiet})


async def _well(
    line: list[str], deadline_s: float, environment: Mapping[str, str], cwd: Path = Path("/")
) -> None:
    done = await run([*OPEN, *line], deadline_s=deadline_s, environment=environment, cwd=cwd)
    if done.code:
        raise ConflictError(f"{' '.join(line[2:4])}: {_why(done)}")


def _why(done: Done) -> str:
    """What failed, of all that pip and the like say."""
    lines = map(str.strip, done.err.splitlines())  # pip sets in what a pip of its own says
    said = [one for one in lines if one.startswith("ERROR: ")]
    told = (said[0] if said else done.words).removeprefix("ERROR: ")
    # Without it that reads as if no index had the package.
    return told + (NO_ANSWER if "connection broken" in done.err else "")
