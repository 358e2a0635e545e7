"""The sandbox of hooks: hands of their own, so that nothing that a task's tools left running is
near them. `python -m agents --hook` runs those of who has no hands: JSON in, JSON out.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agents import trial
from agents.hands import Hands
from base.deadline import Deadline
from base.errors import AIError, SandboxError
from base.levels import RESTRICTED, Level, Levels
from base.settings import Settings, load
from pai import hook_run
from pai.hook_answer import Ran
from pai.hook_run import Job

#: Beside the hooks' own limits.
SPARE_S = 5.0
_RAN = TypeAdapter(list[Ran])


class HookHands:
    """Opened by the first hook, again when they broke; `close` ends them. `reached`: the foreign
    hosts that the last hooks spoke to.
    """

    def __init__(self, settings: Settings, workspace: Path, level: Level) -> None:
        self.reached = ""
        self._settings = settings
        self._workspace = workspace
        self._level = _shown(level, hook_run.folder(settings))
        self._hands: Hands | None = None

    async def run(self, jobs: Sequence[Job]) -> Sequence[Ran]:
        """Raises SandboxError when there can be no sandbox, or it broke."""
        self.reached = ""
        if self._hands is None or self._hands.broken:
            await self.close()
            await trial.proved(self._settings)
            self._hands = await Hands.open(
                workspace=self._workspace, user=self._settings.hands_user, level=self._level
            )
        wall_s = self._level.limits.wall_s
        given = [{**asdict(one), "limit_s": min(one.limit_s, wall_s)} for one in jobs]
        longest_s = max(one.limit_s for one in jobs)
        deadline = Deadline.after(min(longest_s, wall_s) + SPARE_S)
        reply = await self._hands.hooks(given, deadline=deadline)
        self.reached = reply["untrusted"]
        try:
            return _RAN.validate_python(reply["ran"])
        except ValidationError as error:
            raise SandboxError("it answered with something that is no answer") from error

    async def close(self) -> None:
        """Safe to call at any time, and twice."""
        hands, self._hands = self._hands, None
        if hands is not None:
            await hands.close()


def main() -> int:
    """One request on stdin, its answer on stdout. Not 0: it was refused, and stderr says why."""
    try:
        asked = json.loads(sys.stdin.buffer.read())
        jobs = [Job(**one) for one in asked["jobs"]]
        ran = asyncio.run(_once(Path(asked["workspace"]), jobs))
    except (ValueError, TypeError, KeyError) as error:
        print(f"no request: {error}", file=sys.stderr)
        return 2
    except AIError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"ran": [asdict(one) for one in ran]}))
    return 0


async def _once(workspace: Path, jobs: Sequence[Job]) -> Sequence[Ran]:
    settings = load()
    hands = HookHands(settings, workspace, Levels.load(settings).get(RESTRICTED))
    try:
        return await hands.run(jobs)
    finally:
        await hands.close()


def _shown(level: Level, scripts: Path) -> Level:
    """The level that shows the owner's scripts as well, where there are any."""
    if not scripts.is_dir():
        return level
    return level.model_copy(update={"read": (*level.read, str(scripts))})
