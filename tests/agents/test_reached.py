"""What runs beside the calls taints the task, too: jobs between calls, and probes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from homes import proven
from test_egress import STANDARD, Site

from agents.grip import Grip
from base.deadline import Deadline

pytest_plugins = ["boxed"]


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()
    yield one
    one.close()


async def _begun(
    workspace: Path, hands_user: str | None, site: Site, tainted: list[str]
) -> tuple[Grip, str]:
    """Hands whose job has reached `site` since the only call, and that call's taint."""
    level = STANDARD.model_copy(update={"network": (site.address,)})
    parts: Any = SimpleNamespace(settings=proven())
    task: Any = SimpleNamespace(workspace=workspace, level=level, granted=(), taint=tainted.append)
    grip = Grip(parts, task)
    fetch = f"curl -s http://{site.address}/ > f; curl -sm 5 http://127.0.0.1:1/; echo > g"
    job = await grip.call("shell", {"command": f"(sleep 0.5; {fetch}) >/dev/null 2>&1 &"})
    wait = Deadline.after(20)
    while not (workspace / "g").exists() and not wait.passed:
        await asyncio.sleep(0.1)
    return grip, job.untrusted


async def test_what_a_job_reached_is_told_with_the_next_call(
    workspace: Path, hands_user: str | None, site: Site
) -> None:
    tainted: list[str] = []
    grip, told = await _begun(workspace, hands_user, site, tainted)
    assert told == ""
    got = await grip.call("shell", {"command": "cat f"})
    assert got.text.endswith("welcome")
    assert (got.untrusted, got.refused) == (site.address, ())
    await grip.release()
    assert tainted == []


@pytest.mark.parametrize("way", ["hear", "release"])
async def test_what_a_job_reached_taints_before_anything_is_asked(
    workspace: Path, hands_user: str | None, site: Site, way: str
) -> None:
    tainted: list[str] = []
    grip, _ = await _begun(workspace, hands_user, site, tainted)
    if way == "hear":
        grip.hear()
        assert tainted == [site.address]
    await grip.release()
    assert tainted == [site.address]


async def test_what_a_probe_reached_taints(
    workspace: Path, hands_user: str | None, site: Site
) -> None:
    tainted: list[str] = []
    grip, _ = await _begun(workspace, hands_user, site, tainted)
    grip.hear()
    hands = await grip.hold()
    probe = {"command": f"curl -s http://{site.address}/"}
    await hands.check("command", probe, deadline=Deadline.after(20))
    grip.hear()
    assert tainted == [site.address] * 2
    await grip.release()
