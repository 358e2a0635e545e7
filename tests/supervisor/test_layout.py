"""Which programs an installation has follows from its settings."""

from __future__ import annotations

from pathlib import Path

from base.settings import Settings
from supervisor import layout


def _names(home: Path, **given: object) -> list[str]:
    return [one.name for one in layout.services(Settings(home=home, **given))]  # type: ignore[arg-type]


def test_workers_of_another_machine_are_not_started_here(tmp_path: Path) -> None:
    everything = _names(tmp_path)
    assert layout.WORKERS in everything
    assert layout.MEMORY in everything
    assert _names(tmp_path, local_workers=False) == [
        name for name in everything if name != layout.WORKERS
    ]


def test_stores_of_the_owner_are_not_started_here(tmp_path: Path) -> None:
    found = _names(tmp_path, redis_url="redis://cache:6379/0", postgres_dsn="postgresql://db/ai")
    assert not {layout.REDIS, layout.POSTGRES} & set(found)


def test_a_whisper_is_served_where_its_folder_is_named(tmp_path: Path) -> None:
    assert layout.LISTEN not in _names(tmp_path)
    given = {"whisper_model": tmp_path / "whisper-small"}
    assert layout.LISTEN in _names(tmp_path, **given)
    assert layout.LISTEN not in _names(tmp_path, **given, local_workers=False)
    logs = {
        whisper: " ".join(layout.agents(Settings(home=tmp_path, whisper_model=whisper))[-1].command)
        for whisper in (None, tmp_path)
    }
    assert "listen.log" not in logs[None]
    assert "listen.log" in logs[tmp_path]
