"""A release's Python: made anew, or shared with the release before where both want the same."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from acme_rig import umask

from base.errors import ConflictError
from provision import environment
from provision.environment import INSTALLED

PROJECT = """[build-system]
requires = ["setuptools>=65"]
build-backend = "setuptools.build_meta"
[project]
name = "ai-infrastructure"
version = "{version}"
requires-python = ">=3.11"
dependencies = [{wanted}]
[project.scripts]
ai-infra = "agents.say:main"
[tool.setuptools]
packages = ["agents"]
"""
SAY = """import importlib.metadata
def main():
    print(importlib.metadata.version("ai-infrastructure"))
"""
#: Stands for the sandbox's installation, which needs npm.
SANDBOX = "import pathlib, sys\npathlib.Path('told').write_text(' '.join(sys.argv[1:]))\n"


def release(folder: Path, version: str, wanted: str = "") -> Path:
    place = folder / version
    (place / "agents").mkdir(parents=True)
    place.chmod(0o755)
    (place / "pyproject.toml").write_text(PROJECT.format(version=version, wanted=wanted))
    for name, text in (("__init__", ""), ("say", SAY), ("__main__", SANDBOX)):
        (place / "agents" / f"{name}.py").write_text(text)
    return place


async def tell(text: str) -> None:
    """Nobody listens."""


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Path]:
    """A release that was installed, with a package and programs of it."""
    with umask(0o022):
        made = release(tmp_path, "0.1.0")
        subprocess.run(["/usr/bin/python3", "-m", "venv", made / ".venv"], check=True)
        (made / ".venv" / INSTALLED).write_bytes((made / "pyproject.toml").read_bytes())
        tool = made / ".venv" / "bin" / "tool"
        tool.write_text(f"#!{made}/.venv/bin/python\nimport sys\nprint(sys.prefix)\n")
        tool.chmod(0o755)
        (made / ".venv" / "share" / "runtime").mkdir(parents=True)
        (made / ".venv" / "share" / "runtime" / "node").write_text("a program")
    with umask(0o027):  # the broker's
        yield made


async def test_what_both_want_is_there_once(first: Path, tmp_path: Path) -> None:
    new = release(tmp_path, "0.2.0")
    await environment.make(new, first, {"HOME": str(tmp_path)}, tell)
    old, venv = first / ".venv", new / ".venv"
    for name in ("share/runtime/node", "lib"):
        at = next((old / name).rglob("pip/__init__.py"), old / name)
        assert os.path.samefile(at, venv / at.relative_to(old))
    # Each program is of its own release, and everybody can read it.
    said = subprocess.run([venv / "bin/tool"], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == str(venv)
    said = subprocess.run([venv / "bin/ai-infra"], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "0.2.0"
    assert list((new / "agents" / "__pycache__").glob("say.*.pyc"))
    assert (new / "told").read_text() == "--install-sandbox"
    closed = [path for path in venv.rglob("*") if not path.is_symlink()]
    closed = [path for path in closed if path.stat().st_mode & 0o004 == 0]
    assert closed == []


async def test_with_the_same_packages_no_index_is_asked(first: Path, tmp_path: Path) -> None:
    """Not even for what builds the release, which PyTorch brings along."""
    (site,) = (first / ".venv" / "lib").glob("python3*/site-packages")
    for old in site.glob("setuptools*"):
        shutil.rmtree(old)
    for part in importlib.metadata.files("setuptools") or []:
        if (path := Path(str(part.locate()))).suffix != ".pyc" and ".." not in part.parts:
            (site / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, site / part)
    new = release(tmp_path, "0.2.0")
    told = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1"}
    await environment.make(new, first, told, tell)
    said = subprocess.run([new / ".venv/bin/ai-infra"], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "0.2.0"


def test_other_packages_are_not_shared(first: Path, tmp_path: Path) -> None:
    assert environment.alike(release(tmp_path, "0.2.0"), first)
    assert not environment.alike(release(tmp_path, "0.3.0", '"pip"'), first)
    (first / ".venv" / INSTALLED).unlink()  # nobody knows what is in it
    assert not environment.alike(tmp_path / "0.2.0", first)


async def test_with_all_packages_anew_the_hands_runtime_is_still_shared(
    first: Path, tmp_path: Path
) -> None:
    """So that npm, which may reach nothing, is asked for another one only."""
    node = first / ".venv" / "share" / "ai-infra-sandbox" / "1.0-abc" / "node"
    node.parent.mkdir(parents=True)
    node.write_text("a program")
    node.chmod(0o755)
    for folder in (node.parent, *node.parent.parents[:2]):
        folder.chmod(0o755)
    (first / ".venv" / INSTALLED).unlink()  # nobody knows which packages are in it
    new = release(tmp_path, "0.2.0", '"pip"')
    await environment.make(new, first, {"HOME": str(tmp_path)}, tell)
    assert os.path.samefile(node, new / node.relative_to(first))
    assert not (new / ".venv" / "share" / "runtime").exists()
    closed = [path for path in (new / ".venv").rglob("*") if not path.is_symlink()]
    assert [path for path in closed if path.stat().st_mode & 0o004 == 0] == []


async def test_why_pip_could_not_is_said(first: Path, tmp_path: Path) -> None:
    """It fails within a pip of its own, which makes the tool that builds the release."""
    new = release(tmp_path, "0.2.0", '"pip"')
    told = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}
    said = r"^pip install: Could not find a version that satisfies the requirement setuptools"
    with pytest.raises(ConflictError, match=said) as error:
        await environment.make(new, first, told | {"PIP_NO_INDEX": "1"}, tell)
    assert "does not answer" not in str(error.value)
    nobody = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    with pytest.raises(ConflictError, match=r"setuptools.* \(the package index does not answer"):
        await environment.make(new, first, told | nobody, tell)
