"""The owner's goals: what of the files reaches a prompt, and what is kept of them."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest

from base.settings import Settings
from pai import telos, telos_history
from pai.telos import NAMES, TOKENS_MAX, Telos, compose, spoken


class Home:
    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        home.mkdir(exist_ok=True)
        self.place = telos.folder(self.settings)
        self.faults: list[str] = []
        telos.prepare(self.settings)
        self.telos = Telos(self.settings, self.faults.append)

    def write(self, name: str, text: str) -> Path:
        path = self.place / f"{name}.md"
        path.write_text(text)
        return path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_templates_are_laid_down_once_for_the_owner_alone(home: Home) -> None:
    assert stat.S_IMODE(home.place.stat().st_mode) == 0o700
    for name in NAMES:
        path = home.place / f"{name}.md"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_bytes() == (telos.SHIPPED / f"{name}.md").read_bytes()
    mine = home.write("values", "Mine.")
    (home.place / "vision.md").unlink()
    telos.prepare(home.settings)
    assert mine.read_text() == "Mine."
    assert (home.place / "vision.md").exists()


def test_untouched_templates_say_nothing(home: Home) -> None:
    assert home.telos.now().text == ""
    assert home.faults == []


def test_every_template_explains_itself_in_a_comment() -> None:
    for name in NAMES:
        text = (telos.SHIPPED / f"{name}.md").read_text()
        assert text.startswith(f"# {name.capitalize()}\n")
        assert spoken(text, name) == ""
        assert "Example" in text


def test_what_the_owner_writes_is_said_under_its_heading(home: Home) -> None:
    path = home.place / "mission.md"
    path.write_text(path.read_text() + "\nWe bake bread.\n")
    home.write("values", "# Values\n\n- Honest <!-- always --> first\n\n\n\n## Later\n")
    text = home.telos.now().text
    assert text.startswith("# The owner's goals (TELOS)\n")
    assert text.endswith("\n\n## Mission\nWe bake bread.\n\n## Values\n- Honest  first")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a <!-- b\nc --> d", "a  d"),
        ("a\n<!-- never closed\nb", "a"),
        ("# Mission\n\n## Empty\n\n## Full\nx", "#### Full\nx"),
        ("# Mission\n## A\n### B\n", ""),
        ("# Why\ntext", "### Why\ntext"),
        ("\ufeff# Mission\r\nline\r\n", "line"),
        ("a\n\n\n\nb", "a\n\nb"),
        ("a\0b", "ab"),
        ("<!-->still inside --> x", "x"),
    ],
)
def test_comments_titles_and_empty_headings_are_not_said(text: str, said: str) -> None:
    assert spoken(text, "mission") == said


def test_a_long_file_is_cut_and_short_ones_stay_whole(home: Home) -> None:
    home.write("mission", "Bread.")
    home.write("values", "é" * 20_000)
    goals = home.telos.now()
    assert "## Mission\nBread." in goals.text
    assert len(goals.text.encode()) <= TOKENS_MAX * 4 + 10
    assert goals.text.endswith(" […]")
    (fault,) = home.faults
    assert fault.startswith("TELOS: values.md is cut: of 20,000 characters ")
    assert fault.endswith("all five may take 2,000 tokens")
    for name in NAMES:
        home.write(name, f"{name} " * 5_000)
    whole = home.telos.now().text
    assert len(whole.encode()) <= TOKENS_MAX * 4 + 40
    assert whole.count(" […]") == len(NAMES)


def test_it_is_the_same_object_until_a_file_changes(home: Home) -> None:
    home.write("mission", "One.")
    first = home.telos.now()
    assert home.telos.now() is first
    home.write("mission", "Two.")
    second = home.telos.now()
    assert "Two." in second.text
    assert first.version != second.version
    home.write("mission", "One.")
    assert home.telos.now() == first


def test_files_that_are_not_the_owners_own_are_left_out(home: Home) -> None:
    home.write("mission", "Bread.")
    home.write("values", "Theirs.").chmod(0o666)
    (home.place / "vision.md").unlink()
    (home.place / "vision.md").mkdir()
    home.write("success", "x" * 300_000)
    assert home.telos.now().text.endswith("## Mission\nBread.")
    assert home.faults == [
        "TELOS: vision.md is left out: it is no file",
        "TELOS: values.md is left out: others can write it: chmod 600",
        "TELOS: success.md is left out: it has more than 256,000 bytes",
    ]


def test_without_a_folder_there_are_no_goals(tmp_path: Path) -> None:
    faults: list[str] = []
    assert Telos(Settings(home=tmp_path), faults.append).now().text == ""
    assert faults == []
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_no_text_are_told_as_such() -> None:
    assert compose({"mission": b"bread \xff\xfe"}).text.endswith("bread \ufffd\ufffd")


def test_every_text_that_was_seen_is_kept_with_its_date(home: Home) -> None:
    home.telos.now()
    home.write("mission", "One.")
    home.telos.now()
    home.telos.now()
    home.write("mission", "Two.")
    home.telos.now()
    home.write("mission", "One.")
    home.telos.now()
    seen = telos_history.versions(home.place, "mission")
    texts = [telos_history.text(home.place, one) for one in seen]
    assert texts[1:] == ["One.", "Two.", "One."]
    assert texts[0].startswith("# Mission")
    assert [one.size_bytes for one in seen[1:]] == [4, 4, 4]
    assert len(telos_history.versions(home.place)) == len(NAMES) + 3
    history = home.place / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(one.stat().st_mode) for one in history.iterdir()}
    assert modes == {0o600}


def _see(home: Path) -> None:
    Telos(Settings(home=home), lambda _: None).now()


def test_many_processes_write_a_change_down_once(home: Home) -> None:
    home.write("mission", "Seen by all.")
    context = multiprocessing.get_context("fork")
    seers = [context.Process(target=_see, args=(home.settings.home,)) for _ in range(6)]
    for one in seers:
        one.start()
    for one in seers:
        one.join(20)
    assert [one.name for one in telos_history.versions(home.place)] == list(NAMES)


def test_who_looked_before_another_wrote_looks_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.telos.now()
    real, looks = telos_history.versions, iter([True])

    def stale(place: Path, name: str | None = None) -> list[telos_history.Version]:
        return [] if next(looks, False) else real(place, name)

    monkeypatch.setattr(telos_history, "versions", stale)
    telos_history.keep(home.place, telos.read(home.place)[0])
    assert len(real(home.place)) == len(NAMES)


def test_a_torn_line_of_the_index_hides_nothing_else(home: Home) -> None:
    home.telos.now()
    index = home.place / "history" / "index.jsonl"
    index.write_text(index.read_text() + '{"at": "2026\n{"x": 1}\n[]\n')
    home.write("mission", "New.")
    home.telos.now()
    assert telos_history.versions(home.place)[-1].name == "mission"


def test_a_history_that_cannot_be_written_is_told_and_the_goals_hold(home: Home) -> None:
    home.write("mission", "Bread.")
    (home.place / "history").write_text("no folder")
    assert "Bread." in home.telos.now().text
    assert home.faults[0].startswith("TELOS: this version is not kept: ")
