"""What a hook's exit code and words mean, event by event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pai.hook_answer import CONTEXT_CHARS, Ran, verdict
from pai.hooks import Event, Hook, Verdict

BLOCKS = (Event.PRE_TOOL_USE, Event.USER_PROMPT_SUBMIT, Event.STOP, Event.PRE_COMPACT)
SHOWS = (Event.SESSION_START, Event.SESSION_END, Event.SUBAGENT_STOP)


def hook(event: Event, command: str = "check", trusted: bool = False) -> Hook:
    return Hook(event=event, command=command, place="p", trusted=trusted)


def said(event: Event, code: int | None = 0, out: str = "", err: str = "", **more: Any) -> Verdict:
    return verdict([(hook(event), Ran(code=code, stdout=out, stderr=err, **more))])


def answer(event: Event, **fields: Any) -> Verdict:
    return said(event, out=json.dumps(fields))


def own(event: Event, **fields: Any) -> Verdict:
    return answer(event, hookSpecificOutput={"hookEventName": event, **fields})


@pytest.mark.parametrize("event", list(Event))
def test_silence_and_success_say_nothing(event: Event) -> None:
    assert said(event) == Verdict()
    assert said(event, err="only a remark") == Verdict()


@pytest.mark.parametrize("event", BLOCKS)
def test_exit_2_blocks_with_its_stderr_as_the_reason(event: Event) -> None:
    found = said(event, 2, out='{"decision": "approve"}', err=" not here \n")
    assert found.reason == "not here"
    assert not found.block[0].trusted
    assert said(event, 2).reason == "it gave no reason"


@pytest.mark.parametrize("event", SHOWS)
def test_exit_2_where_nothing_can_be_blocked_is_shown(event: Event) -> None:
    found = said(event, 2, err="too late")
    assert found.block == ()
    assert found.notices == (f"hook {event} `check`: too late",)


def test_exit_2_after_a_tool_is_heard_by_the_model() -> None:
    assert said(Event.POST_TOOL_USE, 2, err="format it").reason == "format it"


@pytest.mark.parametrize("event", list(Event))
def test_any_other_end_is_shown_and_blocks_nothing(event: Event) -> None:
    for code, told in ((1, "exit code 1"), (127, "exit code 127"), (-9, "killed by signal 9")):
        found = said(event, code, out="no", err="oh\nmore")
        assert found == Verdict(notices=(f"hook {event} `check`: failed ({told}): oh",))
    late = said(event, None, fault="was killed at its deadline of 1 s")
    assert late == Verdict(notices=(f"hook {event} `check`: was killed at its deadline of 1 s",))


def test_what_is_printed_is_context_where_the_event_takes_it() -> None:
    for event in Event:
        found = said(event, out="the build is red\n")
        if event in {Event.USER_PROMPT_SUBMIT, Event.SESSION_START}:
            assert [one.text for one in found.context] == ["the build is red"]
        else:
            assert found == Verdict(notices=(f"hook {event} `check`: the build is red",))


def test_json_that_is_none_is_text() -> None:
    assert said(Event.SESSION_START, out="{oops").context[0].text == "{oops"
    assert said(Event.SESSION_START, out="[1]").context[0].text == "[1]"


def test_a_decision_in_json() -> None:
    assert answer(Event.STOP, decision="block", reason="tests fail").reason == "tests fail"
    assert answer(Event.USER_PROMPT_SUBMIT, decision="block").reason == "it gave no reason"
    shown = answer(Event.SUBAGENT_STOP, decision="block", reason="x")
    assert shown.block == ()
    assert shown.notices == ("hook SubagentStop `check`: blocks, which SubagentStop cannot be: x",)


def test_permission_can_be_denied_or_asked_for_and_never_given() -> None:
    deny = own(
        Event.PRE_TOOL_USE, permissionDecision="deny", permissionDecisionReason="not on Friday"
    )
    assert (deny.reason, deny.ask) == ("not on Friday", ())
    ask = own(Event.PRE_TOOL_USE, permissionDecision="ask", permissionDecisionReason="sure?")
    assert (ask.block, [one.text for one in ask.ask]) == ((), ["sure?"])
    assert own(Event.PRE_TOOL_USE, permissionDecision="allow") == Verdict()
    assert answer(Event.PRE_TOOL_USE, decision="approve") == Verdict()
    assert own(Event.STOP, permissionDecision="deny") == Verdict()
    changed = own(Event.PRE_TOOL_USE, permissionDecision="allow", updatedInput={"command": "x"})
    assert changed == Verdict(notices=("hook PreToolUse `check`: updatedInput is not obeyed here",))


def test_additional_context_and_a_message_for_people() -> None:
    for event in Event:
        found = own(event, additionalContext="mind the gap")
        takes = event in {
            Event.USER_PROMPT_SUBMIT, Event.SESSION_START, Event.PRE_TOOL_USE, Event.POST_TOOL_USE,
        }  # fmt: skip
        assert bool(found.context) is takes
    assert answer(Event.STOP, systemMessage="hi").notices == ("hook Stop `check`: hi",)


def test_to_stop_means_to_block_and_at_the_end_to_let_it_end() -> None:
    stop = {"continue": False, "stopReason": "enough"}
    for event in (Event.PRE_TOOL_USE, Event.USER_PROMPT_SUBMIT, Event.PRE_COMPACT):
        assert answer(event, **stop).reason == "enough"
    assert answer(Event.STOP, decision="block", reason="more", **stop).block == ()
    shown = answer(Event.POST_TOOL_USE, **stop)
    assert shown.block == ()
    assert "wants to stop: enough" in shown.notices[0]


def test_what_is_said_is_bounded() -> None:
    found = said(Event.SESSION_START, out="x" * 50_000)
    assert len(found.context[0].text) < CONTEXT_CHARS + 50
    assert found.context[0].text.endswith("[…40,000 more characters]")
    assert len(said(Event.STOP, out="x" * 50_000).notices[0]) < 700


def test_odd_answers_harm_nothing() -> None:
    for text in ("{}", '{"hookSpecificOutput": 7, "reason": [], "decision": {}}', '{"a": NaN}'):
        assert said(Event.PRE_TOOL_USE, out=text) == Verdict()
    assert said(Event.PRE_TOOL_USE, out="{" * 60_000).block == ()
    odd = own(Event.PRE_TOOL_USE, permissionDecision="deny", permissionDecisionReason=7)
    assert odd.reason == "it gave no reason"


def test_results_keep_the_order_of_the_file_and_every_hook_counts() -> None:
    pairs = [
        (hook(Event.PRE_TOOL_USE, "a"), Ran(code=0)),
        (hook(Event.PRE_TOOL_USE, "b", trusted=True), Ran(code=2, stderr="b says no")),
        (hook(Event.PRE_TOOL_USE, "c"), Ran(code=3)),
        (hook(Event.PRE_TOOL_USE, "d"), Ran(code=2, stderr="d says no")),
    ]
    found = verdict(pairs)
    assert [(one.text, one.trusted) for one in found.block] == [
        ("b says no", True),
        ("d says no", False),
    ]
    assert found.notices == ("hook PreToolUse `c`: failed (exit code 3)",)


def test_an_answer_of_odd_types_does_not_silence_another_hooks_block() -> None:
    """It raised, and with it the verdict of every hook of the event was lost."""
    guard = Hook(event=Event.PRE_TOOL_USE, command="guard", place="a", trusted=True)
    other = Hook(event=Event.PRE_TOOL_USE, command="other", place="b")
    odd = '{"hookSpecificOutput": {"permissionDecision": ["allow"]}}'
    said = verdict([(other, Ran(code=0, stdout=odd)), (guard, Ran(code=2, stderr="no"))])
    assert said.reason == "no"
