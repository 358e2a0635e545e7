"""Logs: one line an event, in the process's own file."""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from base import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Give the root logger back as it was."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def _lines(folder: Path, process: str = "code") -> list[str]:
    return (folder / f"{process}.log").read_text(encoding="utf-8").splitlines()


def test_an_event_is_one_logfmt_line(tmp_path: Path) -> None:
    log.start("code", tmp_path)
    log.get("code").bind(task_id="t1").info("finished", duration_ms=12, note='a "b"\nc')
    (line,) = _lines(tmp_path)
    assert line.startswith("timestamp=20")
    assert "level=info event=finished" in line
    assert "task_id=t1" in line
    assert "duration_ms=12" in line
    assert "\\n" in line


def test_an_exception_is_one_line(tmp_path: Path) -> None:
    log.start("code", tmp_path)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log.get("code").exception("died")
    (line,) = _lines(tmp_path)
    assert "Traceback" in line
    assert "ValueError" in line


def test_text_that_is_no_unicode_is_still_logged(tmp_path: Path) -> None:
    log.start("code", tmp_path)
    log.get("code").info("read", path="a\ud800b")
    log.get("code").info("went on")
    assert len(_lines(tmp_path)) == 2


def test_the_librarys_own_loggers_write_there_too(tmp_path: Path) -> None:
    log.start("code", tmp_path)
    logging.getLogger("uvicorn").warning("said %s", "so", extra={"stream": "results"})
    logging.getLogger("httpx").info("GET http://provider")
    (line,) = _lines(tmp_path)
    assert 'event="said so"' in line
    assert "stream=results" in line


@pytest.mark.parametrize(
    ("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)]
)
def test_the_level_is_a_floor(tmp_path: Path, level: str, count: int) -> None:
    log.start("code", tmp_path, level)
    logger = log.get("code")
    logger.debug("a")
    logger.info("b")
    logger.warning("c")
    logger.error("d")
    assert len(_lines(tmp_path)) == count


def test_the_last_start_wins_and_appends(tmp_path: Path) -> None:
    log.start("one", tmp_path)
    logger = log.get("x")
    logger.info("a")
    log.start("two", tmp_path)
    logger.info("b")
    log.start("one", tmp_path)
    logger.info("c")
    assert [len(_lines(tmp_path, name)) for name in ("one", "two")] == [2, 1]


def test_the_file_is_not_for_everybody(tmp_path: Path) -> None:
    log.start("code", tmp_path / "new" / "logs")
    path = tmp_path / "new" / "logs" / "code.log"
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


def test_without_a_folder_the_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log.start("code", None)
    log.get("code").info("started")
    assert "event=started" in capsys.readouterr().err
