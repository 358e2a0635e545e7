"""What must be here or come about: a tool on PATH, a condition.

In a module of its own name: `conftest` means another file in each folder of tests.
"""

from __future__ import annotations

import os
import shutil
import time

import pytest


def need(tool: str) -> str:
    """The path of `tool`; absent: skip at home, fail in CI."""
    path = shutil.which(tool)
    if path is None:
        message = f"{tool} is not installed; tests/run.sh installs it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


def wait_for(what: str, true: object, seconds_s: float = 10.0) -> None:
    """Poll until `true()` holds; fails the test by name when it never does."""
    end = time.monotonic() + seconds_s
    while time.monotonic() < end:
        if true():  # type: ignore[operator]
            return
        time.sleep(0.02)
    pytest.fail(f"{what} did not happen within {seconds_s} s")
