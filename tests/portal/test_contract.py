"""The API against its own description: many requests made from `/openapi.json`, good and bad.

No answer is a server error, every answer is what its operation says (status, type, schema), and
nothing is given to somebody who shows no token. `AI_INFRA_API_EXAMPLES=200` tries that many
requests an operation; the default is what ends within two and a half minutes on a busy core.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import httpx
import pytest

from base import streams
from base.bus import Bus
from base.store import Store
from portal import auth
from tests.portal.conftest import Portal, Stage, running
from tests.portal.test_memory_api import Keeper

EXAMPLES = int(os.environ.get("AI_INFRA_API_EXAMPLES", "4"))
SEED = 20261128
TOKEN_S = 7_200.0
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "missing_required_header",
    "use_after_free",
    "ensure_resource_availability",
)
#: They change the very portal, call a provider, or take seconds: each is tested elsewhere.
LEFT_OUT = (
    "settings_put_file", "settings_put_agent", "settings_put_key", "settings_remove_key",
    "settings_try_key", "health_look_now", "backups_create", "backups_verify",
)  # fmt: skip
#: What is wrong may also be too large.
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 422, 429]
"""


class Played:
    """The services that a portal asks, in a thread of their own."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._ready = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="played")

    def __enter__(self) -> Played:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(20)

    async def _run(self) -> None:
        bus = await Bus.open(self._portal.settings.redis, f"played-{uuid.uuid4().hex[:6]}")
        store = await Store.open(self._portal.settings.postgres, "played")
        stage, keeper = Stage(bus, store), Keeper()
        serving = [
            asyncio.create_task(bus.serve(name, answer), name=f"played {name}")
            for name, answer in (
                (streams.SERVICE_SUPERVISOR, stage.answer),
                (streams.SERVICE_WATCH, stage.answer),
                (streams.SERVICE_MEMORY, keeper.answer),
            )
        ]
        self._ready.set()
        await asyncio.to_thread(self._over.wait)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await bus.close()
        await store.close()


@pytest.mark.timeout(3_600)
def test_answers_are_what_the_description_says(
    short_tmp: Path, redis_server: str, postgres_dsn: str, tmp_path: Path
) -> None:
    with running(short_tmp, redis_server, postgres_dsn, limited=False) as portal, Played(portal):
        token = auth.local_token(portal.settings, ttl_s=TOKEN_S)
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=portal.url, verify=False, headers=headers) as client:
            there = existing(client)
        command = [str(Path(sys.executable).with_name("schemathesis")), "run"]
        command += [f"{portal.url}/openapi.json", "--header", f"Authorization: Bearer {token}"]
        command += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"]
        command += ["--max-examples", str(EXAMPLES), "--seed", str(SEED), "--workers", "1"]
        command += ["--generation-database", "none", "--suppress-health-check", "all"]
        command += ["--request-timeout", "30", "--warnings", "off", "--no-shrink", "--no-color"]
        command += [part for name in LEFT_OUT for part in ("--exclude-operation-id", name)]
        (tmp_path / "schemathesis.toml").write_text(CONFIG)
        environment = os.environ | {
            "PYTHONPATH": str(Path(__file__).parent),
            "SCHEMATHESIS_HOOKS": "contract_hooks",
            "CONTRACT_EXISTING": json.dumps(there),
        }
        ran = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        print(ran.stdout)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def existing(client: httpx.Client) -> dict[str, str]:
    """One of each thing."""
    talk = client.post("/api/conversations", json={"title": "there"}).json()["id"]
    sent = client.post(f"/api/conversations/{talk}/messages", json={"content": "hello"}).json()
    hook = client.post("/api/webhooks", json={"url": "https://nowhere.invalid/hook"}).json()
    return {
        "conversation_id": talk,
        "task_id": sent["task_id"],
        "message_id": sent["message_id"],
        "webhook_id": hook["webhook"]["id"],
        "name": "code",
    }
