"""Tasks end to end: real Redis, real sandbox, the rehearsal model."""

from __future__ import annotations

from agent_rig import Rig, file_criterion, order, script

from base.messages import Budget, Effort, Kind, Status

WRITE = {"tool": "write", "input": {"path": "a.txt", "content": "hello"}}
FRAME = {
    "frame": {
        "context": "A file is wanted",
        "wanted": ["a.txt"],
        "not_wanted": ["other files"],
        "risks": ["none"],
        "plan": ["write it"],
        "criteria": [
            {
                "text": "The file a.txt holds the word hello once",
                "probe": {"kind": "command", "command": "grep -q hello a.txt"},
            }
        ],
    }
}


async def test_minimal_is_one_call_without_tools_and_streams_the_answer(rig: Rig) -> None:
    rig.start()
    told = await rig.send(
        order(script({"say": "The answer is 42."}), effort=Effort.MINIMAL, answer_message_id="m1")
    )
    outcome = await rig.ended(told)
    assert (outcome.status, outcome.answer) == (Status.COMPLETED, "The answer is 42.")
    assert outcome.notes == "Nothing was measured: the task had no criteria."
    assert outcome.usage.model_calls == 1
    assert not (rig.folder(told) / "PRD.md").exists()
    await rig.until("chunks", lambda: any(e.kind is Kind.CHUNK for e in rig.events))
    chunks = [e.data for e in rig.events if e.kind is Kind.CHUNK]
    assert "".join(c["content"] for c in chunks) == outcome.answer
    assert [c["seq"] for c in chunks] == list(range(len(chunks)))


async def test_standard_frames_works_measures_and_writes_the_prd(rig: Rig) -> None:
    rig.start()
    told = await rig.send(
        order(script(FRAME, WRITE, {"say": "a.txt is there."}), criteria=(file_criterion("a.txt"),))
    )
    outcome = await rig.ended(told)
    assert (outcome.status, outcome.error) == (Status.COMPLETED, None)
    assert outcome.answer == "a.txt is there."
    assert [(one.id, one.verdict) for one in outcome.criteria] == [
        ("ISC-1", "passed"),
        ("ISC-2", "passed"),
    ]
    assert outcome.files == ("a.txt",)
    assert rig.prompts(told) == ["frame", "execute", "execute"]
    assert outcome.usage.model_calls == 3
    prd = (rig.folder(told) / "PRD.md").read_text()
    assert "phase: complete" in prd
    assert "progress: 2/2" in prd
    assert "- [x] ISC-2: The file a.txt holds the word hello once" in prd


async def test_a_failed_criterion_is_traced_and_mended_in_the_second_round(rig: Rig) -> None:
    rig.start()
    wrong = {"tool": "write", "input": {"path": "b.txt", "content": "hello"}}
    told = await rig.send(
        order(
            script(
                FRAME,
                wrong,
                {"say": "Done."},
                {"trace": {"phase": "EXECUTE", "cause": "wrong name", "fix": "write a.txt"}},
                WRITE,
                {"say": "Now a.txt is there."},
            )
        )
    )
    outcome = await rig.ended(told)
    assert (outcome.status, outcome.rounds) == (Status.COMPLETED, 2)
    assert outcome.answer == "Now a.txt is there."
    assert rig.prompts(told) == ["frame", "execute", "execute", "trace", "execute", "execute"]
    shown = [e.data["verdict"] for e in rig.events if e.kind is Kind.CRITERION]
    assert shown == ["failed", "passed"]
    assert "back to EXECUTE: wrong name" in (rig.folder(told) / "PRD.md").read_text()


async def test_a_cause_in_planning_frames_again_and_the_criteria_stay(rig: Rig) -> None:
    rig.start()
    softer = {
        "frame": {
            **FRAME["frame"],
            "plan": ["write it this time"],
            "criteria": [{"text": "Anything", "probe": {"kind": "file", "path": "."}}],
        }
    }
    told = await rig.send(
        order(
            script(
                FRAME,
                {"say": "Done."},
                {"trace": {"phase": "PLAN", "cause": "no step wrote it", "fix": "write"}},
                softer,
                WRITE,
                {"say": "Done now."},
            )
        )
    )
    outcome = await rig.ended(told)
    assert outcome.status is Status.COMPLETED
    assert [one.id for one in outcome.criteria] == ["ISC-1"]
    assert rig.prompts(told) == ["frame", "execute", "trace", "frame", "execute", "execute"]
    assert "- write it this time" in (rig.folder(told) / "PRD.md").read_text()


async def test_after_three_rounds_it_fails_and_says_what_did(rig: Rig) -> None:
    rig.start()
    trace = {"trace": {"phase": "EXECUTE", "cause": "c", "fix": "f"}}
    say = [{"say": f"Done {n}."} for n in range(3)]
    told = await rig.send(order(script(FRAME, say[0], trace, say[1], trace, say[2])))
    outcome = await rig.ended(told)
    assert (outcome.status, outcome.rounds) == (Status.FAILED, 3)
    assert rig.prompts(told).count("trace") == 2
    assert "ISC-1 failed: The file a.txt holds the word hello once" in outcome.answer
    assert "Done 2." in outcome.answer
    assert "ISC-1 failed" in (outcome.error or "")


async def test_unmeasured_is_never_passed(rig: Rig) -> None:
    rig.start()
    judged = {
        "frame": {
            **FRAME["frame"],
            "criteria": [
                {"text": "It reads well", "probe": {"kind": "judge", "question": "Does it?"}}
            ],
        }
    }
    verdicts = [
        {"for": "judge", "verdict": {"verdict": "unmeasured", "reason": "nothing to read"}},
        {"for": "judge", "verdict": {"verdict": "passed", "reason": "reads well"}},
    ]
    trace = {"trace": {"phase": "EXECUTE", "cause": "c", "fix": "f"}}
    told = await rig.send(
        order(
            script(judged, {"say": "A."}, trace, {"say": "B."}, trace, {"say": "C."}, verdicts[0])
        )
    )
    outcome = await rig.ended(told)
    assert outcome.status is Status.FAILED
    assert "ISC-1 unmeasured" in outcome.answer
    passed = await rig.send(order(script(judged, {"say": "A."}, verdicts[1])))
    outcome = await rig.ended(passed)
    assert outcome.status is Status.COMPLETED
    assert outcome.criteria[0].evidence == "reads well"


async def test_useless_criteria_are_asked_for_once_more(rig: Rig) -> None:
    rig.start()
    useless = {
        "frame": {
            **FRAME["frame"],
            "criteria": [{"text": "It works", "probe": {"kind": "command", "command": "true"}}],
        }
    }
    told = await rig.send(order(script(useless, FRAME, WRITE, {"say": "Done."})))
    outcome = await rig.ended(told)
    assert outcome.status is Status.COMPLETED
    assert rig.prompts(told)[:2] == ["frame", "frame"]
    asked = [r["text"] for r in rig.journal(told) if r["kind"] == "told"]
    assert any("cannot fail" in text for text in asked)
    stubborn = await rig.send(order(script(useless, useless, {"say": "Done."})))
    outcome = await rig.ended(stubborn)
    assert outcome.status is Status.COMPLETED
    assert outcome.answer == "Done.\n\n(Nothing was measured: the task had no criteria.)"
    assert rig.prompts(stubborn) == ["frame", "frame", "execute"]


async def test_extended_frames_twice_and_reflects_and_deep_once_a_phase(rig: Rig) -> None:
    rig.start()
    given = tuple(file_criterion("a.txt", number) for number in range(1, 13))
    reflect = {
        "reflect": {"went_well": "w", "went_badly": "b", "differently": "d", "lesson": "the lesson"}
    }
    lines = script(FRAME, WRITE, {"say": "Done."}, reflect)
    extended = await rig.send(order(lines, effort=Effort.EXTENDED, criteria=given))
    assert (await rig.ended(extended)).status is Status.COMPLETED
    assert rig.prompts(extended) == ["frame"] * 2 + ["execute"] * 2 + ["reflect"]
    assert "LEARN: lesson: the lesson" in (rig.folder(extended) / "PRD.md").read_text()
    deep = await rig.send(order(lines, effort=Effort.DEEP, criteria=given))
    assert (await rig.ended(deep)).status is Status.COMPLETED
    assert rig.prompts(deep) == ["frame"] * 4 + ["execute"] * 2 + ["reflect"]


async def test_bad_tool_calls_are_answered_to_the_model(rig: Rig) -> None:
    rig.start()
    told = await rig.send(
        order(
            script(
                FRAME,
                {"tool": "launch_missiles", "input": {}},
                {"tool": "write", "input": {"path": 5}},
                {"tool": "trace", "input": {"phase": "PLAN"}},
                {"tools": [WRITE, {"tool": "shell", "input": {"command": "cat a.txt; exit 3"}}]},
                {"say": "Done."},
            )
        )
    )
    outcome = await rig.ended(told)
    assert outcome.status is Status.COMPLETED
    results = [r for r in rig.journal(told) if r["kind"] == "result" and r["name"] != "frame"]
    assert [one["ok"] for one in results] == [False, False, False, True, False]
    assert "no tool named 'launch_missiles'" in results[0]["text"]
    assert "write:" in results[1]["text"]
    assert "only when the system asks" in results[2]["text"]
    assert "hello" in results[4]["text"]
    assert rig.kinds(told).count("intent") == 2


async def test_a_budget_too_small_fails_before_the_model_is_asked(rig: Rig) -> None:
    rig.start()
    calls = rig.model_calls()
    told = await rig.send(order("x", budget=Budget(tokens=500, usd=5.0)))
    outcome = await rig.ended(told)
    assert outcome.status is Status.FAILED
    assert "budget is used up: spent 0 of 500 tokens" in (outcome.error or "")
    poor = await rig.send(order("x", budget=Budget(tokens=500_000, usd=0.0001)))
    assert "of $0.00" in ((await rig.ended(poor)).error or "")
    assert rig.model_calls() == calls


async def test_a_provider_that_refuses_fails_the_task_with_its_reason(rig: Rig) -> None:
    rig.start()
    told = await rig.send(order(script({"fault": "400", "times": 9}, {"say": "no"})))
    outcome = await rig.ended(told)
    assert outcome.status is Status.FAILED
    assert "invalid_request_error" in (outcome.error or "")
    after = await rig.send(order(script({"say": "fine"}), effort=Effort.MINIMAL))
    assert (await rig.ended(after)).answer == "fine"


async def test_a_workspace_that_cannot_be_sandboxed_fails_and_says_so(rig: Rig) -> None:
    rig.start()
    told = await rig.send(order(script(FRAME, WRITE, {"say": "Done."}), workspace="/etc"))
    outcome = await rig.ended(told)
    assert outcome.status is Status.FAILED
    assert "workspace" in (outcome.error or "")


async def test_a_reply_cut_at_its_length_goes_on(rig: Rig) -> None:
    rig.start()
    told = await rig.send(
        order(
            script(FRAME, {**WRITE, "stop_reason": "max_tokens"}, WRITE, {"say": "Done."}),
        )
    )
    assert (await rig.ended(told)).status is Status.COMPLETED
    assert rig.kinds(told).count("intent") == 1


async def test_the_window_is_readable_and_says_that_it_rehearses(rig: Rig) -> None:
    rig.start()
    evil = {"say": "\x1b[2Jwiped \u202etxt " + "word " * 40}
    told = await rig.send(order(script(FRAME, WRITE, evil)))
    await rig.ended(told)
    screen = await rig.until("cost", lambda: "model call" in rig.screen() and rig.screen())
    assert "REHEARSAL" in screen
    assert "── OBSERVE + THINK + PLAN + BUILD ──" in screen
    assert "→ write a.txt" in screen
    assert "✓ ISC-1" in screen
    assert "\x1b" not in screen
    assert "␛[2Jwiped ⟨202e⟩txt" in screen
    assert max(map(len, screen.splitlines())) <= 2 * 80


async def test_a_refusal_fails_with_the_models_words(rig: Rig) -> None:
    rig.start()
    refusal = {"say": "I will not do that.", "stop_reason": "refusal"}
    told = await rig.send(order(script(refusal), effort=Effort.MINIMAL))
    outcome = await rig.ended(told)
    assert (outcome.status, outcome.error) == (
        Status.FAILED, "the model refused: I will not do that.",
    )  # fmt: skip


async def test_an_empty_answer_is_asked_for_once_more(rig: Rig) -> None:
    rig.start()
    told = await rig.send(order(script(FRAME, WRITE, {"say": ""}, {"say": "Here it is."})))
    assert (await rig.ended(told)).answer == "Here it is."


async def test_a_history_that_outgrows_the_context_is_shortened(rig: Rig) -> None:
    config = rig.home / "config"
    config.mkdir()
    small = "[models.claude-sonnet-5-5]\ncontext_tokens = 14_000\n"
    (config / "models.toml").write_text(small)
    rig.start()
    loud = {"tool": "shell", "input": {"command": "seq 1 1200"}}
    told = await rig.send(order(script(FRAME, *[loud] * 6, WRITE, {"say": "Done."})))
    outcome = await rig.ended(told)
    assert outcome.status is Status.COMPLETED
    ids = [name for r in rig.journal(told) if r["kind"] == "shortened" for name in r["ids"]]
    shells = [r["call_id"] for r in rig.journal(told) if r.get("name") == "shell" and "text" in r]
    assert ids
    assert ids == shells[: len(ids)]
    assert "shortened to save room" in rig.screen()


async def test_calls_that_are_refused_count_and_cannot_go_on_for_ever(rig: Rig) -> None:
    rig.start()
    told = await rig.send(
        order(script(FRAME, *[{"tool": "dance"}] * 90), criteria=(file_criterion("a.txt"),))
    )
    outcome = await rig.ended(told)
    assert outcome.status is Status.FAILED
    assert "went on calling tools past the limit" in (outcome.error or "")
