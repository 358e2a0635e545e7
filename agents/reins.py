"""What people want of the running task: steer, pause, resume, cancel.

Controls come over the bus alone (the keyboard sends them there too), and are read from the
stream's start, so they also hold for a task that was resumed after a crash.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable

from agents.task import Task
from base.approvals import Approval
from base.deadline import Deadline
from base.messages import Control, Outcome, Status

KEPT = 200


class StoppingError(Exception):
    """The process is to stop: leave the journal as it is and let go of the order."""


class Reins:
    """One a process. `task` is what runs now; None while idle."""

    def __init__(self, stop: asyncio.Event, publish: Callable[[Outcome], Awaitable[None]]) -> None:
        self.task: Task | None = None
        self.runner: asyncio.Task[Outcome] | None = None
        self.paused = False
        self.cancelled: Control | None = None
        self._asked: tuple[Approval, float] | None = None
        self._stop = stop
        self._publish = publish
        self._steers: deque[tuple[str, Control]] = deque(maxlen=KEPT)
        self._cancels: OrderedDict[tuple[str, int | None], Control] = OrderedDict()
        self._moved = asyncio.Event()

    def take(self, control_id: str, control: Control, *, fresh: bool) -> str | None:
        """Note a control; `control_id` is its place in the stream. Returns what a person should
        be told when it could do nothing, else None. `fresh`: sent while this process ran.
        """
        running = self.task.order.task_id if self.task else None
        if control.verb in {"pause", "resume"}:
            self.paused = control.verb == "pause"
        elif control.verb == "approval":
            pass  # who waits for it looks again: the word itself decides nothing
        elif control.verb == "cancel":
            return self._cancel(control, fresh)
        elif control.task_id is not None or (fresh and running is not None):
            self._steers.append(
                (control_id, control.model_copy(update={"task_id": control.task_id or running}))
            )
        elif fresh:
            return "nothing runs, so there is nothing to steer"
        self._moved.set()
        return None

    def begin(self, task: Task) -> bool:
        """`task` runs from now on; False when it was cancelled before it began."""
        order = task.order
        asked = (self._cancels.get((order.task_id, epoch)) for epoch in (None, order.epoch))
        self.task, self.cancelled = task, next((one for one in asked if one is not None), None)
        return self.cancelled is None

    def end(self) -> None:
        self.task = self.runner = self.cancelled = self._asked = None

    @property
    def asked(self) -> Approval | None:
        """The approval that the task waits for."""
        return self._asked[0] if self._asked else None

    @property
    def asked_for_s(self) -> float:
        """How long it has been waiting, as far as this process knows."""
        return time.monotonic() - self._asked[1] if self._asked else 0.0

    def ask(self, approval: Approval | None) -> None:
        """The task waits for `approval` from now on; None: for none."""
        self._asked = (approval, time.monotonic()) if approval else None

    async def safe_point(self, task: Task) -> None:
        """Where a task may stop: before each model call and each tool call.

        Writes new steering to the journal, waits while paused (and says so), raises
        StoppingError when the process is to end, CancelledError again when the task was cancelled:
        a library that was waited for may have taken the first one for its own.
        """
        if self.cancelled is not None:
            raise asyncio.CancelledError
        self._take_steering(task)
        if self._stop.is_set():
            raise StoppingError
        if not self.paused:
            return
        task.add("paused")
        await self.tell(task, Status.WAITING)
        while self.paused and not self._stop.is_set():
            self._moved.clear()
            await self._either()
        if self._stop.is_set():
            raise StoppingError
        task.add("unpaused")
        await self.tell(task, Status.IN_PROGRESS)
        self._take_steering(task)

    async def tell(self, task: Task, status: Status) -> None:
        """Say that the task waits, or goes on."""
        await self._publish(_state(task, status))

    def listen(self) -> None:
        """From here on a control ends the next `news`."""
        self._moved.clear()

    async def news(self, within_s: float) -> None:
        """Until a control came since `listen`, or `within_s` passed; steering stays queued.

        Raises StoppingError when the process is to end.
        """
        if self._stop.is_set():
            raise StoppingError
        try:
            async with asyncio.timeout(within_s):
                await self._moved.wait()
        except TimeoutError:
            return
        if self._stop.is_set():
            raise StoppingError

    async def rest(self, seconds_s: float) -> None:
        """Sleep, but not past the end of the process: StoppingError then."""
        deadline = Deadline.after(seconds_s)
        while not deadline.passed:
            self.listen()
            await self.news(deadline.left_s)

    def steered(self, task: Task) -> bool:
        """Whether somebody said something since the model was last asked."""
        return self._take_steering(task)

    def wake(self) -> None:
        """Let a paused task look again (the process is to stop)."""
        self._moved.set()

    async def unpaused(self) -> None:
        """Until orders may be taken."""
        while self.paused and not self._stop.is_set():
            self._moved.clear()
            await self._either()

    async def _either(self) -> None:
        await self._moved.wait()

    def _take_steering(self, task: Task) -> bool:
        found = False
        seen = {record["id"] for record in task.records if record["kind"] == "steer"}
        for control_id, control in list(self._steers):
            if control.task_id == task.order.task_id and control_id not in seen:
                task.add("steer", sync=True, id=control_id, text=control.text)
                found = True
        return found

    def _cancel(self, control: Control, fresh: bool) -> str | None:
        order = self.task.order if self.task else None
        meant = order is not None and (
            (control.task_id == order.task_id and control.epoch in {None, order.epoch})
            or (control.task_id is None and fresh)
        )
        if control.task_id is not None:
            self._cancels[control.task_id, control.epoch] = control
            if len(self._cancels) > KEPT:
                self._cancels.popitem(last=False)
        if meant and self.runner is not None and not self.runner.done():
            self.cancelled = control
            self.runner.cancel()
        elif control.task_id is None and fresh and not meant:
            return "nothing runs, so there is nothing to cancel"
        return None


def _state(task: Task, status: Status) -> Outcome:
    order = task.order
    return Outcome(
        task_id=order.task_id,
        root_id=order.root_id,
        epoch=order.epoch,
        agent=order.agent,
        status=status,
        usage=task.spent,
        rounds=task.state.round,
        tainted=task.tainted,
    )
