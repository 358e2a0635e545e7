"""Every way out, tried at every level, judged from outside the sandbox. None is ever skipped.

`test_escapes_control.py` shows that the same cases breach when the sandbox is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import escape_world
import pytest
import pytest_asyncio
from escape_cases import CASES, Case

from agents.hands import Hands
from base.deadline import Deadline
from base.errors import SandboxError
from base.levels import Levels

pytest_plugins = ["boxed"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

RANKS = (0, 1, 2)
#: How long what a case started may take to arrive.
SETTLE_S = 0.1


@dataclass(slots=True, kw_only=True)  # mutable: the hands are opened anew
class Prisoner:
    """Hands at one level, new for each group of cases and after one that broke them."""

    world: escape_world.World
    rank: int
    user: str | None
    group: str = ""
    hands: Hands | None = None

    async def run(self, case: Case) -> str:
        """What the model would read. A sandbox that the case broke is an answer, too."""
        if self.hands is None or self.group != case.group or self.hands.broken:
            await self.close()
            level = Levels.load().get(self.rank)
            self.group = case.group
            self.hands = await Hands.open(
                workspace=self.world.workspace, user=self.user, level=level
            )
        given = {"command": self.world.fill(case.script), "limit_s": 15}
        try:
            result = await self.hands.call("shell", given, deadline=Deadline.after(20))
        except SandboxError as error:
            return f"sandbox: {error}"
        assert "exit code" in result.text or "killed" in result.text, result.text
        return result.text

    async def close(self) -> None:
        if self.hands is not None:
            await self.hands.close()
            self.hands = None


@pytest.fixture(scope="module")
def world(hands_user: str | None) -> Iterator[escape_world.World]:
    made = escape_world.make(hands_user)
    with made, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI_INFRA_HOME", str(made.ground / "home"))
        yield made
    escape_world.remove(made)


@pytest_asyncio.fixture(
    loop_scope="module", scope="module", params=RANKS, ids=lambda rank: f"level{rank}"
)
async def prisoner(
    request: pytest.FixtureRequest, world: escape_world.World, hands_user: str | None
) -> AsyncIterator[Prisoner]:
    one = Prisoner(world=world, rank=request.param, user=hands_user)
    yield one
    await one.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
async def test_no_way_out(prisoner: Prisoner, case: Case) -> None:
    world = prisoner.world
    world.mend()
    text = await prisoner.run(case)
    await asyncio.sleep(SETTLE_S)
    assert world.breaches(text) == [], text[-800:]
