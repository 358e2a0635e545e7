"""The settings by REST: roles, problems that name file and field, keys that never come out."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from base.bus import Bus
from base.store import Store
from portal.auth import ADMIN_ID
from tests.portal.conftest import Portal, Stage, person
from tests.portal.test_trail import like, written

BUDGETS = "# Ours.\n[daily]\nhard_limit_usd = 40.0  # ask Ada\n"
JSON = {"Content-Type": "application/json"}
SECRET = "sk-ant-api03-" + uuid.uuid4().hex


@pytest.fixture
def admin(portal: Portal) -> Iterator[httpx.Client]:
    """An admin of a portal whose configuration is as it was, before and after."""
    (portal.settings.config / "agents").mkdir(mode=0o700, parents=True, exist_ok=True)
    limits = portal.settings.config / "limits.toml"
    before = limits.read_bytes()
    with portal.admin() as client:
        yield client
    for path in portal.settings.config.rglob("*.toml*"):
        path.unlink()
    limits.write_bytes(before)
    for name in ("anthropic-api-key", "openai-api-key", "weather-token"):
        (portal.settings.secrets / name).unlink(missing_ok=True)


def test_a_budget_is_changed_and_the_file_is_still_ours(portal: Portal, admin: Any) -> None:
    path = portal.settings.config / "budgets.toml"
    path.write_text(BUDGETS)
    before = admin.get("/api/settings/budgets").json()
    assert before["text"] == BUDGETS
    assert before["values"]["daily"] == {"warning_usd": 50.0, "hard_limit_usd": 40.0}
    assert before["own"] == {"daily": {"hard_limit_usd": 40.0}}
    change = {"at": ["daily", "hard_limit_usd"], "value": 60}
    asked = {"version": before["version"], "changes": [change]}
    answer = admin.put("/api/settings/budgets", json=asked)
    assert answer.status_code == 200, answer.text
    assert answer.json()["changed"] == ["daily.hard_limit_usd"]
    assert answer.json()["restart"] == ["supervisor"]
    assert path.read_text() == BUDGETS.replace("40.0", "60")
    assert admin.get("/api/usage/budget").json()["hard_limit_usd"] == 60
    late = admin.put("/api/settings/budgets", json=asked)
    assert late.status_code == 409
    assert "somebody else" in late.json()["detail"]
    now = answer.json()["configured"]["version"]
    wrong = {"version": now, "changes": [{"at": ["daily", "warning_usd"], "value": -1}]}
    refused = admin.put("/api/settings/budgets", json=wrong)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert [(one["file"], one["at"]) for one in refused.json()["faults"]] == [
        ("budgets.toml", "daily.warning_usd")
    ]
    back = {"version": now, "changes": [{"at": ["daily", "hard_limit_usd"], "value": None}]}
    assert admin.put("/api/settings/budgets", json=back).status_code == 200
    assert admin.get("/api/usage/budget").json()["hard_limit_usd"] == 100


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"version": "absent"}, "either `changes` or `text`"),
        ({"version": "absent", "changes": [], "text": ""}, "at least 1 item"),
        ({"version": "absent", "changes": [{"at": [], "value": 1}]}, "at least 1 item"),
        ({"version": "absent", "changes": [{"at": ["a\u202eb"], "value": 1}]}, "cannot be seen"),
        ({"version": "absent", "changes": [{"at": ["a"], "value": "x\u0007"}]}, "cannot be seen"),
        ({"version": "absent", "changes": [{"at": ["a"], "value": {"b": 1}}]}, "value"),
        ({"version": "absent", "changes": [{"at": ["a"], "value": 2**70}]}, "too large"),
        ({"version": "absent", "text": "a = \ud800"}, "surrogate"),
        ({"version": "absent", "text": "[daily"}, "budgets.toml"),
        ({"version": "absent", "text": "", "more": 1}, "more"),
    ],
)
def test_what_is_no_change_is_said_to_be_none(
    portal: Portal, admin: Any, body: dict[str, Any], said: str
) -> None:
    raw = json.dumps(body).encode()
    answer = admin.put("/api/settings/budgets", content=raw, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert said in answer.text
    assert not (portal.settings.config / "budgets.toml").exists()
    for number in ("NaN", "Infinity", "1e999"):
        raw = b'{"version": "absent", "changes": [{"at": ["a"], "value": %b}]}' % number.encode()
        assert admin.put("/api/settings/budgets", content=raw, headers=JSON).status_code == 422


def test_there_is_no_other_file(portal: Portal, admin: Any) -> None:
    for name in (
        "secrets",
        "budgets.toml",
        "..%2Fsecrets",
        "agents",
        "agents/..%2Flevels",
        "agents/A",
    ):
        answer = admin.get(f"/api/settings/{name}")
        assert answer.status_code == 404, f"{name}: {answer.text}"
    files = {one["file"] for one in admin.get("/api/settings").json()["files"]}
    assert {"budgets", "levels", "agents/code", "agents/supervisor", "settings"} <= files
    assert admin.get("/api/settings/agents/code").json()["values"]["daily_usd"] == 20


async def test_who_may_not(portal: Portal, store: Store, admin: Any) -> None:
    somebody = await person(portal, store)
    with portal.client(somebody.token) as client:
        for method, path in (
            ("GET", ""),
            ("GET", "/keys"),
            ("PUT", "/budgets"),
            ("GET", "/agents/qa"),
        ):
            answer = client.request(method, f"/api/settings{path}")
            assert answer.status_code in {403, 422} if method == "PUT" else 403
            assert "shipped" not in answer.text


async def test_a_key_goes_in_and_never_comes_out(
    portal: Portal, admin: Any, store: Store, bus: Bus
) -> None:
    asked = {"value": f"  {SECRET}\n"}
    answer = admin.put("/api/settings/keys/anthropic-api-key", json=asked)
    assert answer.status_code == 200, answer.text
    assert answer.json()["source"] == "file"
    path = portal.settings.secrets / "anthropic-api-key"
    assert path.read_text() == SECRET + "\n"
    assert path.stat().st_mode & 0o777 == 0o600
    told = [answer.text]
    for where in ("", "/keys", "/extensions", "/settings", "/models"):
        told.append(admin.get(f"/api/settings{where}").text)
    events = await written(
        bus, store, like(ADMIN_ID, "write", "success", "secrets/anthropic-api-key")
    )
    assert events[-1].risk_level == "high"
    told += [one.model_dump_json() for one in events]
    told.append((portal.settings.home / "logs" / "portal.log").read_text())
    assert not [text for text in told if SECRET in text]
    refused = admin.put(
        "/api/settings/keys/anthropic-api-key", json={"value": "two\nlines " + SECRET}
    )
    assert refused.status_code == 422
    assert SECRET not in refused.text
    mcp = f'[servers.x]\nurl = "https://x.example/{SECRET}"\nagents = ["qa"]\n'
    pasted = admin.put("/api/settings/mcp", json={"version": "absent", "text": mcp})
    assert pasted.status_code == 422
    assert SECRET not in pasted.text
    assert admin.delete("/api/settings/keys/anthropic-api-key").status_code == 204
    assert admin.delete("/api/settings/keys/anthropic-api-key").status_code == 404
    assert not path.exists()


def test_what_is_not_set_from_here(portal: Portal, admin: Any) -> None:
    for name in ("jwt-secret", "audit-key", "postgres", "redis-password", "aws-credentials"):
        assert admin.put(f"/api/settings/keys/{name}", json={"value": "x"}).status_code == 409
        assert admin.delete(f"/api/settings/keys/{name}").status_code == 409
    for name in ("..%2Fconfig", "A", "x" * 65):
        answer = admin.put(f"/api/settings/keys/{name}", json={"value": "x"})
        assert answer.status_code in {404, 422}, f"{name}: {answer.text}"
    assert (
        admin.put("/api/settings/keys/weather-token", json={"value": "own one"}).status_code == 200
    )


def test_a_key_is_tried_by_one_call(portal: Portal, admin: Any, rehearsal_url: str) -> None:
    path = "/api/settings/keys/anthropic-api-key"
    assert admin.post(f"{path}/try").status_code == 422  # there is none
    assert admin.post("/api/settings/keys/github-pat/try").status_code == 422
    at = {"version": "absent", "changes": [{"at": ["anthropic_base_url"], "value": rehearsal_url}]}
    assert admin.put("/api/settings/settings", json=at).status_code == 200
    admin.put(path, json={"value": SECRET})
    calls = httpx.get(f"{rehearsal_url}/rehearsal/calls").json()["calls"]
    found = admin.post(f"{path}/try").json()
    assert found["ok"], found
    assert found["said"].startswith(f"{rehearsal_url} answered with claude-haiku-5-5")
    assert 0 <= found["cost_usd"] < 0.0001
    assert httpx.get(f"{rehearsal_url}/rehearsal/calls").json()["calls"] == calls + 1
    version = admin.get("/api/settings/settings").json()["version"]
    gone = {"version": version, "changes": [{"at": ["anthropic_base_url"], "value": portal.url}]}
    assert admin.put("/api/settings/settings", json=gone).status_code == 200
    found = admin.post(f"{path}/try").json()
    assert not found["ok"]
    assert "refused" in found["said"]
    assert SECRET not in json.dumps(found)


async def test_restarts_are_asked_for_in_order(admin: Any, stage: Stage) -> None:
    asked = {"programs": ["portal", "code", "supervisor"]}
    answer = await asyncio.to_thread(admin.post, "/api/settings/restart", json=asked)
    assert answer.json() == {"restarted": ["supervisor", "code", "portal"]}
    assert [one["agent"] for one in stage.asked] == ["supervisor", "code", "portal"]
    for name in ("redis", "everything", "nobody"):
        answer = admin.post("/api/settings/restart", json={"programs": [name]})
        assert answer.status_code == 422
        assert name in answer.json()["detail"]


def test_what_was_added_is_listed_as_doctor_says_it(portal: Portal, admin: Any) -> None:
    config: Path = portal.settings.config
    (config / "mcp.toml").write_text('[servers.x]\ncommand = ["/no/such"]\nagents = ["qa"]\n')
    hook = {"type": "command", "command": "curl -H 'Authorization: Bearer abcdefgh12345678'"}
    hooks = {"hooks": {"Stop": [{"hooks": [hook]}], "Nothing": []}}
    (config / "settings.json").write_text(json.dumps(hooks))
    (config / "settings.json").chmod(0o600)
    found = admin.get("/api/settings/extensions").json()
    (config / "settings.json").unlink()
    assert [(one["name"], one["ok"]) for one in found["servers"]] == [("mcp x", False)]
    assert "no program /no/such" in found["servers"][0]["detail"]
    assert [one["event"] for one in found["hooks"]] == ["Stop"]
    assert "abcdefgh12345678" not in json.dumps(found)
    assert "Nothing" in found["hook_faults"][0]
    seats = {one["name"]: one for one in found["agents"]}
    assert (seats["infra"]["level"], seats["infra"]["own"]) == (2, False)
    assert seats["code"]["path"] == str(config / "agents" / "code.toml")
