"""The model client against a real rehearsal server: whole replies, retries, and no for good."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from base import metrics
from base.deadline import Deadline
from base.errors import ModelError, SpendLimitError
from base.llm import LLM, Ask
from base.messages import ModelCall, Usage
from base.prices import Models
from base.settings import Settings

MODEL = "claude-sonnet-5-5"
WRITE = {
    "name": "write",
    "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}},
}
CALL = {"say": "Writing.", "tool": "write", "input": {"path": "x" * 200}}


class Rig:
    """An LLM with quick retries that keeps what was reported."""

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self.calls: list[ModelCall] = []
        self.pieces: list[tuple[str, int]] = []
        self.task = str(uuid.uuid4())

    def ask(self, *lines: Any, **more: Any) -> Ask:
        written = "\n".join(json.dumps(line) for line in lines)
        said = f"Please.\n```rehearsal\n{written}\n```"
        whole: dict[str, Any] = {
            "agent": "code",
            "purpose": "execute",
            "task_id": self.task,
            "model": MODEL,
            "system": "You are code.",
            "messages": [{"role": "user", "content": said}],
            "tools": [WRITE],
        }
        return Ask(**whole | more)

    async def on_call(self, call: ModelCall) -> None:
        self.calls.append(call)

    async def on_text(self, piece: str, attempt: int) -> None:
        self.pieces.append((piece, attempt))

    async def reply(self, *lines: Any, seconds_s: float = 30, **more: Any) -> Any:
        return await self.llm.reply(
            self.ask(*lines, **more), on_text=self.on_text, deadline=Deadline.after(seconds_s)
        )

    def text(self, attempt: int) -> str:
        return "".join(piece for piece, number in self.pieces if number == attempt)


def settings(url: str, home: Path, **more: Any) -> Settings:
    return Settings(home=home, anthropic_base_url=url, **more)


@pytest.fixture
async def rig(rehearsal_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    async def later(call: ModelCall) -> None:
        await one.on_call(call)

    ours = settings(rehearsal_url, tmp_path, model_silence_s=0.7)
    llm = LLM(ours, Models.load(), on_call=later, backoff_s=0.01)
    one = Rig(llm)
    yield one
    await llm.close()


async def test_a_reply_is_whole_and_streamed(rig: Rig) -> None:
    reply = await rig.reply({"say": "Good day, " * 10})
    assert reply.text == "Good day, " * 10 == rig.text(1)
    assert len(rig.pieces) > 1
    assert (reply.stop_reason, reply.tool_calls, reply.model) == ("end_turn", (), MODEL)
    assert reply.content == [{"type": "text", "text": reply.text}]
    (call,) = rig.calls
    assert (call.task_id, call.agent, call.purpose) == (rig.task, "code", "execute")
    assert (call.provider, call.model, call.usage) == ("127.0.0.1", MODEL, reply.usage)
    assert call.usage.output_tokens == 25
    assert call.usage.cost_usd == Models.load().cost(MODEL, call.usage) > 0


async def test_tool_calls_go_round_and_the_caller_s_lists_are_not_touched(rig: Rig) -> None:
    ask = rig.ask(CALL, {"say": "done"})
    before = json.dumps([ask.messages, ask.tools])
    reply = await rig.llm.reply(ask, deadline=Deadline.after(10))
    assert json.dumps([ask.messages, ask.tools]) == before
    (call,) = reply.tool_calls
    assert (call.name, call.input) == ("write", CALL["input"])
    assert reply.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "ok"}
    turns = [
        *ask.messages,
        {"role": "assistant", "content": reply.content},
        {"role": "user", "content": [result]},
    ]
    assert (await rig.reply(messages=turns)).text == "done"


async def test_a_forced_tool_is_called(rig: Rig) -> None:
    reply = await rig.reply({"for": "planner", "plan": {"path": "a"}}, purpose="plan",
                            force_tool="write", model="claude-sonnet-4-5")  # fmt: skip
    assert [call.input for call in reply.tool_calls] == [{"path": "a"}]


@pytest.mark.parametrize("model", [MODEL, "claude-opus-5-5", "claude-fable-5-1"])
async def test_a_model_that_always_thinks_is_only_offered_the_tool(rig: Rig, model: str) -> None:
    plan = {**WRITE, "name": "make_plan"}
    reply = await rig.reply({"for": "planner", "plan": {"path": "a"}}, purpose="plan",
                            tools=[plan], force_tool="make_plan", model=model)  # fmt: skip
    assert [call.input for call in reply.tool_calls] == [{"path": "a"}]


async def test_the_prefix_is_cached_and_counted_apart(rig: Rig) -> None:
    system = f"{uuid.uuid4()} " + "word " * 2000
    first = (await rig.reply({"say": "a"}, system=system)).usage
    assert first.cache_write_tokens > 2000
    assert first.cache_read_tokens == 0
    second = (await rig.reply({"say": "b"}, system=system)).usage
    assert second.cache_read_tokens > 2000
    assert second.cost_usd < first.cost_usd / 5


@pytest.mark.parametrize("fault", ["429", "500", "502", "503", "504", "529"])
async def test_refusals_for_now_are_retried(rig: Rig, fault: str) -> None:
    reply = await rig.reply({"fault": fault, "times": 4}, {"say": "at last"})
    assert reply.text == "at last"
    assert len(rig.calls) == 1, "a refused attempt consumed nothing"
    assert rig.text(5) == "at last"


async def test_five_attempts_are_the_most(rig: Rig) -> None:
    with pytest.raises(
        ModelError, match=r"failed 5 times; last: the model answered 529 .*"
    ) as told:
        await rig.reply({"fault": "529", "times": 5}, {"say": "too late"})
    assert "\n" not in str(told.value)
    assert (await rig.reply({"fault": "529", "times": 5}, {"say": "too late"})).text == "too late"


@pytest.mark.parametrize("fault", ["cut", "truncated", "malformed", "overloaded", "silence"])
async def test_a_broken_stream_is_never_acted_upon(rig: Rig, fault: str) -> None:
    reply = await rig.reply({"fault": fault, "times": 2, **_long(fault)}, CALL)
    assert [call.input for call in reply.tool_calls] == [CALL["input"]]
    assert [rig.text(attempt) for attempt in (1, 2, 3)] == ["Writing."] * 3
    assert len(rig.calls) == 3, "broken attempts consumed tokens, too"
    assert all(call.usage.output_tokens > 1 for call in rig.calls)
    assert reply.usage == sum((call.usage for call in rig.calls), Usage())


def _long(fault: str) -> dict[str, float]:
    return {"seconds_s": 30} if fault == "silence" else {}


@pytest.mark.parametrize(
    ("fault", "told"),
    [("400", "400 invalid_request_error"), ("401", "401 authentication_error"), ("413", "413")],
)
async def test_no_for_good_is_not_retried(rig: Rig, fault: str, told: str) -> None:
    with pytest.raises(ModelError, match=told) as caught:
        await rig.reply({"fault": fault}, {"say": "next"})
    assert not isinstance(caught.value, SpendLimitError)
    assert (await rig.reply({"fault": fault}, {"say": "next"})).text == "next"


@pytest.mark.parametrize("fault", ["spend_limit", "402"])
async def test_a_spend_limit_is_not_retried(rig: Rig, fault: str) -> None:
    lines = ({"fault": fault, "times": 2}, {"say": "paid"})
    for _ in range(2):
        with pytest.raises(SpendLimitError, match="spend limit"):
            await rig.reply(*lines)
    assert (await rig.reply(*lines)).text == "paid"


async def test_retry_after_is_honoured(rig: Rig) -> None:
    began = time.monotonic()
    await rig.reply({"fault": "429", "retry_after_s": 0.6}, {"say": "later"})
    assert time.monotonic() - began >= 0.6


async def test_no_wait_beyond_the_deadline(rig: Rig) -> None:
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"before the deadline.*429"):
        await rig.reply({"fault": "429", "retry_after_s": 60}, {"say": "x"}, seconds_s=5)
    assert time.monotonic() - began < 4
    with pytest.raises(ModelError, match="before the deadline"):
        await rig.reply({"say": "x"}, seconds_s=-1)


async def test_a_slow_answer_ends_at_the_deadline(rig: Rig) -> None:
    with pytest.raises(ModelError, match="before the deadline"):
        await rig.reply({"say": "x" * 400, "chunk_ms": 200}, seconds_s=1)
    assert len(rig.calls) == 1


async def test_a_cancelled_call_is_recorded(rig: Rig) -> None:
    asked = asyncio.create_task(rig.reply({"say": "x" * 400, "chunk_ms": 200}))
    while not rig.pieces:
        await asyncio.sleep(0.02)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert len(rig.calls) == 1


async def test_max_tokens_leaves_no_half_call(rig: Rig) -> None:
    reply = await rig.reply({**CALL, "stop_reason": "max_tokens"})
    assert (reply.stop_reason, reply.text, reply.tool_calls) == ("max_tokens", "Writing.", ())
    assert reply.content == [{"type": "text", "text": "Writing."}]
    with pytest.raises(ModelError, match="write did not fit into 8192 tokens"):
        await rig.reply({**CALL, "stop_reason": "max_tokens"}, force_tool="write")


async def test_a_missing_count_is_an_error_in_the_log_and_no_zero(rig: Rig) -> None:
    with capture_logs() as logs:
        reply = await rig.reply({"say": "word " * 20, "usage": "missing"})
    assert [log["event"] for log in logs if log["log_level"] == "error"] == ["usage was missing"]
    assert reply.usage.input_tokens > 10
    assert reply.usage.output_tokens > 20
    assert reply.usage.cost_usd > 0


async def test_an_unknown_model_is_priced_dearest_and_said_once(rig: Rig) -> None:
    with capture_logs() as logs:
        first = await rig.reply({"say": "x"}, model="nobody-1")
        await rig.reply({"say": "x"}, model="nobody-1")
    dearest = Models.load().cost("claude-fable-5-1", first.usage)
    assert first.usage.cost_usd == pytest.approx(dearest)
    assert [log["model"] for log in logs if "no price" in log["event"]] == ["nobody-1"]


async def test_calls_are_counted(rig: Rig) -> None:
    def total(metric: Any, *labels: str) -> float:
        return float(metric.labels("127.0.0.1", MODEL, *labels)._value.get())

    before = total(metrics.llm_tokens_total, "output"), total(metrics.llm_cost_dollars_total)
    usage = (await rig.reply({"say": "x", "usage": {"output_tokens": 1000}})).usage
    assert total(metrics.llm_tokens_total, "output") == before[0] + 1000
    assert total(metrics.llm_cost_dollars_total) == pytest.approx(before[1] + usage.cost_usd)


async def test_nobody_at_the_address_is_retried_and_named(tmp_path: Path) -> None:
    calls: list[ModelCall] = []

    async def on_call(call: ModelCall) -> None:
        calls.append(call)

    llm = LLM(settings("http://127.0.0.1:9", tmp_path), Models.load(), on_call=on_call,
              backoff_s=0.001)  # fmt: skip
    with pytest.raises(ModelError, match=r"5 times; last: cannot reach the model at http://127"):
        await llm.reply(Rig(llm).ask({"say": "x"}), deadline=Deadline.after(30))
    assert calls == []
    await llm.close()


async def test_the_key_comes_from_our_settings_alone(
    rehearsal_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "somebody else's")
    (tmp_path / "secrets").mkdir()
    kept = tmp_path / "secrets" / "anthropic-api-key"
    kept.write_text("ours\n")
    kept.chmod(0o600)

    async def on_call(call: ModelCall) -> None:
        return

    llm = LLM(settings(rehearsal_url, tmp_path), Models.load(), on_call=on_call)
    await llm.warm()
    await llm.warm()
    await llm.reply(Rig(llm).ask({"say": "x"}), deadline=Deadline.after(10))
    client: Any = llm._client
    assert (client.api_key, client.auth_token, client.max_retries) == ("ours", None, 0)
    await llm.close()


async def test_rehearsal_is_the_provider_without_a_key(
    rehearsal_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    found: list[ModelCall] = []

    async def on_call(call: ModelCall) -> None:
        found.append(call)

    port = int(rehearsal_url.rpartition(":")[2])
    llm = LLM(Settings(home=tmp_path, rehearsal_port=port), Models.load(), on_call=on_call)
    await llm.reply(Rig(llm).ask({"say": "x"}), deadline=Deadline.after(10))
    assert found[0].provider == "rehearsal"
    await llm.close()
