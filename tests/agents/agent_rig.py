"""A bench for one agent: real Redis, the rehearsal model and `python -m agents` as processes.

The supervisor's side is played by the test: it answers `take` and reads the outcomes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import warm
from clerk import Clerk
from homes import spare

from agents import trial
from base import streams
from base.approvals import Approval
from base.audit import AuditEvent
from base.bus import Bus
from base.deadline import Deadline
from base.errors import NoAnswerError, StaleLeaseError
from base.messages import (
    Budget,
    Control,
    Criterion,
    Effort,
    Event,
    Heartbeat,
    Message,
    Outcome,
    Probe,
    Status,
    Type,
    WorkOrder,
    decode,
)
from base.settings import Settings
from pai.record import JOURNAL, Record, folder_name, read

WAIT_S = 40.0
ROOT = Path(__file__).resolve().parents[2]


def script(*lines: dict[str, Any]) -> str:
    """A request that holds the script."""
    body = "\n".join(json.dumps(line) for line in lines)
    return f"Please do this.\n\n```rehearsal\n{body}\n```\n"


def file_criterion(path: str, number: int = 1) -> Criterion:
    return Criterion(
        id=f"ISC-{number}",
        text=f"The file {path} exists in the workspace after the work",
        probe=Probe(kind="file", path=path),
    )


def order(request: str, **fields: Any) -> WorkOrder:
    task_id = fields.pop("task_id", str(uuid.uuid4()))
    given: dict[str, Any] = {
        "task_id": task_id,
        "root_id": str(uuid.uuid4()),
        "epoch": 1,
        "agent": "code",
        "user_id": "u1",
        "conversation_id": "c1",
        "created_at": datetime(2026, 11, 1, 12, 0, tzinfo=UTC),
        "instruction": "Write the file",
        "request": request,
        "effort": Effort.STANDARD,
        "budget": Budget(tokens=1_000_000, usd=5.0),
        "workspace": "main",
        "level": 1,
    }
    return WorkOrder(**(given | fields))


class Rig:
    """Everything around the agent. `takes` says what to answer; None: say nothing."""

    def __init__(self, home: Path, redis_url: str, model_port: int) -> None:
        self.home = home
        self.redis_url = redis_url
        settings = Settings(home=home)
        spare(settings)
        trial.keep(settings)  # tried once a home: test_trial.py tries it for real
        self.model_url = f"http://127.0.0.1:{model_port}"
        self.env = os.environ | {
            "AI_INFRA_HOME": str(home),
            "AI_INFRA_REDIS_URL": redis_url,
            "AI_INFRA_REHEARSAL_PORT": str(model_port),
            "AI_INFRA_HEARTBEAT_S": "0.2",
            "AI_INFRA_DRAIN_S": "10",
            "ANTHROPIC_API_KEY": "",
        }
        self.agents: dict[str, warm.Started] = {}
        self.outcomes: list[Outcome] = []
        self.events: list[Event] = []
        self.beats: list[Heartbeat] = []
        self.taken: list[dict[str, Any]] = []
        self.stale: set[int] = set()
        self.silent = False
        self.clerk = Clerk()
        self.audit: list[AuditEvent] = []
        self.bus: Bus
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> Rig:
        self.bus = await Bus.open(self.redis_url, "supervisor")
        self._tasks = [
            asyncio.create_task(self._serve(), name="serve"),
            asyncio.create_task(self._results(), name="results"),
            asyncio.create_task(self._events(), name="events"),
            asyncio.create_task(self._beats(), name="beats"),
            asyncio.create_task(self._audit(), name="audit"),
        ]
        return self

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in self.agents.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        await self.bus.close()

    # The supervisor's side -----------------------------------------------------------------

    async def _serve(self) -> None:
        async def answer(payload: dict[str, Any]) -> dict[str, Any]:
            if self.silent:
                await asyncio.sleep(3600)
                raise NoAnswerError("silent")
            if payload["verb"] != "take":
                answer = self.clerk.answer(payload)
                if self.clerk.deaf and payload["verb"] == "redeem":
                    await asyncio.sleep(3600)
                return answer
            self.taken.append(payload)
            if payload["epoch"] in self.stale:
                raise StaleLeaseError("the task moved on")
            return {"ok": True}

        await self.bus.serve(streams.SERVICE_SUPERVISOR, answer)

    async def _results(self) -> None:
        stream = self.bus.consume(streams.RESULTS, streams.GROUP_SUPERVISOR, block_s=0.2)
        async for deliveries in stream:
            for one in deliveries:
                self.outcomes.append(Outcome.model_validate(one.message.payload))
                await self.bus.ack(streams.RESULTS, streams.GROUP_SUPERVISOR, one.id)

    async def _events(self) -> None:
        async for entries in self.bus.tail(streams.EVENTS, after="0", block_s=0.2):
            self.events += [Event.model_validate_json(raw) for _, raw in entries]

    async def _beats(self) -> None:
        async for entries in self.bus.tail(streams.HEARTBEATS, after="0", block_s=0.2):
            self.beats += [Heartbeat.model_validate(decode(raw).payload) for _, raw in entries]

    async def _audit(self) -> None:
        async for entries in self.bus.tail(streams.AUDIT, after="0", block_s=0.2):
            self.audit += [AuditEvent.model_validate(decode(raw).payload) for _, raw in entries]

    # The test's side -------------------------------------------------------------------------

    def start(self, name: str = "code", **env: str) -> warm.Started:
        with (self.home / f"{name}.screen").open("ab") as log:
            process = warm.start("agents", name, env=self.env | env, output=log.fileno())
        self.agents[name] = process
        return process

    def kill(self, name: str = "code", number: int = signal.SIGKILL) -> int:
        self.agents[name].send_signal(number)
        return self.agents[name].wait(30)

    def screen(self, name: str = "code") -> str:
        return (self.home / f"{name}.screen").read_text(encoding="utf-8")

    async def send(self, given: WorkOrder) -> WorkOrder:
        message = Message(
            source="supervisor", target=given.agent, type=Type.TASK,
            payload=given.model_dump(mode="json"),
        )  # fmt: skip
        await self.bus.publish(streams.agent(given.agent), message)
        return given

    async def control(self, told: Control, name: str = "code") -> None:
        message = Message(
            source="portal", target=name, type=Type.QUERY, payload=told.model_dump(mode="json")
        )
        await self.bus.publish(streams.control(name), message)

    async def decide(self, approve: bool, *, tell: bool = True, name: str = "code") -> Approval:
        """Answer the one pending request as a person would, elsewhere."""
        (asked,) = await self.until("a request", lambda: self.clerk.pending)
        found = self.clerk.decide(asked.id, approve, "u1", "api")
        if tell:
            told = Control(verb="approval", task_id=asked.request.task_id, text=asked.id)
            await self.control(told, name)
        return found

    def audited(self, given: WorkOrder, moment: str = "end") -> list[AuditEvent]:
        """The audit events of the task's calls, each id once as the writer keeps them."""
        mine = [one for one in self.audit if one.details.get("task_id") == given.task_id]
        mine = [
            one
            for one in mine
            if (one.details.get("reason") == "about to run") == (moment != "end")
        ]
        return list({one.id: one for one in mine}.values())

    async def until(self, what: str, true: Callable[[], Any], seconds_s: float = WAIT_S) -> Any:
        deadline = Deadline.after(seconds_s)
        while not deadline.passed:
            if value := true():
                return value
            await asyncio.sleep(0.02)
        raise AssertionError(f"{what} did not happen; screen:\n{self.screen()[-3000:]}")

    async def until_empty(self, name: str) -> None:
        """Wait until every order of the agent is acked."""
        deadline = Deadline.after(WAIT_S)
        while await self.bus.depth(streams.agent(name)):
            assert not deadline.passed, "orders are left"
            await asyncio.sleep(0.02)

    async def ended(self, given: WorkOrder, count: int = 1) -> Outcome:
        """The last outcome of a task that neither is paused nor resumed."""

        def found() -> list[Outcome]:
            return [
                one
                for one in self.outcomes
                if one.task_id == given.task_id and (one.status.ended or one.handoff_to)
            ]

        await self.until(f"{count} outcomes", lambda: len(found()) >= count)
        return found()[-1]

    def journal(self, given: WorkOrder) -> list[Record]:
        return read(self.folder(given) / JOURNAL)

    def folder(self, given: WorkOrder) -> Path:
        return self.home / "MEMORY" / "Work" / "active" / folder_name(given)

    def kinds(self, given: WorkOrder) -> list[str]:
        return [record["kind"] for record in self.journal(given)]

    def prompts(self, given: WorkOrder) -> list[str]:
        return [r["purpose"] for r in self.journal(given) if r["kind"] == "reply"]

    def workspace(self, user: str = "u1") -> Path:
        return self.home / "workspaces" / user / "main"

    def model_calls(self) -> int:
        with urllib.request.urlopen(f"{self.model_url}/rehearsal/calls") as response:
            return int(json.load(response)["calls"])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def rehearsal(home: Path, port: int) -> subprocess.Popen[bytes]:
    """The rehearsal model, once it answers."""
    env = os.environ | {"AI_INFRA_HOME": str(home), "AI_INFRA_REHEARSAL_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "workers", "rehearsal"], cwd=ROOT, env=env)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
            return process
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the rehearsal model did not start")


__all__ = ["Rig", "Status", "file_criterion", "free_port", "order", "rehearsal", "script"]
