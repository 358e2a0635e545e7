"""A world for the supervisor: real Redis, PostgreSQL and rehearsal model; agents are coroutines
on the real bus that do what a test tells them.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from base import streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import NoAnswerError, StaleLeaseError
from base.messages import (
    Control,
    Effort,
    Heartbeat,
    Message,
    Outcome,
    Status,
    Type,
    Usage,
    WorkOrder,
)
from base.outbox import Request
from base.settings import Settings
from base.store import Store
from supervisor import loop

AGENTS = ("code", "data", "infra", "research", "qa")
Act = Callable[["Player", WorkOrder], Awaitable[Outcome | None]]


class Player:
    """One agent as the wire sees it."""

    def __init__(self, world: World, name: str, bus: Bus) -> None:
        self.world = world
        self.name = name
        self.bus = bus
        self.orders: list[WorkOrder] = []
        self.controls: list[Control] = []
        self.questions: list[dict[str, Any]] = []
        self.now: tuple[str | None, int | None] = (None, None)
        self.paused = False

    async def beat(self) -> None:
        task_id, epoch = self.now
        beat = Heartbeat(
            agent=self.name,
            pid=os.getpid(),
            status="busy" if task_id else "idle",
            paused=self.paused,
            task_id=task_id,
            epoch=epoch,
        )
        payload = beat.model_dump(mode="json")
        message = Message(source=self.name, target="*", type=Type.HEARTBEAT, payload=payload)
        await self.bus.publish(streams.HEARTBEATS, message)

    async def take(self, order: WorkOrder) -> None:
        """Ask until the supervisor answers, as an agent does while it is being restarted."""
        ask = {"verb": "take", "task_id": order.task_id, "epoch": order.epoch, "agent": self.name}
        while True:
            try:
                await self.bus.ask("supervisor", ask, deadline=Deadline.after(3))
                break
            except NoAnswerError:
                continue
        self.now = (order.task_id, order.epoch)
        await self.beat()

    async def send(self, outcome: Outcome) -> None:
        payload = outcome.model_dump(mode="json")
        message = Message(source=self.name, target="supervisor", type=Type.RESULT, payload=payload)
        await self.bus.publish(streams.RESULTS, message)

    def outcome(self, order: WorkOrder, **fields: Any) -> Outcome:
        given: dict[str, Any] = {
            "status": Status.COMPLETED,
            "answer": f"{self.name} did {order.instruction[:200]}",
            "usage": Usage(model_calls=1, input_tokens=10, output_tokens=5, cost_usd=0.01),
            **fields,
        }
        return Outcome(
            task_id=order.task_id,
            root_id=order.root_id,
            epoch=order.epoch,
            agent=self.name,
            **given,
        )

    async def work(self) -> None:
        async for deliveries in self.bus.consume(streams.agent(self.name), streams.GROUP_AGENT):
            for delivery in deliveries:
                order = WorkOrder.model_validate(delivery.message.payload)
                self.orders.append(order)
                try:
                    await self.take(order)
                    outcome = await self.world.act(self, order)
                    if outcome is not None:
                        await self.send(outcome)
                except StaleLeaseError:
                    pass
                self.now = (None, None)
                await self.bus.ack(streams.agent(self.name), streams.GROUP_AGENT, delivery.id)
                await self.beat()

    async def beats(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(self.world.settings.heartbeat_s)

    async def listen(self) -> None:
        async for entries in self.bus.tail(streams.control(self.name), after="0"):
            for _, raw in entries:
                message = Message.model_validate_json(raw)
                self.controls.append(Control.model_validate(message.payload))

    async def peer(self, question: dict[str, Any]) -> dict[str, Any]:
        self.questions.append(question)
        return {"answer": f"{self.name} stands by it"}


class World:
    """Everything around the supervisor, and the supervisor itself when started."""

    def __init__(self, settings: Settings, store: Store, bus: Bus) -> None:
        self.settings = settings
        self.store = store
        self.bus = bus
        self.user = ""
        self.conversation = ""
        self.players: dict[str, Player] = {}
        self.act: Act = self.obey
        self.tasks: list[asyncio.Task[Any]] = []
        self.stop = asyncio.Event()
        self.supervisor: asyncio.Task[int | None] | None = None

    async def obey(self, player: Player, order: WorkOrder) -> Outcome | None:
        return player.outcome(order)

    async def people(self) -> None:
        self.user = str(uuid.uuid4())
        self.conversation = str(uuid.uuid4())
        await self.store.execute(
            "INSERT INTO users (id, email) VALUES ($1, $2)", self.user, f"{self.user}@example.test"
        )
        await self.store.execute(
            "INSERT INTO conversations (id, user_id, title) VALUES ($1, $2, 'c')",
            *(self.conversation, self.user),
        )

    async def play(self, *names: str) -> None:
        for name in names or AGENTS:
            bus = await Bus.open(self.settings.redis, name)
            player = Player(self, name, bus)
            self.players[name] = player
            await player.beat()
            for part in (player.work(), player.beats(), player.listen()):
                self.tasks.append(asyncio.create_task(part))
            served = bus.serve(streams.peer(name), player.peer)
            self.tasks.append(asyncio.create_task(served))

    def start(self) -> None:
        self.stop = asyncio.Event()
        self.supervisor = asyncio.create_task(loop.main(self.settings, self.stop))

    async def halt(self) -> None:
        self.stop.set()
        if self.supervisor is not None:
            await self.supervisor
            self.supervisor = None

    async def ask(
        self,
        content: str,
        *,
        effort: Effort | None = None,
        agent: str | None = None,
        priority: int = 5,
        relay: bool = True,
    ) -> str:
        """Accept a request as the portal does; the root task's id."""
        accepted = await self.store.accept(
            Request(
                user_id=self.user,
                conversation_id=self.conversation,
                content=content,
                effort=effort,
                agent=agent,
                priority=priority,
            )
        )
        if relay:
            await self.store.relay(self.bus)
        return accepted.task_id

    async def verb(self, verb: str, **payload: Any) -> dict[str, Any]:
        return await self.bus.ask(
            "supervisor", {"verb": verb, **payload}, deadline=Deadline.after(10)
        )

    async def row(self, task_id: str) -> dict[str, Any]:
        row = await self.store.fetchrow("SELECT * FROM tasks WHERE id = $1", task_id)
        assert row is not None
        return row

    async def subtasks(self, root_id: str) -> list[dict[str, Any]]:
        return await self.store.fetch(
            "SELECT * FROM tasks WHERE parent_task_id = $1 ORDER BY created_at, id", root_id
        )

    async def ended(self, task_id: str, seconds_s: float = 20.0) -> dict[str, Any]:
        """The task's row once it has ended."""

        async def has() -> bool:
            return Status((await self.row(task_id))["status"]).ended

        await until(f"the end of {task_id}", has, seconds_s)
        return await self.row(task_id)

    async def answers(self) -> list[dict[str, Any]]:
        return await self.store.fetch(
            "SELECT * FROM messages WHERE role = 'assistant' ORDER BY created_at"
        )

    async def close(self) -> None:
        await self.halt()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for player in self.players.values():
            await player.bus.close()
        await self.bus.close()
        await self.store.close()


async def until(what: str, true: Callable[[], Awaitable[bool]], seconds_s: float = 10.0) -> None:
    end = time.monotonic() + seconds_s
    while not await true():
        assert time.monotonic() < end, f"{what} did not happen within {seconds_s} s"
        await asyncio.sleep(0.02)
