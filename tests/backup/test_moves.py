"""Folders that are put in place together: ahead, and back from wherever it was cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from base.backup import moves
from base.backup.moves import Move


def tree(home: Path) -> dict[str, str]:
    """Every file of the home that is not of the restore itself, with its text."""
    found = (path for path in home.rglob("*") if path.is_file())
    return {
        str(path.relative_to(home)): path.read_text()
        for path in found
        if path.relative_to(home).parts[0] not in {"new", "aside"}
    }


def planned(home: Path) -> list[Move]:
    """One that replaces, one where nothing was, one that only goes aside."""
    for name, text in (("config/a", "old"), ("redis/b", "old"), ("stays/c", "old")):
        (home / name).parent.mkdir()
        (home / name).write_text(text)
    for name in ("config/a", "hooks/d"):
        (home / "new" / name).parent.mkdir(parents=True)
        (home / "new" / name).write_text("new")
    aside = home / "aside"
    return [
        moves.plan(home / "config", home / "new" / "config", aside / "config"),
        moves.plan(home / "hooks", home / "new" / "hooks", aside / "hooks"),
        moves.plan(home / "redis", None, aside / "redis"),
    ]


def test_ahead(tmp_path: Path) -> None:
    moves.ahead(planned(tmp_path))
    assert tree(tmp_path) == {"config/a": "new", "hooks/d": "new", "stays/c": "old"}
    assert (tmp_path / "aside" / "redis" / "b").read_text() == "old"


@pytest.mark.parametrize("renames", range(5))
def test_back_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    plan = planned(tmp_path)
    before = tree(tmp_path)
    done = 0
    rename = Path.rename

    def counted(self: Path, target: Path) -> Path:
        nonlocal done
        if done == renames:
            raise OSError("cut off")
        done += 1
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", counted)
        if renames < 4:
            with pytest.raises(OSError, match="cut off"):
                moves.ahead(plan)
        else:
            moves.ahead(plan)
            (tmp_path / "redis").mkdir()  # made anew by the program that started
            (tmp_path / "redis" / "x").write_text("younger")
    moves.back([Move.model_validate_json(one.model_dump_json()) for one in plan])
    assert tree(tmp_path) == before
    moves.back(plan)
    assert tree(tmp_path) == before
