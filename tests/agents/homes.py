"""Homes that need not be tried and looked through again by every test."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from agents import indexes, trial
from base.settings import Settings, load


def proven() -> Settings:
    """This home's settings, with the sandbox tried: `test_trial.py` tries it for real."""
    settings = load()
    spare(settings)
    trial.keep(settings)
    return settings


def spare(settings: Settings) -> None:
    """Spare a new home the look for package indexes, which takes seconds: one does for all."""
    settings.run.mkdir(parents=True, exist_ok=True)
    (settings.run / "indexes.json").write_bytes(_indexes())


@cache
def _indexes() -> bytes:
    with tempfile.TemporaryDirectory(prefix="ai-x-", dir="/tmp") as folder:
        kept = Path(folder) / "indexes.json"
        indexes._of(kept)
        return kept.read_bytes()
