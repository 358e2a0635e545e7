"""AWS Secrets Manager, spoken to over HTTP: moto's server stands in for AWS, boto3 is real."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from present import wait_for

from base import log, secrets_files
from base.errors import SettingsError
from base.redact import redact
from base.secrets import Secrets
from base.settings import Settings

REGION = "eu-central-1"
CANARY = "canary-aws-Value-0123456789"


class Cloud:
    """moto's server, and an administrator's client for it."""

    def __init__(self, log_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log_path.open("wb")
        self.start()
        self.secrets, self.iam = self.client("secretsmanager"), self.client("iam")

    def start(self) -> None:
        line = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(line, stdout=self._log, stderr=self._log)
        wait_for("moto's server", self._listens, 60)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def client(self, kind: str) -> Any:
        import boto3

        return boto3.client(
            kind,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="admin",
            aws_secret_access_key="admin",
        )

    def put(self, name: str, value: str) -> None:
        full = f"ai-infrastructure/{name}"
        try:
            self.secrets.put_secret_value(SecretId=full, SecretString=value)
        except self.secrets.exceptions.ResourceNotFoundException:
            self.secrets.create_secret(Name=full, SecretString=value)

    def check_identities(self, on: bool) -> None:
        """From now on the credentials and their policies are looked at, or not."""
        count = b"0" if on else b"Infinity"
        self._post("reset-auth", count)

    def reset(self) -> None:
        self.check_identities(False)
        self._post("reset", b"")

    def _post(self, what: str, data: bytes) -> None:
        url, plain = f"{self.url}/moto-api/{what}", {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, data, plain), timeout=10).close()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path_factory.mktemp("moto") / "moto.log")
    yield cloud
    cloud.stop()


@pytest.fixture
def cloud(server: Cloud) -> Cloud:
    server.reset()
    return server


@pytest.fixture
def settings(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "ANTHROPIC_API_KEY", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-own-canary-secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = Settings(home=tmp_path / "home", aws_region=REGION, aws_endpoint_url=cloud.url)
    found.prepare()
    return found


def text(secrets: Secrets, name: str) -> str | None:
    found = secrets.get(name)
    return found.get_secret_value() if found else None


def test_aws_goes_first_and_what_it_lacks_is_looked_for_here(
    cloud: Cloud, settings: Settings
) -> None:
    cloud.put("anthropic-api-key", CANARY + "\n")
    secrets_files.put(settings.secrets, "anthropic-api-key", "from-the-file")
    secrets_files.put(settings.secrets, "github-pat", "pat-from-the-file")
    secrets = Secrets(settings)
    assert text(secrets, "anthropic-api-key") == CANARY
    assert text(secrets, "github-pat") == "pat-from-the-file"
    assert secrets.get("cloudflare-token") is None
    assert [secrets.source(name) for name in ("anthropic-api-key", "github-pat", "x")] == [
        "aws", "file", "none",
    ]  # fmt: skip
    found = secrets.find("anthropic-api-key")
    assert found is not None
    assert found.since is not None
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == CANARY
    assert CANARY not in redact(f"say {CANARY}")
    with pytest.raises(SettingsError, match=r"AWS has no ai-infrastructure/cloudflare-token \(eu-"):
        secrets.need("cloudflare-token")


def test_the_prefix_is_the_owners(cloud: Cloud, settings: Settings) -> None:
    cloud.secrets.create_secret(Name="other/github-pat", SecretString=CANARY)
    other = settings.model_copy(update={"aws_secrets_prefix": "other/"})
    assert text(Secrets(other), "github-pat") == CANARY
    assert text(Secrets(settings), "github-pat") is None


def test_a_json_secret_gives_its_password_and_hides_that_alone(
    cloud: Cloud, settings: Settings
) -> None:
    fields = {"username": "ai_infra", "password": "canary/pg-word", "host": "localhost"}
    cloud.put("postgres", json.dumps(fields))
    remote = settings.model_copy()
    remote.__dict__["postgres_dsn"] = Settings(
        postgres_dsn="postgresql://ai_infra@db/x"
    ).postgres_dsn
    assert remote.postgres == "postgresql://ai_infra:canary%2Fpg-word@db/x"
    assert (
        redact("ai_infra at localhost with canary/pg-word") == "ai_infra at localhost with [secret]"
    )


def test_a_rotated_secret_is_picked_up_and_the_old_one_stays_hidden(
    cloud: Cloud, settings: Settings, tmp_path: Path
) -> None:
    cloud.put("anthropic-api-key", CANARY)
    secrets = Secrets(settings, refresh_s=0.3)
    assert text(secrets, "anthropic-api-key") == CANARY
    cloud.put("anthropic-api-key", CANARY + "-rotated")
    wait_for("the new value", lambda: text(secrets, "anthropic-api-key") == CANARY + "-rotated", 30)
    assert "canary" not in redact(f"{CANARY} {CANARY}-rotated")
    cloud.secrets.delete_secret(
        SecretId="ai-infrastructure/anthropic-api-key", ForceDeleteWithoutRecovery=True
    )
    wait_for("the deletion", lambda: secrets.get("anthropic-api-key") is None, 30)


def test_the_default_is_below_five_minutes() -> None:
    from base import secrets

    assert secrets.REFRESH_S + 2 * (secrets.CONNECT_S + secrets.READ_S) < 300


def test_an_outage_keeps_the_last_value_and_is_told_once(
    cloud: Cloud, settings: Settings, tmp_path: Path
) -> None:
    cloud.put("anthropic-api-key", CANARY)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    log.start("aws", tmp_path / "logs", "debug")
    try:
        secrets = Secrets(settings)
        assert text(secrets, "anthropic-api-key") == CANARY
        cloud.stop()
        for _ in range(3):
            assert not secrets.refresh("anthropic-api-key")
        assert text(secrets, "anthropic-api-key") == CANARY
        cloud.start()
        cloud.put("anthropic-api-key", CANARY + "-after")
        assert secrets.refresh("anthropic-api-key")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        if cloud._process.poll() is not None:
            cloud.start()
    assert text(secrets, "anthropic-api-key") == CANARY + "-after"
    told = (tmp_path / "logs" / "aws.log").read_text()
    assert told.count("secret not refreshed, kept the last") == 1
    assert told.count("secret refreshed again") == 1
    assert "canary" not in told


def test_each_refusal_has_words_of_its_own(
    cloud: Cloud, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.put("github-pat", CANARY)
    cloud.iam.create_user(UserName="agent")
    key = cloud.iam.create_access_key(UserName="agent")["AccessKey"]
    cloud.check_identities(True)

    def refusal() -> str:
        with pytest.raises(SettingsError) as caught:
            Secrets(settings).get("github-pat")
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
        return str(caught.value)

    unknown = refusal()
    assert "does not accept the credentials" in unknown
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    denied = refusal()
    assert "AWS denies reading ai-infrastructure/github-pat" in denied
    assert "secretsmanager:GetSecretValue" in denied
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    nobody = refusal()
    assert "no AWS credentials" in nobody
    away = settings.model_copy(update={"aws_endpoint_url": "http://127.0.0.1:9"})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(SettingsError, match="cannot be reached"):
        Secrets(away).get("github-pat")
    assert len({unknown, denied, nobody}) == 3


def test_credentials_that_up_kept_are_used(
    cloud: Cloud, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.put("github-pat", CANARY)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    own = {"aws_access_key_id": "AKIATEST", "aws_secret_access_key": "canary-of-aws-itself"}
    secrets_files.put(settings.secrets, "aws-credentials", json.dumps(own))
    assert text(Secrets(settings), "github-pat") == CANARY
    assert "canary" not in redact("canary-of-aws-itself")
    secrets_files.put(settings.secrets, "aws-credentials", '{"aws_access_key_id": "x"}')
    with pytest.raises(SettingsError, match="aws-credentials is not what ai-infra up writes"):
        Secrets(settings).get("github-pat")


async def test_the_event_loop_never_waits_for_aws(settings: Settings) -> None:
    """AWS that takes a second to answer; the loop ticks on meanwhile."""
    body = json.dumps({"Name": "x", "SecretString": CANARY}).encode()
    silent = threading.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(1.0)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Content-Type: application/x-amz-json-1.1\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    slow = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = slow.sockets[0].getsockname()[1]
    there = settings.model_copy(update={"aws_endpoint_url": f"http://127.0.0.1:{port}"})
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while not silent.is_set():
            ticks += 1
            await asyncio.sleep(0.02)

    ticking = asyncio.create_task(tick())
    secrets = Secrets(there)
    found = await secrets.fetch("github-pat")
    assert found is not None
    assert found.get_secret_value() == CANARY
    assert ticks >= 10
    began_s = time.monotonic()
    assert await secrets.fetch("github-pat") == found
    assert time.monotonic() - began_s < 0.9
    silent.set()
    await ticking
    slow.close()


def test_boto3_is_loaded_only_when_aws_is_configured(tmp_path: Path) -> None:
    script = (
        "import sys; from base import secrets; from base.settings import Settings; "
        f"s = Settings(home={str(tmp_path)!r}); secrets.prime(s); import base.llm; "
        "print([name for name in ('boto3', 'botocore', 'urllib3') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={}
    )
    assert done.stdout.strip() == "[]"
