"""What makes a stream of events a reply, by tables of histories."""

from __future__ import annotations

import json
from typing import Any

import pytest

from base.reply import CutError, Draft, StreamError

START = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 3}}}
STOP = {"type": "message_stop"}


def block(index: int, first: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": first},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(index: int, *pieces: str) -> list[dict[str, Any]]:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return block(index, {"type": "text", "text": "", "citations": None}, *deltas)


def tool(index: int, *pieces: str) -> list[dict[str, Any]]:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    first = {"type": "tool_use", "id": f"t{index}", "name": "write", "input": {}, "caller": None}
    return block(index, first, *deltas)


def end(reason: str | None) -> dict[str, Any]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 9}}


def drafted(*events: dict[str, Any]) -> Draft:
    draft = Draft()
    for event in events:
        draft.take(json.dumps(event))
    return draft


def test_a_whole_reply() -> None:
    draft = drafted(START, *text(0, "Wri", "ting"), *tool(1, '{"a', '": 1}'), end("tool_use"), STOP)
    content, calls, reason = draft.finish()
    assert content == [
        {"type": "text", "text": "Writing"},
        {"type": "tool_use", "id": "t1", "name": "write", "input": {"a": 1}},
    ]
    assert [(call.id, call.name, call.input) for call in calls] == [("t1", "write", {"a": 1})]
    assert reason == "tool_use"
    assert draft.counts == {"input_tokens": 3, "output_tokens": 9}


def test_a_tool_without_arguments_is_whole() -> None:
    for pieces in ((), ("",), ("{}",)):
        _, (call,), _ = drafted(START, *tool(0, *pieces), end("tool_use"), STOP).finish()
        assert call.input == {}


def test_blank_text_does_not_go_back() -> None:
    content, (call,), _ = drafted(
        START, *text(0, "\n", "\n "), *tool(1, "{}"), end("tool_use"), STOP
    ).finish()
    assert content == [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": {}},
    ]


def test_thinking_goes_back_as_it_came_and_empty_text_does_not() -> None:
    thought = block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "hm"},
        {"type": "signature_delta", "signature": "xyz"},
    )
    unknown = block(2, {"type": "redacted_thinking", "data": "abc"})
    content, _, _ = drafted(START, *thought, *text(1), *unknown, end("end_turn"), STOP).finish()
    assert content == [
        {"type": "thinking", "thinking": "hm", "signature": "xyz"},
        {"type": "redacted_thinking", "data": "abc"},
    ]


@pytest.mark.parametrize(
    "events",
    [
        [],
        [START],
        [START, *text(0, "x")],
        [START, *text(0, "x"), end("end_turn")],
        [START, *text(0, "x"), STOP],
        [START, *text(0, "x"), end(None), STOP],
        [*text(0, "x"), end("end_turn"), STOP],
        [START, *tool(0, '{"a": '), end("tool_use"), STOP],
        [START, *tool(0, "[1]"), end("tool_use"), STOP],
        [START, *tool(0, "null"), end("tool_use"), STOP],
        [START, *tool(0, '{"a": 1}')[:-1], end("tool_use"), STOP],
        [START, *tool(0)[:-1], end("end_turn"), STOP],
        [START, *text(0, "x"), end("tool_use"), STOP],
    ],
)
def test_anything_less_is_cut(events: list[dict[str, Any]]) -> None:
    with pytest.raises(CutError):
        drafted(*events).finish()


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded"])
def test_a_limit_leaves_the_text_and_no_calls(reason: str) -> None:
    events = [START, *text(0, "x"), *tool(1, '{"a": 1}'), *tool(2, '{"a'), end(reason), STOP]
    content, calls, found = drafted(*events).finish()
    assert (content, calls, found) == ([{"type": "text", "text": "x"}], (), reason)


@pytest.mark.parametrize(
    "data",
    ["{", "[]", "3", "{}", '{"type": "content_block_delta", "index": 7, "delta": {"type": "x"}}'],
)
def test_malformed_events_are_cut(data: str) -> None:
    with pytest.raises(CutError, match="malformed"):
        drafted(START).take(data)


def test_unknown_events_are_passed_over() -> None:
    draft = drafted(START, {"type": "news"}, *text(0, "x"), end("end_turn"), STOP)
    assert draft.finish()[0] == [{"type": "text", "text": "x"}]


def test_an_error_event_is_told_with_its_code() -> None:
    error = {"type": "overloaded_error", "message": "busy", "details": {"error_code": "c"}}
    with pytest.raises(StreamError, match="busy") as caught:
        drafted(START, {"type": "error", "error": error})
    assert (caught.value.kind, caught.value.code) == ("overloaded_error", "c")
