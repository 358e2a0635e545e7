"""The negative control: without the sandbox, every case of a group that can breach does.

A case that breaches nothing out here could not fail in `test_escapes.py` either.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import escape_world
import pytest
from escape_cases import CASES, Case

pytest_plugins = ["boxed"]


@pytest.fixture(scope="module")
def world(hands_user: str | None) -> Iterator[escape_world.World]:
    made = escape_world.make(hands_user)
    with made:
        yield made
    escape_world.remove(made)


@pytest.mark.parametrize(
    "case", [one for one in CASES if one.control], ids=lambda case: str(case.name)
)
def test_without_the_sandbox_it_breaches(world: escape_world.World, case: Case) -> None:
    world.mend()
    text = world.unboxed(case.script)
    ends_s = time.monotonic() + 2
    while not (found := world.breaches(text)) and time.monotonic() < ends_s:
        time.sleep(0.05)
    assert found, text[-500:]


def test_nothing_is_no_breach(world: escape_world.World) -> None:
    world.mend()
    assert world.breaches(world.unboxed("echo hello")) == []
