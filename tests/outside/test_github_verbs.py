"""The verbs for GitHub, as the broker asks them, and the timer that asks the broker."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_github import FakeGithub

from base.errors import ConflictError, NotFoundError
from base.verbs import VERBS, By, Order, Said
from base.verbs_outside import VERBS as OUTSIDE
from provision import tick, verbs
from provision.box import Box
from provision.github_jobs import Jobs
from provision.verb import Verb


def verb(name: str) -> Verb[Any]:
    found: Verb[Any] = importlib.import_module(f"provision.verbs.{name.replace('.', '_')}").VERB
    return found


class Asking:
    def __init__(self, box: Box) -> None:
        self.box = box
        self.steps: list[str] = []

    async def plan(self, verb_name: str, /, **asked: Any) -> list[str]:
        return await verb(verb_name).plan(VERBS[verb_name].model_validate(asked), self.box)

    async def run(self, verb_name: str, /, **asked: Any) -> dict[str, Any]:
        async def tell(step: str) -> None:
            self.steps.append(step)

        asking = VERBS[verb_name].model_validate(asked)
        return await verb(verb_name).run(asking, self.box, By(role="system"), tell)


def test_every_verb_has_its_file_and_what_changes_something_its_rule() -> None:
    folder = Path(verbs.__path__[0])
    for name, request in OUTSIDE.items():
        assert (folder / f"{name.replace('.', '_')}.py").is_file(), name
        found = verb(name)
        assert (found.name, found.request, VERBS[name]) == (name, request, request)
        reads = name.endswith((".list", ".show", ".status", ".history"))
        assert (found.approval == "none", found.alone) == (reads, not reads), name


async def test_a_backup_and_a_sync_by_verb(
    box: Box, jobs: Jobs, github: FakeGithub, files: Path
) -> None:
    asking = Asking(box)
    (files / "a.toml").write_text("a = 1\n")
    assert await asking.plan("github.backup", name="memory") == [
        "push 1 file to GitHub: MEMORY/a.toml"
    ]
    assert (await asking.run("github.backup", name="memory"))["pushed"] == 1
    assert await asking.plan("github.backup", name="memory") == ["nothing: both sides are the same"]
    await asking.run("github.sync", name="config")
    (files / "a.toml").write_text("a = 2\n")
    github.write("me/store", {"config/a.toml": "a = 3\n"})
    assert await asking.plan("github.sync", name="config") == [
        "leave config/a.toml as it is on both sides: it was changed on both sides"
    ]
    with pytest.raises(ConflictError, match=r"github\.status config"):
        await asking.run("github.sync", name="config")
    status = await asking.run("github.status", name="config")
    assert "+a = 3" in status["differ"]["config/a.toml"]
    await asking.run("github.sync", name="config", here=["config/a.toml"])
    assert github.files("me/store")["config/a.toml"] == "a = 2\n"
    listed = (await asking.run("github.list"))["repositories"]
    assert [(one["name"], one["due"], one["problem"]) for one in listed] == [
        ("memory", False, None), ("config", False, None),
    ]  # fmt: skip
    plan = await asking.plan("github.release", name="memory", tag="v1")
    assert plan == ["make release v1"]
    assert (await asking.run("github.release", name="memory", tag="v1"))["made"] is True
    assert await asking.plan("github.release", name="memory", tag="v1") == [
        "nothing: it is so already"
    ]


async def test_one_that_fails_holds_up_no_other(
    box: Box, jobs: Jobs, github: FakeGithub, files: Path
) -> None:
    asking = Asking(box)
    (files / "a.md").write_text("1")
    own = box.config / "outside.toml"
    own.write_text(own.read_text().replace('repository = "store"', 'repository = "none"', 1))
    assert await asking.plan("github.due") == [
        "run memory", "leave config for the next time",
    ]  # fmt: skip
    with pytest.raises(NotFoundError, match="GitHub has no repository me/none"):
        await asking.run("github.due")
    assert "me/none" in (jobs.state("memory").problem or "")
    ran = await asking.run("github.due")
    assert (ran["ran"], ran["later"], ran["pushed"]) == ("config", [], 1)
    assert github.files("me/store") == {"config/a.md": "1"}
    assert await asking.plan("github.due") == ["nothing: none is due"]
    assert (await asking.run("github.due"))["ran"] is None


class Listening:
    """A broker's socket: it keeps what it is asked and gives one answer."""

    def __init__(self, path: Path, said: Said) -> None:
        self.orders: list[Order] = []
        self._said = said
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_unix_server(self._answer, str(path))
        )
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order = Order.model_validate_json(await reader.readline())
        self.orders.append(order)
        for said in (Said(id=order.id, step="looking"), self._said):
            writer.write(
                said.model_copy(update={"id": order.id}).model_dump_json().encode() + b"\n"
            )
        await writer.drain()
        writer.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._server.close()
        self._loop.close()


@pytest.fixture
def sockets(short_tmp: Path) -> Iterator[Path]:
    path = short_tmp / "outside.sock"
    yield path
    path.unlink(missing_ok=True)


def test_the_timer_asks_as_the_machine_itself(sockets: Path) -> None:
    said = Said(id="x", done=True, ok=True, result={"ran": {"memory": {"pushed": 3}}})
    broker = Listening(sockets, said)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "provision.tick", "github.due"],
            env={**os.environ, "AI_INFRA_BROKER": str(sockets)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        broker.close()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("looking\n")
    assert json.loads(done.stdout.partition("github.due: ")[2])["result"] == said.result
    (order,) = broker.orders
    assert (order.verb, order.by) == ("github.due", By(role="system"))


async def test_a_timer_whose_run_fails_fails(
    sockets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = "memory: GitHub has no repository me/none"
    broker = await asyncio.to_thread(
        Listening, sockets, Said(id="x", done=True, error=error, kind="ConflictError")
    )
    try:
        assert await tick.ask("github.due", sockets) == 1
    finally:
        broker.close()
    assert capsys.readouterr().err == f"{error}\n"
    assert await tick.ask("github.due", sockets) == 3, "nobody listens now"
    assert await tick.ask("dns.set", sockets) == 2, "it would need to be told what"
    assert await tick.ask("github.due", None) == 3
