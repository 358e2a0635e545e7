"""The programs in docs/examples do what the documentation says of them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import importlib.util
import os
import sys
import time
from typing import Any

from base.store import Store
from portal import signature
from tests.portal.conftest import REPO, Portal, Stage, free_port, person, soon

EXAMPLES = REPO / "docs" / "examples"


class Wire:
    """A connection between the client and the portal that can be cut, and stays so for a while."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: list[asyncio.StreamWriter] = []
        self._whole = asyncio.Event()
        self._whole.set()
        self.port = free_port()
        self.made = 0

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    def cut(self) -> None:
        """At once, in the middle of whatever is said."""
        self._whole.clear()
        for one in self._open:
            one.transport.abort()
        self._open.clear()

    def mend(self) -> None:
        self._whole.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole.is_set():
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        self.made += 1
        self._open += [writer, back]

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    sink.write(data)
                    await sink.drain()
                sink.close()

        await asyncio.gather(pump(reader, back), pump(there, writer))


async def test_the_websocket_client_loses_and_doubles_nothing(
    portal: Portal, store: Store, stage: Stage
) -> None:
    somebody = await person(portal, store)
    wire = Wire(portal.settings.port)
    server = await wire.serve()
    client = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / "ws_client.py"),
        *("--url", f"http://127.0.0.1:{wire.port}", "how are you?"),
        env={**os.environ, "AI_INFRA_TOKEN": somebody.token},
        stdout=asyncio.subprocess.PIPE,
    )
    assert client.stdout is not None
    output = b""

    async def printed(text: str) -> None:
        nonlocal output
        assert client.stdout is not None
        async with asyncio.timeout(20):
            while not output.decode(errors="ignore").endswith(text):
                piece = await client.stdout.read(4_096)
                assert piece, output
                output += piece

    async def task() -> str:
        ends_s = soon(30)
        sql = "SELECT id FROM tasks WHERE user_id = $1 AND type = 'request'"
        while (found := await store.fetchval(sql, somebody.id)) is None:
            assert time.monotonic() < ends_s
            await asyncio.sleep(0.05)
        return str(found)

    try:
        task_id = await task()
        words = [f"<{n}>" for n in range(40)]
        for seq in range(10):
            await stage.chunk(task_id, seq, words[seq])
        await printed("<9>")
        wire.cut()
        for seq in range(10, 25):
            await stage.chunk(task_id, seq, words[seq])
        wire.mend()
        await printed("<24>")
        for seq in range(25, 40):
            await stage.chunk(task_id, seq, words[seq])
            if seq == 30:
                wire.cut()
                wire.mend()
        await stage.end(task_id, "".join(words))
        async with asyncio.timeout(20):
            output += await client.stdout.read()
            assert await client.wait() == 0
        assert output.decode() == "".join(words) + "\n"
        assert wire.made >= 4, "REST, and the socket three times"
        sql = "SELECT count(*) FROM tasks WHERE user_id = $1 AND type = 'request'"
        assert await store.fetchval(sql, somebody.id) == 1, "asked once"
    finally:
        with contextlib.suppress(ProcessLookupError):
            client.kill()
        server.close()


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_short_one_in_the_text_is_right_too() -> None:
    text = (REPO / "docs" / "webhooks.md").read_text()
    names: dict[str, Any] = {"time": time, "hmac": hmac, "hashlib": hashlib}
    exec(text.partition("```python\n")[2].partition("```")[0], names)
    now_s, verified = int(time.time()), names["verified"]
    assert verified("whsec_x", signature.sign("whsec_x", b"{}", now_s), b"{}")
    assert not verified("whsec_y", signature.sign("whsec_x", b"{}", now_s), b"{}")
    assert not verified("whsec_x", signature.sign("whsec_x", b"{}", now_s - 301), b"{}")


def test_the_webhook_example_believes_only_what_is_ours() -> None:
    verified, now_s = example("verify_webhook").verified, 1_800_000_000
    secret, body = "whsec_x", '{"a": "é"}'.encode()
    ours = signature.sign(secret, body, now_s)
    assert verified(secret, ours, body, now_s + 299)
    assert not verified(secret, ours, body, now_s + 301)
    assert not verified(secret, ours, body, now_s - 301)
    assert not verified(secret, ours, body + b" ", now_s)
    assert not verified("whsec_y", ours, body, now_s)
    later = ours.replace(str(now_s), str(now_s + 100))
    assert not verified(secret, later, body, now_s)
    for wrong in ("", "t=1", "v1=aa", "t=x,v1=y", ours.partition(",")[0], f"t={now_s},v1=é"):
        assert not verified(secret, wrong, body, now_s)


def test_an_answer_that_starts_anew_is_printed_anew() -> None:
    answer = example("ws_client").Answer()
    chunk = {"attempt": 1, "content": "ab"}
    assert answer.take(chunk) == "ab"
    assert answer.take(chunk | {"attempt": 2, "content": "x"}) == "\n[starts anew]\nx"
    assert answer.take(chunk) == "", "a late piece of the first attempt"
    assert answer.end({"content": "xyz"}) == "yz"
    assert answer.end({"content": "other"}) == "\nother"
