"""The negative control: without the sandbox, every case of a group that can breach does.

A case that breaches nothing out here could not fail in `test_escapes.py` either.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import escape_world
import pytest
from escape_cases import CASES, Case

pytest_plugins = ["boxed"]


#: Some cases end every process of their user: those of the hands belong to other tests.
ALONE_UID = 61_000 + os.getpid() % 3_000


@pytest.fixture(scope="module")
def world(hands_user: str | None) -> Iterator[escape_world.World]:
    yield from _made(hands_user)


@pytest.fixture(scope="module")
def alone() -> Iterator[escape_world.World]:
    if os.geteuid() != 0:
        pytest.skip("would end the processes of the person who runs the tests")
    yield from _made(ALONE_UID)


def _made(user: str | int | None) -> Iterator[escape_world.World]:
    made = escape_world.make(user)
    with made:
        yield made
    escape_world.remove(made)


@pytest.mark.parametrize(
    "case", [one for one in CASES if one.control], ids=lambda case: str(case.name)
)
def test_without_the_sandbox_it_breaches(request: pytest.FixtureRequest, case: Case) -> None:
    name = "alone" if case.group == "processes" else "world"
    world: escape_world.World = request.getfixturevalue(name)
    world.mend()
    text = world.unboxed(case.script)
    ends_s = time.monotonic() + 2
    while not (found := world.breaches(text)) and time.monotonic() < ends_s:
        time.sleep(0.05)
    assert found, text[-500:]


def test_nothing_is_no_breach(world: escape_world.World) -> None:
    world.mend()
    assert world.breaches(world.unboxed("echo hello")) == []
