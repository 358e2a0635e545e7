"""The house rules, executed: the tree keeps them, and each planted violation is caught."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import house
import pytest

pytestmark = pytest.mark.xdist_group("house")  # the tree is read once

ROOT = Path(__file__).parent.parent

#: rule → a text that breaks it; each must be caught, or the rule checks nothing.
PLANTED = {
    "length": "x = 1\n" * 401,
    "unfinished": '"""Doc."""\n# TO' + "DO: later\n",
    "names": '"""Doc."""\nclass TaskManager: ...\n',
    "units": '"""Doc."""\ndef ask(timeout: float) -> None: ...\n',
    "excepts": '"""Doc."""\ntry:\n    pass\nexcept Exception:\n    pass\n',
    "causes": '"""Doc."""\ntry:\n    pass\nexcept OSError:\n    raise ValueError("x")\n',
    "tasks": '"""Doc."""\nasyncio.create_task(x())\n',
    "waits": '"""Doc."""\nasync def f() -> None:\n    await asyncio.wait_for(x(), 1)\n',
    "inheritance": '"""Doc."""\nclass A: ...\nclass B(A): ...\n',
    "frozen": '"""Doc."""\n@dataclass\nclass A:\n    x: int\n',
    "keys": '"""Doc."""\nKEY = "tasks:new"\n',
    "docstrings": "x = 1\n",
}


@cache
def faults() -> dict[str, list[str]]:
    """By rule; each file is read and parsed once for all of them."""
    found: dict[str, list[str]] = {rule.__name__: [] for rule in house.RULES}
    for path in house.python_files(ROOT):
        text = path.read_text()
        for rule in house.RULES:
            found[rule.__name__] += rule(path.relative_to(ROOT), text)
    return found


@pytest.mark.parametrize("rule", house.RULES, ids=lambda rule: rule.__name__)
def test_tree_keeps_the_rule(rule: house.Rule) -> None:
    found = faults()[rule.__name__]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("rule", house.RULES, ids=lambda rule: rule.__name__)
def test_planted_violation_is_caught(rule: house.Rule) -> None:
    assert rule(Path("base/planted.py"), PLANTED[rule.__name__])


def test_every_top_level_name_is_ours_alone() -> None:
    assert not house.owners(ROOT)


def test_a_foreign_owner_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"agents": ["ai-infrastructure", "somebody-else"]}
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: both)
    assert house.owners(ROOT)


@pytest.mark.parametrize(
    ("path", "line", "contract"),
    [
        ("agents/planted.py", "import supervisor.tasks", "floors"),
        ("base/planted.py", "import pai.phases", "floors"),
        ("agents/planted.py", "import redis", "redis has one owner"),
        ("portal/planted.py", "import asyncpg", "asyncpg has one owner"),
        ("pai/planted.py", "import anthropic", "anthropic has one owner"),
        ("supervisor/planted.py", "import libtmux", "libtmux and tmuxp"),
        ("workers/planted.py", "import fastapi", "fastapi and nicegui"),
        ("pai/planted.py", "import torch", "torch belongs to workers"),
    ],
)
def test_planted_import_breaks_the_floors(
    tmp_path: Path, path: str, line: str, contract: str
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in house.PACKAGES:
        if (ROOT / name).is_dir():
            subprocess.run(["cp", "-r", ROOT / name, tree / name], check=True)
    (tree / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tree / path).write_text(f'"""Planted."""\n\n{line}\n')
    linter = ROOT / ".venv" / "bin" / "lint-imports"
    run = subprocess.run(
        [linter, "--no-cache"],
        cwd=tree,
        env={"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert re.search(rf"{contract}.*BROKEN", run.stdout), run.stdout


def test_ci_is_three_lines_and_calls_run_sh() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert len(lines) == 3
    assert lines[-1].endswith("./tests/run.sh")


def test_install_script_is_whole_inside_main() -> None:
    text = re.sub(r"(?ms)<<'EOF'$.*?^EOF$", "", (ROOT / "install.sh").read_text())
    body = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    outside = [line for line in body if not line.startswith((" ", "\t"))]
    allowed = re.compile(r"^(\w+\(\) \{.*|[{}]|set -euo pipefail|[A-Z_]+=.*)$")
    assert not [line for line in outside if not allowed.match(line)]
    assert body[-4:] == ["{", '    main "$@"', "    exit", "}"]
