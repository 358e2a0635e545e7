"""The sandbox runtime that two installations share stays until the last one is removed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from agents import runtime_install
from agents.sandbox import Account


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "opt" / "sandbox"
    (folder / "users").mkdir(parents=True)
    monkeypatch.setattr(runtime_install, "SHARED", folder)
    return folder


def claim(shared: Path, venv: Path) -> None:
    (shared / "users" / venv.name).write_text(str(venv), encoding="utf-8")


def test_it_stays_while_another_installation_uses_it(shared: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    claim(shared, other)
    runtime_install.remove()
    assert shared.is_dir()
    other.rmdir()
    runtime_install.remove()
    assert not shared.parent.exists()


def test_nothing_to_remove_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_install, "SHARED", tmp_path / "none" / "sandbox")
    runtime_install.remove()


def test_a_new_environment_has_its_own_beside_it(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    who = Account(uid=os.getuid(), gid=os.getgid(), name="me", switch=False)
    assert next(runtime_install._places(who)) == tmp_path / "share" / "ai-infra-sandbox"
    tmp_path.joinpath("share").mkdir(mode=0)
    others = Account(uid=60_001, gid=60_001, name="hands", switch=True)
    assert next(runtime_install._places(others)) == shared
