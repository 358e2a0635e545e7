"""A canary goes in as a secret and must not come out: of logs, errors, windows, other processes."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from agents.transcript import Transcript
from base import log, secrets_files
from base.deadline import Deadline
from base.errors import ModelError
from base.llm import LLM, Ask
from base.messages import Checked, ModelCall, Verdict
from base.prices import Models
from base.secrets import of
from base.settings import Settings
from supervisor.transcript import Transcript as Window

CANARY = "canary.no.known.shape.0"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("CREDENTIALS_DIRECTORY", "ANTHROPIC_API_KEY", "AI_INFRA_AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    found = Settings(home=tmp_path / "home")
    found.prepare()
    secrets_files.put(found.secrets, "anthropic-api-key", CANARY)
    return found


@pytest.fixture
def logged(settings: Settings) -> Iterator[Path]:
    """The log file of a process that logs everything."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    log.start("shown", settings.logs, "debug")
    yield settings.logs / "shown.log"
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


@asynccontextmanager
async def provider(settings: Settings, keys: list[str], good: str) -> AsyncIterator[LLM]:
    """A model provider that takes one key, and echoes every other in its refusal."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        given = {name.lower(): text for name, text in lines.items()}
        await reader.readexactly(int(given.get("content-length", "0")))
        key = given.get("x-api-key") or given["authorization"].removeprefix("Bearer ")
        keys.append(key)
        status, kind = (
            (400, "invalid_request_error") if key == good else (401, "authentication_error")
        )
        told = {"type": "error", "error": {"type": kind, "message": f"key {key!r} was looked at"}}
        body = json.dumps(told).encode()
        line = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n"
        writer.write(f"{line}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    async def on_call(_call: ModelCall) -> None:
        return

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    there = settings.model_copy(update={"anthropic_base_url": f"http://127.0.0.1:{port}"})
    llm = LLM(there, Models.load(), on_call=on_call, backoff_s=0.001)
    yield llm
    await llm.close()
    server.close()


async def refused(llm: LLM) -> str:
    ask = Ask(
        agent="code", purpose="execute", task_id=None, model="claude-sonnet-4-5", system="",
        messages=[{"role": "user", "content": "x"}],
    )  # fmt: skip
    with pytest.raises(ModelError) as caught:
        await llm.reply(ask, deadline=Deadline.after(20))
    return str(caught.value)


async def test_a_provider_that_echoes_the_key_does_not_spread_it(
    settings: Settings, logged: Path
) -> None:
    keys: list[str] = []
    async with provider(settings, keys, good="") as llm:
        told = await refused(llm)
        logging.getLogger("base").error("ended: %s", told)
    assert keys == [CANARY]
    assert "401" in told
    assert "[secret]" in told
    assert CANARY not in told
    assert CANARY not in logged.read_text()


async def test_a_rotated_key_counts_for_the_next_call(settings: Settings) -> None:
    keys: list[str] = []
    async with provider(settings, keys, good="") as llm:
        await refused(llm)
        secrets_files.put(settings.secrets, "anthropic-api-key", "next-canary-key")
        await refused(llm)
        secrets_files.remove(settings.secrets, "anthropic-api-key")
        await refused(llm)
    assert keys == [CANARY, "next-canary-key", "no-key"]


async def test_a_key_refused_in_the_moment_of_its_rotation_is_no_failure(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []

    def rotate(_name: str) -> bool:
        secrets_files.put(settings.secrets, "anthropic-api-key", "next-canary-key")
        return True

    monkeypatch.setattr(of(settings), "refresh", rotate)
    async with provider(settings, keys, good="next-canary-key") as llm:
        assert "400" in await refused(llm)
    assert keys == [CANARY, "next-canary-key"]


async def test_a_key_that_is_gone_is_told_and_no_rehearsal_steps_in(settings: Settings) -> None:
    async def on_call(_call: ModelCall) -> None:
        return

    llm = LLM(settings, Models.load(), on_call=on_call)
    assert not settings.rehearsal
    await llm.warm()
    secrets_files.remove(settings.secrets, "anthropic-api-key")
    assert "ai-infra secrets set anthropic-api-key" in await refused(llm)
    await llm.close()


def test_logs_hide_it_in_every_place_of_a_line(settings: Settings, logged: Path) -> None:
    assert settings.api_key is not None
    logger = log.get("shown").bind(where=CANARY)
    logger.info(f"said {CANARY}", extra=f"x{CANARY}x", data={"deep": [CANARY]})
    logging.getLogger("library").warning("url %s", f"https://u:{CANARY}@h", extra={"k": CANARY})
    try:
        raise ValueError(f"bad {CANARY}")
    except ValueError:
        logger.exception("died")
    secrets_files.put(settings.secrets, "pass-phrase", 'c:\\a "quoted" ä canary')
    known = of(settings).need("pass-phrase").get_secret_value()
    logger.info("opened", phrase=known)
    logger.info("hunted", line='password="other-canary-1"', quoted='{"token": "third-canary-2"}')
    text = logged.read_text()
    assert text.count("\n") == 5
    assert "canary" not in text
    assert text.count("[secret]") >= 10


def test_botocore_does_not_log_what_it_received(settings: Settings, logged: Path) -> None:
    logging.getLogger("botocore.parsers").debug("Response body: %s", "SecretString-canary")
    logging.getLogger("urllib3.connectionpool").debug("canary")
    assert logged.read_text() == ""


def test_windows_hide_it(settings: Settings) -> None:
    assert settings.api_key is not None
    out, room = io.StringIO(), io.StringIO()
    shown = Transcript(out, plain=True)
    for piece in (
        "the key is ",
        CANARY[:5],
        CANARY[5:12],
        CANARY[12:],
        " and\n",
        "password: ",
        "hunter2x",
    ):
        shown.text(piece)
    shown.tool("shell", f"curl -H 'x-api-key: {CANARY}'")
    shown.tool("shell", f"echo {CANARY}"[:24] + "…")
    shown.result(f"one\n{CANARY}\nGITHUB_TOKEN=ghp_abcdefghij0123456789abcdefghij\n", ok=False)
    shown.criterion(
        Checked(id="ISC-1", text=f"is {CANARY}", verdict=Verdict.PASSED, evidence=CANARY)
    )
    shown.line(f"steer {CANARY}")
    shown.text("at last sk-ant-api03-tail")
    shown.line("end")
    Window(room).tell(f"  planned {CANARY}")
    for text in (out.getvalue(), room.getvalue()):
        assert "[secret]" in text
        for part in ("canary", "ghp_", "hunter2x", "api03"):
            assert part not in text


def test_a_process_that_dies_says_why_without_it(settings: Settings) -> None:
    script = (
        "from base import program\n"
        "async def main(settings, stop):\n"
        "    raise {kind}(f'bad key {{settings.api_key.get_secret_value()}}')\n"
        "from base.errors import BusError\n"
        "program.run('dying', main)\n"
    )
    for kind in ("ValueError", "BusError"):
        done = subprocess.run(
            [sys.executable, "-c", script.format(kind=kind)],
            env={"AI_INFRA_HOME": str(settings.home), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "bad key [secret]" in done.stderr
        assert CANARY not in done.stderr + done.stdout
    assert CANARY not in (settings.logs / "dying.log").read_text()


def test_a_process_whose_key_is_open_to_others_does_not_start(settings: Settings) -> None:
    path = settings.secrets / "anthropic-api-key"
    path.chmod(0o644)
    done = subprocess.run(
        [sys.executable, "-c", "from base import program\nprogram.run('x', None)"],
        env={"AI_INFRA_HOME": str(settings.home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"run: chmod 600 {path}" in done.stderr
