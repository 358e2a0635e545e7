"""Tasks end to end: real Redis, real sandbox, the rehearsal model."""

from __future__ import annotations

from agent_rig import Rig, file_criterion, order, script

from base.messages import Effort, Kind, Status

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
