"""`ai-infra telos`: what prompts say of the goals, and what the files said before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from base.settings import load
from pai.telos import NAMES
from portal import cli_telos
from portal.cli import app

run = CliRunner()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AI_INFRA_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home" / "TELOS"


def telos(*words: str, code: int = 0) -> str:
    result = run.invoke(app, ["telos", *words])
    assert result.exit_code == code, result.output
    return result.output


def test_a_change_is_shown_and_told_apart_from_what_was(place: Path) -> None:
    assert telos("path").split() == [str(place / f"{name}.md") for name in NAMES]
    assert "nothing yet" in telos("show")
    path = place / "values.md"
    path.write_text(path.read_text() + "Honest first.\n")
    assert telos("show").endswith("## Values\nHonest first.\n")
    shown = json.loads(telos("show", "--json"))
    assert (shown["faults"], len(shown["version"])) == ([], 16)
    rows = json.loads(telos("history", "values", "--json"))
    assert [row["name"] for row in rows] == ["values", "values"]
    assert "+Honest first." in telos("diff")
    assert telos("diff", "mission") == "nothing changed\n"
    path.write_text("Other.\n")
    since = telos("diff", "values", "--since", rows[0]["version"])
    assert "-# Values" in since
    assert "+Other." in since
    assert "Honest first" not in since


def test_what_cannot_be_meant_is_one_line(place: Path) -> None:
    assert "no file 'wishes'; there are: mission" in telos("history", "wishes", code=2)
    assert "no version 'zz' of values" in telos("diff", "values", "--since", "zz", code=2)
    assert "say which file" in telos("diff", "--since", "zz", code=2)


def test_doctor_names_what_is_wrong_with_goals_and_hooks(place: Path) -> None:
    telos("path")
    assert cli_telos.rows(load()) == []
    (place / "vision.md").write_text("x" * 30_000)
    hook = {"type": "command", "command": "true", "trusted": True}
    groups = [{"hooks": [hook, {"type": "http"}]}]
    file = place.parent / "config" / "settings.json"
    file.write_text(json.dumps({"hooks": {"Stop": groups}}))
    file.chmod(0o600)
    found = [(row["name"], row["ok"], row["detail"][:38]) for row in cli_telos.rows(load())]
    assert found == [
        ("hooks", True, "1 known, 1 of them trusted and so outside the"[:38]),
        ("hooks", False, 'hooks.Stop[0].hooks[1].type: only "command" r'[:38]),
        ("TELOS", False, "vision.md is cut: of 30,000 characters 7,561"[:38]),
    ]
