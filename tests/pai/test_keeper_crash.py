"""kill -9 at any point: nothing lost, nothing doubled, each memory in exactly one tier."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STEPS = Path(__file__).with_name("keeper_steps.py")
ROOT = Path(__file__).parent.parent.parent
#: Of the story's effects every so manieth is a point to die at.
STRIDE = 29


def lived(tmp_path: Path, dsn: str, redis: str, points: list[int]) -> list[dict[str, Any]]:
    paths = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "pai")]
    done = subprocess.run(
        [sys.executable, str(STEPS), str(tmp_path / "home"), dsn, redis, *map(str, points)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def faults(found: dict[str, Any]) -> list[str]:
    """What is wrong with a world after a death and a new start."""
    reached, wrong = set(found["reached"]), []
    for name in ("hot", "secret", "plain", "twin", "moved"):
        one = found[name]
        copies = {place: count for place, count in one["copies"].items() if count}
        if one["tier"] is None:
            if copies or one["found"]:
                wrong.append(f"{name} has no card but {copies}, found {one['found']}")
        elif copies != {one["tier"]: 1} or one["found"] != 1:
            wrong.append(f"{name} is {one['tier']} but {copies}, found {one['found']}")
        if one["notes"] not in (None, [[], False]):
            wrong.append(f"{name} is still to be swept: {one['notes']}")
    step = {"hot": "hot", "secret": "hot", "plain": "plain", "moved": "plain"}
    for name, after in step.items():
        gone = found[name]["tier"] is None
        may_go = "expiring" in reached or (name == "secret" and "forgetting" in reached)
        if name == "plain" and "merging" in reached:
            may_go = may_go or found["twin"]["tier"] is not None
        if gone and after in reached and not may_go:
            wrong.append(f"{name} is lost")
    if "forgot" in reached and found["secret"]["tier"] is not None:
        wrong.append("what was forgotten is back")
    if [row for row in found["counts"] if row["count"]] != found["really"]:
        wrong.append(f"counted {found['counts']}, there are {found['really']}")
    if found["stray_points"]:
        wrong.append(f"{found['stray_points']} points in the warm store have no card")
    return wrong


@pytest.mark.timeout(600)
def test_a_kill_at_any_point_loses_and_doubles_nothing(
    tmp_path: Path, postgres_dsn: str, redis_url: str
) -> None:
    (whole,) = lived(tmp_path, postgres_dsn, redis_url, [0])
    assert not whole["died"]
    assert faults(whole) == []
    assert all(whole[name]["tier"] is None for name in ("hot", "secret", "plain", "moved"))
    total = next(int(one.split()[1]) for one in whole["reached"] if one.startswith("effects"))
    points = [int(one) for one in os.environ.get("KEEPER_POINTS", "").split(",") if one]
    found = lived(tmp_path, postgres_dsn, redis_url, points or list(range(1, total, STRIDE)))
    assert all(one["died"] for one in found)
    assert {one["point"]: faults(one) for one in found if faults(one)} == {}
