"""The timer's question: to a broker's socket, with the real verb behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from base.errors import ConflictError
from base.verbs import CertRenew, Order, Said
from provision.box import Box
from provision.renewal import renew
from provision.verbs import cert_renew


class Answers:
    """One line in, lines out, as the broker does."""

    def __init__(self, box: Box, result: dict[str, Any] | None = None) -> None:
        self._box, self._result = box, result
        self.asked: list[Order] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order = Order.model_validate_json(await reader.readline())
        self.asked.append(order)

        async def tell(step: str) -> None:
            writer.write(Said(id=order.id, step=step).model_dump_json().encode() + b"\n")

        try:
            asked = CertRenew.model_validate(order.request)
            ran = await cert_renew.VERB.run(asked, self._box, order.by, tell)
            said = Said(id=order.id, done=True, ok=True, result=self._result or ran)
        except ConflictError as error:
            said = Said(id=order.id, done=True, error=str(error), kind="ConflictError")
        writer.write(said.model_dump_json().encode() + b"\n")
        await writer.drain()
        writer.close()


async def test_what_the_timer_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = Box(state=tmp_path / "state", letsencrypt=tmp_path / "le", nginx=tmp_path / "nginx")
    socket = tmp_path / "broker.sock"
    assert await renew(socket) == 3
    assert "the root broker cannot be asked" in capsys.readouterr().err
    assert await renew(None) == 1
    assert "needs the appliance" in capsys.readouterr().err
    answers = Answers(box)
    async with await asyncio.start_unix_server(answers, socket):
        assert await renew(socket) == 0
        assert capsys.readouterr().out == "nothing is due\n"
        assert (answers.asked[0].verb, answers.asked[0].by.role) == ("cert.renew", "system")
    failed = {"renewed": [], "failed": {"a.org": "the certificate expires in 2 days"}}
    async with await asyncio.start_unix_server(Answers(box, failed), socket):
        assert await renew(socket) == 1
    assert capsys.readouterr().err == "a.org: the certificate expires in 2 days\n"
