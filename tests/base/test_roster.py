"""The roster: shipped agents, the owner's own, and what a bad file does."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.tools import TOOLS
from base import roster
from base.errors import UnknownAgentError
from base.settings import Settings

GOOD = 'title = "Poet"\ncapabilities = ["Poem", "verse", "poem"]\nprompt = "Write verse."\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "config" / "agents"
    path.mkdir(parents=True)
    return path


def load(folder: Path) -> roster.Roster:
    return roster.load(Settings(home=folder.parent.parent))


def test_the_shipped_five_are_there_in_window_order_with_real_tools() -> None:
    found = roster.load()
    assert list(found.agents) == ["code", "data", "infra", "research", "qa"]
    assert found.faults == ()
    assert {name: spec.level for name, spec in found.agents.items() if name != "infra"} == {
        "code": 1, "data": 1, "research": 1, "qa": 1,
    }  # fmt: skip
    assert found.agents["infra"].level == 2
    for spec in found.agents.values():
        assert set(spec.tools) <= TOOLS.keys()
        assert 150 <= len(spec.prompt.split()) <= 350
    assert found.supervisor.name == "supervisor"


def test_a_dropped_file_is_an_agent(folder: Path) -> None:
    (folder / "poet.toml").write_text(GOOD)
    spec = load(folder).get("poet")
    assert (spec.title, spec.capabilities, spec.level, spec.model) == (
        "Poet", ("poem", "verse"), 0, None,
    )  # fmt: skip
    assert list(load(folder).agents)[-1] == "poet"


def test_a_file_of_a_shipped_name_changes_only_its_keys(folder: Path) -> None:
    (folder / "code.toml").write_text('model = "claude-opus-5-5"\n')
    spec = load(folder).get("code")
    assert spec.model == "claude-opus-5-5"
    assert spec.prompt == roster.load().get("code").prompt


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("poet", GOOD + "level = 9\n", "poet.toml: level: "),
        ("poet", 'title = "x"\ncapabilities = ["x"]\n', "poet.toml: prompt: Field required"),
        ("poet", GOOD + "shoe_size = 9\n", "poet.toml: shoe_size: Extra inputs"),
        ("poet", GOOD + "daily_usd = 0\n", "poet.toml: daily_usd: "),
        ("poet", "title = \n", "poet.toml: Invalid value"),
        ("poet", GOOD + 'name = "bard"\n', "poet.toml: name: must be the file's own name"),
        ("Poet", GOOD, "Poet.toml: name: 'Poet' must match"),
        ("p" * 32, GOOD, ".toml: name: "),
        ("monitor", GOOD, "monitor.toml: name: 'monitor' is reserved"),
        ("watch", GOOD, "watch.toml: name: 'watch' is reserved"),
    ],
)
def test_a_bad_file_is_one_fault_and_the_others_load(
    folder: Path, name: str, text: str, fault: str
) -> None:
    (folder / f"{name}.toml").write_text(text)
    (folder / "good.toml").write_text(GOOD)
    found = load(folder)
    (told,) = found.faults
    assert fault in told
    assert "good" in found.agents
    assert len(found.agents) == 6


def test_a_bad_file_of_a_shipped_name_leaves_the_shipped_one(folder: Path) -> None:
    (folder / "code.toml").write_text("level = 9\n")
    found = load(folder)
    assert found.get("code").level == 1
    assert len(found.faults) == 1


def test_a_file_that_is_no_text_is_a_fault(folder: Path) -> None:
    (folder / "poet.toml").write_bytes(b"\xff\xfe")
    (folder / "bard.toml").mkdir()
    assert len(load(folder).faults) == 2


def test_an_unknown_agent_is_named_with_those_there_are() -> None:
    with pytest.raises(UnknownAgentError, match="'x'; there are: code, data"):
        roster.load().get("x")
