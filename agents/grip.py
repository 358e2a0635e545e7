"""The task's hands: opened when first needed and again when they broke, at the task's level."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agents import trial
from agents.hands import Hands, ToolResult
from agents.parts import Parts
from agents.task import Task
from agents.tool_shape import MAX_S
from base.deadline import Deadline
from base.errors import SandboxError
from base.levels import Level

#: The longest a tool may take, its own limit included.
TOOL_S = MAX_S + 30.0


class Grip:
    """One a task. What the task was granted holds again in hands that are opened anew."""

    def __init__(self, parts: Parts, task: Task) -> None:
        self._parts = parts
        self._task = task
        self._hands: Hands | None = None

    async def hold(self) -> Hands:
        """Raises SandboxError when there can be no sandbox."""
        if self._hands is not None and self._hands.broken:
            await self.release()
        if self._hands is None:
            self._hands = await self._open(self._task.level, self._task.granted)
        return self._hands

    async def call(self, name: str, given: dict[str, Any]) -> ToolResult:
        """Run a tool; a sandbox that broke under it is a failed result and is replaced."""
        hands = await self.hold()
        try:
            return await hands.call(name, given, deadline=Deadline.after(TOOL_S))
        except SandboxError as error:
            await self.release()
            return ToolResult(ok=False, text=f"{error}; what the call did is unknown")

    async def allow(self, host: str) -> None:
        """Let open hands reach `host` too; hands opened later have it from `task.granted`."""
        if self._hands is not None and not self._hands.broken:
            try:
                await self._hands.allow(host)
            except SandboxError:
                await self.release()

    async def alone(
        self,
        level: Level,
        grants: tuple[str, ...],
        name: str,
        given: dict[str, Any],
        before: Callable[[], Awaitable[None]],
    ) -> ToolResult:
        """Run one call in hands of its own at `level`, while nothing else of the task runs.

        `before` is the last that happens before it runs; what it raises is raised.
        """
        await self.release()
        try:
            hands = await self._open(level, grants)
        except SandboxError as error:
            return ToolResult(ok=False, text=f"not run: {error}")
        try:
            await before()
            return await hands.call(name, given, deadline=Deadline.after(TOOL_S))
        except SandboxError as error:
            return ToolResult(ok=False, text=f"{error}; what the call did is unknown")
        finally:
            await self._close(hands)

    def hear(self) -> None:
        """Taint the task with what was reached beside its calls: by a job, or by a probe."""
        if self._hands is not None:
            self._taint(self._hands)

    async def release(self) -> None:
        hands, self._hands = self._hands, None
        if hands is not None:
            await self._close(hands)

    async def _close(self, hands: Hands) -> None:
        try:
            await hands.close()
        finally:
            self._taint(hands)

    def _taint(self, hands: Hands) -> None:
        if reached := hands.reached():
            self._task.taint(reached)

    async def _open(self, level: Level, grants: tuple[str, ...]) -> Hands:
        await trial.proved(self._parts.settings)
        return await Hands.open(
            workspace=self._task.workspace,
            user=self._parts.settings.hands_user,
            level=level,
            grants=grants,
        )
