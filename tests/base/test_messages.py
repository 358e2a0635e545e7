"""Messages: there and back unchanged, and nothing wrong gets through."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from base.errors import DecodeError, InputError
from base.messages import (
    SCHEMA,
    Budget,
    Checked,
    Criterion,
    Effort,
    Event,
    Heartbeat,
    Kind,
    Message,
    ModelCall,
    Outcome,
    Pai,
    Phase,
    Probe,
    Status,
    Type,
    Usage,
    Verdict,
    WorkOrder,
    answer_id,
    decode,
    encode,
)

PROBE = Probe(kind="command", command="test -s out.txt")
PAYLOADS: list[BaseModel] = [
    WorkOrder(
        task_id="t",
        root_id="r",
        epoch=3,
        agent="code",
        user_id="u",
        conversation_id="c",
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        instruction="do",
        request="please",
        criteria=(Criterion(id="ISC-1", text="it is there", probe=PROBE),),
        effort=Effort.DEEP,
        budget=Budget(tokens=10, usd=0.5),
        workspace="/w",
    ),
    Outcome(
        task_id="t",
        root_id="r",
        epoch=3,
        agent="code",
        status=Status.COMPLETED,
        criteria=(Checked(id="ISC-1", text="x", verdict=Verdict.UNMEASURED),),
        usage=Usage(model_calls=1, input_tokens=2, cost_usd=0.00000001),
    ),
    Heartbeat(agent="code", pid=1, status="busy", phase=Phase.VERIFY),
    ModelCall(
        id=str(uuid.uuid4()),
        task_id=None,
        agent="code",
        purpose="plan",
        provider="p",
        model="m",
        usage=Usage(),
        latency_ms=1,
    ),
    Event(kind=Kind.CHUNK, agent="code", data={"content": "🦉\u2028\0"}),
]


def _message(**changes: Any) -> Message:
    fields: dict[str, Any] = {"source": "a", "target": "b", "type": Type.TASK}
    return Message(**{**fields, **changes})


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: type(payload).__name__)
def test_there_and_back(payload: BaseModel) -> None:
    pai = Pai(algorithm_phase=Phase.BUILD, learning_signals=({"a": 1},))
    message = _message(payload=payload.model_dump(mode="json"), priority=10, pai=pai)
    back = decode(encode(message))
    assert back == message
    assert back.timestamp.tzinfo is not None
    assert type(payload).model_validate(back.payload) == payload


def test_the_seed_plans_field_names() -> None:
    raw = json.loads(encode(_message()))
    names = {"id", "timestamp", "source", "target", "type", "priority", "payload", "pai", "schema"}
    assert set(raw) == names
    assert raw["schema"] == SCHEMA
    assert set(raw["pai"]) == {"algorithm_phase", "verification_criteria", "learning_signals"}


def test_every_message_has_an_id_of_its_own() -> None:
    assert len({_message().id for _ in range(100)}) == 100


def _with(**changes: Any) -> bytes:
    return json.dumps({**json.loads(encode(_message())), **changes}).encode()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"null", "object"),
        (b"[]", "object"),
        (b"{}", "source"),
        (b'{"source": "a"', "JSON"),
        (b"[" * 100_000, "recursion"),
        (_with(type="order"), "type"),
        (_with(priority=0), "priority"),
        (_with(priority=11), "priority"),
        (_with(priority="high"), "priority"),
        (_with(payload=[]), "payload"),
        (_with(timestamp="yesterday"), "timestamp"),
        (_with(pai={"algorithm_phase": "REST"}), "pai.algorithm_phase"),
        (_with(schema=SCHEMA + 1), "this program reads"),
        (_with(schema=None), "schema"),
    ],
)
def test_what_is_no_message_is_refused_and_kept(raw: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words) as caught:
        decode(raw)
    assert caught.value.raw == raw
    assert len(str(caught.value)) < 300


def test_a_field_of_a_later_version_is_dropped() -> None:
    assert "mood" not in json.loads(encode(decode(_with(mood="good"))))


@pytest.mark.parametrize("value", ["\ud800", b"\xff", object()])
def test_what_json_cannot_say_is_bad_input(value: object) -> None:
    with pytest.raises(InputError, match="cannot be encoded"):
        encode(_message(payload={"a": value}))


def test_messages_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _message().priority = 1


def test_usage_adds_up() -> None:
    one = Usage(model_calls=1, input_tokens=2, output_tokens=3, cache_read_tokens=4, cost_usd=0.5)
    assert one + Usage() == one
    both = one + one
    assert (both.model_calls, both.tokens, both.cost_usd) == (2, 18, 1.0)


def test_ended_states() -> None:
    ended = {status for status in Status if status.ended}
    assert ended == {Status.COMPLETED, Status.FAILED, Status.CANCELLED}


def test_the_answers_id_is_the_same_whoever_computes_it() -> None:
    root = "6f1c1e0e-6d5a-4b5e-9f0a-000000000001"
    assert answer_id(root) == answer_id(root.upper())
    assert answer_id(root) != answer_id(str(uuid.uuid4()))
    assert str(uuid.UUID(answer_id(root))) == answer_id(root)
