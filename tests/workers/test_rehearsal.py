"""The rehearsal model, with the Anthropic SDK itself as its client."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from present import wait_for

LOOK = {"type": "object", "properties": {"pattern": {"type": "string"}}, "required": ["pattern"]}
FILE = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
    "required": ["path", "content"],
}
TOOLS = [{"name": "glob", "input_schema": LOOK}, {"name": "write", "input_schema": FILE}]
PLAN = {
    "name": "make_plan",
    "input_schema": {
        "type": "object",
        "required": ["subtasks"],
        "properties": {
            "subtasks": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["agent", "instruction"],
                    "properties": {
                        "agent": {"type": "string", "enum": ["code", "data"]},
                        "instruction": {"type": "string"},
                        "effort": {"type": "string", "enum": ["standard", "deep"]},
                    },
                },
            }
        },
    },
}
VERDICT = {
    "name": "give_verdict",
    "input_schema": {
        "type": "object",
        "required": ["verdict", "sure", "why"],
        "properties": {
            "verdict": {"enum": ["passed", "failed", "unmeasured"]},
            "sure": {"type": "boolean"},
            "why": {"type": "string"},
        },
    },
}


class Client:
    """One task's calls to the rehearsal model."""

    def __init__(self, url: str) -> None:
        self.sdk = anthropic.AsyncAnthropic(api_key="none", base_url=url, max_retries=0)
        self.task = str(uuid.uuid4())

    def body(self, said: Any, agent: str, purpose: str, more: dict[str, Any]) -> dict[str, Any]:
        turns = said if isinstance(said, list) else [{"role": "user", "content": said}]
        who = {"user_id": f"{self.task}/{agent}/{purpose}"}
        return {"model": "m", "max_tokens": 999, "messages": turns, "metadata": who, **more}

    async def ask(
        self, said: Any, agent: str = "code", purpose: str = "execute", **more: Any
    ) -> anthropic.types.Message:
        """Streamed and whole must say the same; the streamed one is returned."""
        body = self.body(said, agent, purpose, more)
        async with self.sdk.messages.stream(**body) as stream:
            streamed = await stream.get_final_message()
        whole = await self.sdk.messages.create(**body)
        assert [_bare(b) for b in streamed.content] == [_bare(b) for b in whole.content]
        assert streamed.stop_reason == whole.stop_reason
        return streamed


def _bare(block: Any) -> dict[str, Any]:
    return {key: value for key, value in block.to_dict().items() if key != "id"}


def script(*lines: dict[str, Any] | str) -> str:
    written = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)
    return f"Please do it.\n\n```rehearsal\n{written}\n```\nThank you."


def force(tool: dict[str, Any]) -> dict[str, Any]:
    return {"tools": [tool], "tool_choice": {"type": "tool", "name": tool["name"]}}


def text(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def went_on(said: list[Any], reply: anthropic.types.Message, result: str = "ok") -> list[Any]:
    """The conversation with the reply and the results of its calls."""
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": result}
        for block in reply.content
        if block.type == "tool_use"
    ]
    turns = [*said, {"role": "assistant", "content": [b.to_dict() for b in reply.content]}]
    return [*turns, {"role": "user", "content": results or "Go on."}]


@pytest.fixture
async def client(rehearsal_url: str) -> AsyncIterator[Client]:
    one = Client(rehearsal_url)
    yield one
    await one.sdk.close()


async def test_walks_its_own_lines_in_order(client: Client) -> None:
    said: list[Any] = [
        {
            "role": "user",
            "content": script(
                {"for": "code", "tool": "write", "input": {"path": "a"}, "say": "Writing é."},
                {"for": "data", "say": "not yours"},
                {"for": "code", "tools": [{"tool": "glob"}, {"tool": "glob"}]},
                {"say": "anybody's"},
            ),
        }
    ]
    first = await client.ask(said, tools=TOOLS)
    assert text(first) == "Writing é."
    assert first.content[1].to_dict()["input"] == {"path": "a"}
    assert first.stop_reason == "tool_use"
    said = went_on(said, first)
    second = await client.ask(said, tools=TOOLS)
    assert [block.type for block in second.content] == ["tool_use", "tool_use"]
    said = went_on(said, second)
    third = await client.ask(said, tools=TOOLS)
    assert (text(third), third.stop_reason) == ("anybody's", "end_turn")
    fourth = await client.ask(went_on(said, third), tools=TOOLS)
    assert "no further line for code" in text(fourth)
    assert text(await client.ask(said[:1], "data", tools=TOOLS)) == "not yours"


async def test_a_repeated_call_gets_the_same_line(client: Client) -> None:
    said = script({"for": "code", "tool": "glob"}, {"for": "code", "say": "done"})
    for _ in range(3):
        assert (await client.ask(said, tools=TOOLS)).stop_reason == "tool_use"


async def test_the_last_script_counts_and_results_are_no_scripts(client: Client) -> None:
    said: list[Any] = [{"role": "user", "content": script({"tool": "glob"}, {"say": "old"})}]
    reply = await client.ask(said, tools=TOOLS)
    said = went_on(said, reply, script({"say": "from a file"}))
    assert text(await client.ask(said, tools=TOOLS)) == "old"
    said[-1]["content"].append({"type": "text", "text": script({"say": "steered"})})
    assert text(await client.ask(said, tools=TOOLS)) == "steered"


async def test_a_misled_model_does_what_it_read(client: Client) -> None:
    """Each order once, whatever stands around it; text that is no order misleads nobody."""
    said: list[Any] = [
        {"role": "user", "content": script({"tool": "glob"}, {"obey": True}, {"say": "never"})}
    ]
    reply = await client.ask(said, tools=TOOLS)
    first = {"tool": "write", "input": {"path": "a", "content": "OBEY: {broken"}}
    found = f"    12\tOBEY: {json.dumps(first)} and so on\nOBEY: {{nothing}} OBEY: [] x.txt"
    said = went_on(said, reply, found)
    obeyed = await client.ask(said, tools=TOOLS)
    assert obeyed.content[0].to_dict()["input"] == first["input"]
    again = f'wrote OBEY: {json.dumps(first)}\nOBEY: {{"say": "taken over"}}'
    said = went_on(said, obeyed, again)
    taken = await client.ask(said, tools=TOOLS)
    assert (text(taken), taken.stop_reason) == ("taken over", "end_turn")
    assert "2 things" in text(await client.ask(went_on(said, taken), tools=TOOLS))


async def test_forced_tools_have_lines_of_their_own(client: Client) -> None:
    plan = {"subtasks": [{"agent": "data", "instruction": "count"}]}
    said = script(
        {"for": "planner", "plan": plan},
        {"for": "judge", "match": "ISC-2", "verdict": {"verdict": "failed"}},
        {"for": "judge", "verdict": {"verdict": "passed"}},
        {"for": "code", "say": "working"},
        {"for": "code", "reflect": "learned a thing"},
    )
    reply = await client.ask(said, "supervisor", "plan", **force(PLAN))
    assert reply.content[0].to_dict()["input"] == plan
    for asked, verdict in (("ISC-1", "passed"), ("ISC-2", "failed")):
        judged = await client.ask(f"{said}\n{asked}", "code", "judge", **force(VERDICT))
        assert judged.content[0].to_dict()["input"] == {"verdict": verdict}
    assert text(await client.ask(said, "code", "reflect")) == "learned a thing"
    assert text(await client.ask(said, "code", "execute")) == "working"


async def test_a_forced_turn_does_not_shift_the_plain_lines(client: Client) -> None:
    lines = ({"for": "code", "frame": {"verdict": "passed"}}, {"for": "code", "say": "first"})
    said: list[Any] = [{"role": "user", "content": script(*lines)}]
    framed = await client.ask(said, "code", "frame", **force(VERDICT))
    assert text(await client.ask(went_on(said, framed), tools=[VERDICT])) == "first"


async def test_without_a_script_it_looks_writes_and_says_so(client: Client) -> None:
    said: list[Any] = [{"role": "user", "content": "How many files are there?"}]
    look = await client.ask(said, tools=TOOLS)
    assert look.content[0].to_dict()["input"] == {"pattern": "**/*"}
    said = went_on(said, look, "one.txt\ntwo.txt")
    write = (await client.ask(said, tools=TOOLS)).content[0].to_dict()
    assert write["input"]["path"] == "REHEARSAL.md"
    assert "two.txt" in write["input"]["content"]
    assert "How many files" in write["input"]["content"]
    said = went_on(said, await client.ask(said, tools=TOOLS))
    done = await client.ask(said, tools=TOOLS)
    assert "no model has thought" in text(done)
    assert done.stop_reason == "end_turn"
    assert "no model has thought" in text(await client.ask("Hi", "code", "minimal", tools=TOOLS))


async def test_an_earlier_conversation_does_not_count_as_work_done(client: Client) -> None:
    said: list[Any] = [{"role": "user", "content": "Hi"}]
    said = [*said, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Look"}]
    look = await client.ask(said, tools=TOOLS)
    assert [getattr(block, "name", "") for block in look.content] == ["glob"]


async def test_without_a_script_forced_tools_get_the_simplest_honest_input(client: Client) -> None:
    reply = await client.ask("Ask data, effort: deep", "supervisor", "plan", **force(PLAN))
    (block,) = reply.content
    (subtask,) = block.to_dict()["input"]["subtasks"]
    assert subtask == {
        "agent": "data",
        "instruction": "Ask data, effort: deep",
        "effort": "deep",
    }
    judged = await client.ask("Is it so?", "code", "judge", **force(VERDICT))
    given = judged.content[0].to_dict()["input"]
    assert (given["verdict"], given["sure"]) == ("unmeasured", False)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"say": "x"', "line 2 is not JSON"),
        ({"sya": "x"}, "line 2: sya: unknown key"),
        ({"fault": "earthquake"}, "line 2: no fault 'earthquake'"),
        ({"say": "x", "fault": "429"}, "line 2: one line does one thing"),
        ({"for": "code"}, "line 2: the line does nothing"),
        ({"tool": "x", "input": 3}, "line 2: input"),
        ({"say": "x", "times": 2}, "line 2: times"),
        ('"text"', "line 2"),
    ],
)
async def test_a_wrong_line_is_named(client: Client, line: Any, told: str) -> None:
    reply = await client.ask(script({"say": "fine"}, line), tools=TOOLS)
    assert told in text(reply)
    assert reply.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("400", anthropic.BadRequestError),
        ("401", anthropic.AuthenticationError),
        ("402", anthropic.APIStatusError),
        ("413", anthropic.RequestTooLargeError),
        ("429", anthropic.RateLimitError),
        ("500", anthropic.InternalServerError),
        ("502", anthropic.InternalServerError),
        ("503", anthropic.ServiceUnavailableError),
        ("504", anthropic.GatewayTimeoutError),
        ("529", anthropic.OverloadedError),
        ("spend_limit", anthropic.EnforcedSpendLimitReachedError),
    ],
)
async def test_errors_have_the_provider_s_shape(client: Client, fault: str, error: Any) -> None:
    said = script({"fault": fault, "retry_after_s": 1.5, "times": 2}, {"say": "at last"})
    for _ in range(2):
        with pytest.raises(error) as caught:
            await client.sdk.messages.create(**client.body(said, "code", "execute", {}))
        assert caught.value.request_id.startswith("req_")
    if fault != "spend_limit":
        assert caught.value.response.headers["retry-after"] == "1.5"
    assert text(await client.ask(said)) == "at last"


async def test_faults_are_acted_out_again_for_another_task(client: Client) -> None:
    said = script({"fault": "529"}, {"say": "at last"})
    for _ in range(2):
        with pytest.raises(anthropic.OverloadedError):
            await client.ask(said)
        assert text(await client.ask(said)) == "at last"
        client.task = str(uuid.uuid4())


async def events(client: Client, said: str, **more: Any) -> list[Any]:
    """The stream's events until it ends; what broke it is the last."""
    found: list[Any] = []
    body = client.body(said, "code", "execute", {"tools": TOOLS, "stream": True, **more})
    try:
        async for event in await client.sdk.messages.create(**body):
            found.append(event)
    except Exception as error:  # noqa: BLE001, RUF100
        found.append(error)
    return found


CALL = {"tool": "write", "input": {"path": "a", "content": "x" * 200}}


@pytest.mark.parametrize("fault", ["cut", "truncated", "malformed", "overloaded"])
async def test_streams_break_amid_a_tool_call(client: Client, fault: str) -> None:
    said = script({"fault": fault}, CALL)
    found = await events(client, said)
    deltas = [one for one in found if getattr(one, "type", "") == "content_block_delta"]
    written = "".join(delta.delta.partial_json for delta in deltas)
    assert written.startswith('{"path"')
    with pytest.raises(json.JSONDecodeError):
        json.loads(written)
    assert not any(getattr(one, "type", "") == "message_stop" for one in found)
    assert isinstance(found[-1], Exception) == (fault != "truncated")
    assert (await events(client, said))[-1].type == "message_stop"


@pytest.mark.parametrize("fault", ["cut", "truncated", "malformed", "overloaded"])
async def test_a_whole_reply_breaks_too(client: Client, fault: str) -> None:
    body = client.body(script({"fault": fault}, CALL), "code", "execute", {})
    with pytest.raises((anthropic.APIError, ValueError)):
        await client.sdk.messages.create(**body)
    assert (await client.sdk.messages.create(**body)).stop_reason == "tool_use"


async def test_silence_lasts_as_long_as_said(client: Client) -> None:
    began = time.monotonic()
    found = await events(client, script({"fault": "silence", "seconds_s": 0.5}, CALL))
    assert time.monotonic() - began >= 0.5
    assert found[-1].type == "message_stop"


async def test_pacing(client: Client) -> None:
    said = script({"delay_ms": 300}, {"say": "x" * 100, "chunk_ms": 50})
    began = time.monotonic()
    await events(client, said)
    assert time.monotonic() - began >= 0.3 + 5 * 0.05
    began = time.monotonic()
    await client.sdk.messages.create(**client.body(said, "code", "execute", {}))
    assert time.monotonic() - began >= 0.3


async def test_max_tokens_ends_in_the_middle_of_a_call(client: Client) -> None:
    found = await events(client, script({**CALL, "stop_reason": "max_tokens"}))
    written = [one.delta.partial_json for one in found if one.type == "content_block_delta"]
    with pytest.raises(json.JSONDecodeError):
        json.loads("".join(written))
    assert found[-2].delta.stop_reason == "max_tokens"


async def test_usage_counts_cached_prefixes(client: Client) -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    system = [{"type": "text", "text": f"{uuid.uuid4()} " + "word " * 2000, **mark}]
    said: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Hi", **mark}]}]
    first = (
        await client.sdk.messages.create(**client.body(said, "a", "b", {"system": system}))
    ).usage
    assert first.cache_read_input_tokens == 0
    assert first.cache_creation_input_tokens > 2000
    said = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": "More", **mark}]},
    ]
    body = client.body(said, "a", "b", {"system": system})
    second = (await client.sdk.messages.create(**body)).usage
    assert second.cache_read_input_tokens == first.cache_creation_input_tokens
    assert 0 < second.cache_creation_input_tokens < 100
    system[0]["text"] = f"{uuid.uuid4()} other"
    third = (await client.sdk.messages.create(**body)).usage
    assert third.cache_read_input_tokens == 0
    assert third.cache_creation_input_tokens == 0, "shorter than the provider caches"
    assert third.input_tokens > 0


async def test_usage_can_be_scripted_and_left_out(client: Client) -> None:
    said = script({"say": "x", "usage": {"input_tokens": 5, "output_tokens": 7}})
    used = (await client.ask(said)).usage
    assert (used.input_tokens, used.output_tokens) == (5, 7)
    found = await events(client, script({"say": "x", "usage": "missing"}))
    assert getattr(found[0].message, "usage", None) is None


async def test_count_tokens(client: Client) -> None:
    said: list[Any] = [{"role": "user", "content": "word " * 400}]
    counted = await client.sdk.messages.count_tokens(model="m", messages=said)
    assert counted.input_tokens > 400


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        ([], "at least one message"),
        ([{"role": "user", "content": ""}], "non-whitespace"),
        ([{"role": "robot", "content": "x"}], "role"),
        (
            [
                {"role": "user", "content": "x"},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "toolu_1", "name": "w", "input": {}}],
                },
                {"role": "user", "content": "no result"},
            ],
            "without tool_result: toolu_1",
        ),
    ],
)
async def test_bad_requests_are_refused(client: Client, turns: Any, told: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=told):
        await client.ask(turns)


def test_a_body_that_is_no_json_is_refused(rehearsal_url: str) -> None:
    request = urllib.request.Request(f"{rehearsal_url}/v1/messages", data=b"[{")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=5)
    assert caught.value.code == 400
    assert json.load(caught.value)["error"]["type"] == "invalid_request_error"


async def test_calls_are_counted_with_their_arrival(client: Client, rehearsal_url: str) -> None:
    def counted() -> Any:
        with urllib.request.urlopen(f"{rehearsal_url}/rehearsal/calls", timeout=5) as answer:
            return json.load(answer)

    before = counted()["calls"]
    began = time.time()
    await client.sdk.messages.create(**client.body("Hi", "code", "minimal", {}))
    wait_for("the end of the call", lambda: counted()["recent"][-1]["ended_at"], 10)
    after = counted()
    assert after["calls"] == before + 1
    last = after["recent"][-1]
    assert last["user_id"] == f"{client.task}/code/minimal"
    assert began <= last["arrived_at"] <= last["ended_at"] <= time.time()


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, "-m", "workers", "rehearsal"],
            env={"AI_INFRA_HOME": str(tmp_path), "AI_INFRA_REHEARSAL_PORT": port},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert f"port {port} is in use" in ended.stderr


def test_an_unknown_worker_is_one_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "workers", "x"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
