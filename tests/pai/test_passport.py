"""A PAI folder moves in and out without loss, and nothing of the person's is overwritten."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from base.errors import InputError
from pai import passport, passport_read, passport_rows, telos, tree
from pai.shapes import Collection, Memory, Signal, SignalKind

USER = "11111111-2222-3333-4444-555555555555"
RATINGS = "MEMORY/LEARNING/SIGNALS/ratings.jsonl"
REFLECTIONS = "MEMORY/LEARNING/REFLECTIONS/algorithm-reflections.jsonl"
PRD = "MEMORY/WORK/20260224-020000_fix-the-parser/PRD.md"
LOW = "MEMORY/LEARNING/ALGORITHM/2026-01/2026-01-12-101500_LEARNING_low-rating-2.md"
MOOD = "MEMORY/LEARNING/SYSTEM/2026-01/2026-01-13-101500_LEARNING_sentiment-rating-3.md"

FILES: dict[str, bytes] = {
    PRD: b"""---
task: "Fix the parser"
slug: 20260224-020000_fix-the-parser
effort: extended
phase: complete
progress: 2/2
mode: interactive
started: 2026-02-24T02:00:00Z
updated: 2026-02-24T02:20:00Z
---

## Context

The parser stopped at empty files.

## Criteria

- [x] ISC-1: Parser reads empty files
- [x] ISC-A-1: Anti: No file is written

## Decisions

- 2026-02-24 02:00: Chose a table over a grammar

## Verification

- ISC-1: 14/14 tests
""",
    "MEMORY/WORK/20260101-000000_old/PRD.md": b"no front matter\r\n\r\nand no sections \xe4\r\n",
    "MEMORY/WORK/20260101-000000_old/notes.txt": b"\x00\xff binary\r\n",
    RATINGS: b"\n".join(
        [
            b'{"timestamp":"2026-01-12T10:00:00-08:00","rating":9,"session_id":"s1",'
            b'"comment":"great","source":"explicit"}',
            b'{"timestamp":"2026-01-13T10:00:00-08:00","rating":5,"session_id":"s2",'
            b'"source":"implicit","sentiment_summary":"neutral","confidence":0.7}',
            b'{"timestamp":"2026-01-14T10:00:00Z","rating":3,"session_id":"s3"}',
            b'{"timestamp":"2026-01-15T10:00:00Z","rating":5,"session_id":"s4","confidence":0.5}',
            b"{broken",
            b"",
            b'{"timestamp":"2026-01-16T10:00:00Z","session_id":"s5","source":"explicit"}',
            b'{"timestamp":"2026-01-16T10:00:00Z","rating":11,"source":"explicit"}',
            b'{"timestamp":"2026-01-17T10:00:00Z","rating":null,"source":"implicit"}',
            b'{"timestamp":"2026-01-14T10:00:00Z","rating":3,"session_id":"s3"}',
        ]
    ),
    REFLECTIONS: json.dumps(
        {
            "timestamp": "2026-02-27T00:49:43Z",
            "effort_level": "Standard",
            "task_description": "Fix the login",
            "criteria_count": 12,
            "criteria_passed": 11,
            "criteria_failed": 1,
            "prd_id": "PRD-1",
            "implied_sentiment": 9,
            "reflection_q1": "Read all files first",
            "reflection_q2": "Tests \u00e4 before code\u0000",
            "reflection_q3": "",
            "within_budget": True,
        }
    ).encode()
    + b'\n[1]\n{"timestamp": "2026-02-28T00:00:00Z"}\n',
    LOW: b"""---
capture_type: LEARNING
timestamp: 2026-01-12 10:15:00 PST
rating: 2
source: explicit
auto_captured: true
tags: [low-rating, improvement-opportunity]
---

# Low Rating Captured: 2/10

**Feedback:** wrote to the wrong folder

---

## Context

It took the home for the workspace.
""",
    MOOD: b"""---
timestamp: 2026-01-13 10:15:00 PST
rating: 3
source: implicit
---

# Implicit Low Rating Captured: 3/10

Something.
""",
    "MEMORY/LEARNING/FAILURES/2026-01/2026-01-12-101500_wrong/CONTEXT.md": b"# Wrong\n\nIgnore\n",
    "MEMORY/LEARNING/FAILURES/2026-01/2026-01-12-101500_wrong/transcript.jsonl": b"{}\n",
    "MEMORY/LEARNING/FAILURES/2026-01/2026-01-12-101500_wrong/mood.json": b'{"summary": "x"}',
    "MEMORY/Learning/VERIFY/1.json": b'{"phase": "VERIFY", "lesson": "Run it", "outcome": '
    b'"success", "applies_when": "a test exists", "evidence": "14/14"}',
    "MEMORY/Learning/VERIFY/2.json": b'{"phase": "VERIFY"}',
    "MEMORY/RESEARCH/2026-01/2026-01-02-030405_AGENT-x.md": b"# Found\n\nA page said so.\n",
    "MEMORY/STATE/work.json": b'{"a":1}',
    "MEMORY/README.md": b"# Memory\n",
    "MEMORY/.gitkeep": b"",
    "TELOS/MISSION.md": b"# Mission\n\nHelp people.\n",
    "TELOS/GOALS.md": b"# Goals\n\n- G0: finish\n",
    "TELOS/README.md": b"how to\n",
    "settings.json": b"{}\n",
}


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for number, (path, raw) in enumerate(files.items()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(raw)
        os.utime(folder / path, (1_700_000_000 + number, 1_700_000_000 + number))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()
    }


@pytest.fixture
def pai(tmp_path: Path) -> Path:
    return fill(tmp_path / "claude", FILES)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    (tmp_path / "home" / "MEMORY").mkdir(parents=True)
    return tmp_path / "home" / "MEMORY"


def of_file(plan: passport.Imported, file: str) -> list[Memory]:
    return [one for one in plan.memories if one.file == f"Imported/{file}"]


# In --------------------------------------------------------------------------------------------


def test_reading_changes_nothing_and_says_the_same_twice(pai: Path) -> None:
    before = contents(pai)
    plan = passport.read(pai, USER)
    assert plan == passport.read(pai, USER)
    assert contents(pai) == before == FILES
    assert {one.path for one in plan.files} == set(FILES)
    assert {one.user_id for one in plan.memories} == {USER}
    assert {one.source for one in plan.memories} == {"pai"}
    others = passport.read(pai, "somebody-else")
    assert not {one.id for one in plan.memories} & {one.id for one in others.memories}
    assert not {one.id for one in plan.signals} & {one.id for one in others.signals}


def test_a_prd_becomes_neighbours_with_the_task_above_each(pai: Path) -> None:
    parts = of_file(passport.read(pai, USER), PRD)
    assert [one.text.split("\n")[:2] for one in parts] == [
        ["Fix the parser", f"{title}: {first}"]
        for title, first in [
            ("Context", "The parser stopped at empty files."),
            ("Criteria", "- [x] ISC-1: Parser reads empty files"),
            ("Decisions", "- 2026-02-24 02:00: Chose a table over a grammar"),
            ("Verification", "- ISC-1: 14/14 tests"),
        ]
    ]
    assert [one.seq for one in parts] == [0, 1, 2, 3]
    assert {one.kind for one in parts} == {"work"}
    assert parts[0].created_at == datetime(2026, 2, 24, 2, tzinfo=UTC)
    assert parts[0].extra["progress"] == "2/2"


def test_only_explicit_ratings_are_ratings(pai: Path) -> None:
    plan = passport.read(pai, USER)
    assert [(one.rating, one.scale, one.comment) for one in plan.signals] == [
        (9, 10, "great"), (3, 10, ""), (3, 10, ""),
    ]  # fmt: skip
    assert {one.kind for one in plan.signals} == {SignalKind.USER_RATING}
    assert [round(one.weight, 3) for one in plan.signals] == [0.778, -0.556, -0.556]
    assert len({one.id for one in plan.signals}) == 3  # the same row twice is two ratings
    assert plan.signals[0].at == datetime(2026, 1, 12, 18, tzinfo=UTC)
    assert [(one.guess, one.confidence, one.summary) for one in plan.implicit] == [
        (5.0, 0.7, "neutral"), (5.0, 0.5, ""), (None, None, ""),
    ]  # fmt: skip
    assert plan.implicit[0].row()["source"] == "implicit"
    assert "rating" not in plan.implicit[0].row()


def test_what_is_broken_is_named_by_file_and_line(pai: Path) -> None:
    found = {(one.file, one.line): one.reason for one in passport.read(pai, USER).faults}
    assert found.pop((RATINGS, 5)).startswith("no JSON")
    assert found == {
        (RATINGS, 7): "no rating from 1 to 10",
        (RATINGS, 8): "no rating from 1 to 10",
        (REFLECTIONS, 2): "no JSON object",
        (REFLECTIONS, 3): "no reflection in it",
        ("MEMORY/WORK/20260101-000000_old/PRD.md", 0): "no UTF-8; kept as it is",
        ("MEMORY/Learning/VERIFY/2.json", 0): "no lesson in it",
    }
    assert str(passport.Fault(file="a", line=3, reason="b")) == "a:3: b"
    assert str(passport.Fault(file="a", line=0, reason="b")) == "a: b"


@pytest.mark.parametrize(
    "row",
    [
        '{"timestamp":"2026-01-01T00:00:00Z","rating":7.5}',
        '{"timestamp":"2026-01-01T00:00:00Z","rating":true}',
        '{"timestamp":"2026-01-01T00:00:00Z","rating":"7"}',
        '{"timestamp":"2026-01-01T00:00:00Z","rating":NaN}',
        '{"timestamp":"2026-01-01T00:00:00Z","rating":7,"more":NaN}',
        '{"timestamp":"2026-01-01T00:00:00Z","rating":0}',
        '{"timestamp":"2026-01-01T00:00:00Z","rating":7,"source":"guessed"}',
        '{"timestamp":"2026-01-01T00:00:00Z","rating":7,"source":["explicit"]}',
        '{"timestamp":"soon","rating":7}',
        '{"rating":7}',
        '"rating"',
        "[" * 100_000,
        '{"rating":' + "9" * 9_999 + "}",
        '{"a":"' + "x" * (1 << 20) + '"}',
    ],
)
def test_a_row_that_is_no_rating_makes_none(tmp_path: Path, row: str) -> None:
    plan = passport.read(fill(tmp_path, {RATINGS: row.encode()}), USER)
    assert (plan.signals, plan.implicit) == ((), ())
    assert [(one.file, one.line) for one in plan.faults] == [(RATINGS, 1)]


def test_a_reflection_is_a_learning_with_its_situation(pai: Path) -> None:
    (one,) = of_file(passport.read(pai, USER), REFLECTIONS)
    assert one.collection == Collection.LEARNINGS
    assert one.text == (
        "Should have been done differently: Read all files first\n"
        "A smarter algorithm would have: Tests ä before code\ufffd"
    )
    assert (one.phase, one.outcome, one.applies_when) == ("LEARN", "failure", "Fix the login")
    assert one.evidence == "11 of 12 criteria passed, within the time"
    assert one.extra["implied_sentiment"] == "9"


def test_learnings_keep_what_a_person_said_and_no_more(pai: Path) -> None:
    plan = passport.read(pai, USER)
    (low,), (mood,) = of_file(plan, LOW), of_file(plan, MOOD)
    assert (low.outcome, low.applies_when) == ("failure", "wrote to the wrong folder")
    assert (low.phase, low.tainted) == ("ALGORITHM", False)
    assert low.created_at == datetime(2026, 1, 12, 18, 15, tzinfo=UTC)
    assert "home for the workspace" in low.text
    assert mood.outcome == ""  # a guess is no outcome
    (ours,) = of_file(plan, "MEMORY/Learning/VERIFY/1.json")
    assert (ours.text, ours.phase, ours.outcome) == ("Run it", "VERIFY", "success")
    assert (ours.applies_when, ours.evidence) == ("a test exists", "14/14")


def test_what_came_from_outside_is_tainted(pai: Path) -> None:
    plan = passport.read(pai, USER)
    tainted = {one.file for one in plan.memories if one.tainted}
    assert not any(one.file.endswith("mood.json") for one in plan.memories)
    assert tainted == {
        "Imported/MEMORY/LEARNING/FAILURES/2026-01/2026-01-12-101500_wrong/CONTEXT.md",
        "Imported/MEMORY/RESEARCH/2026-01/2026-01-02-030405_AGENT-x.md",
    }


def test_telos_is_read_from_files_or_from_one(tmp_path: Path, pai: Path) -> None:
    assert dict(passport.read(pai, USER).telos) == {
        "mission": "# Mission\n\nHelp people.",
        "goals": "# Goals\n\n- G0: finish",
    }
    one = b"# TELOS\n\n## Mission\n\nHelp.\n\n## Wisdom\n\n## Goals\n\n- G0\n"
    single = passport.read(fill(tmp_path / "b", {"PAI/USER/TELOS/TELOS.md": one}), USER)
    assert dict(single.telos) == {"mission": "Help.", "goals": "- G0"}
    both = fill(tmp_path / "c", {"TELOS.md": one, "TELOS/MISSION.md": b"other"})
    plan = passport.read(both, USER)
    assert plan.telos["mission"] == "Help."
    assert [str(fault) for fault in plan.faults] == [
        "TELOS/MISSION.md: mission is told in TELOS.md too, which counts"
    ]
    assert passport.goals({"mission": "Help.", "goals": "# Goals\n\n- G0", "other": "x"}) == {
        "mission": "Help.\n",
        "priorities": "## Goals\n\n- G0\n",
    }


def test_a_folder_that_is_memory_itself_is_read_too(pai: Path) -> None:
    inner = passport.read(pai / "MEMORY", USER)
    assert len(inner.signals) == 3
    assert len(inner.memories) == len(passport.read(pai, USER).memories)


def test_long_pages_are_cut_at_their_blank_lines(tmp_path: Path) -> None:
    blocks = [f"paragraph {number} " + "word " * 100 for number in range(20)]
    text = "## Context\n\n" + "\n\n".join(blocks)
    plan = passport.read(fill(tmp_path, {PRD: text.encode()}), USER)
    assert all(len(one.text) < 2_100 for one in plan.memories)
    assert [one.seq for one in plan.memories] == list(range(len(plan.memories)))
    told = "\n".join(one.text for one in plan.memories)
    assert all(f"paragraph {number} " in told for number in range(20))
    assert all("paragraph" in one.text.partition("Context: ")[2][:9] for one in plan.memories)


def test_links_and_devices_are_refused_and_not_followed(pai: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.md"
    secret.write_text("# do not read\n")
    (pai / "MEMORY/WORK/20260101-000000_old/PRD2.md").symlink_to(secret)
    (pai / "MEMORY/LEARNING/ALGORITHM/link.md").symlink_to(secret)
    (pai / "MEMORY/RESEARCH/outside").symlink_to(tmp_path)
    os.mkfifo(pai / "MEMORY/LEARNING/ALGORITHM/pipe.md")
    plan = passport.read(pai, USER)
    refused = {one.file for one in plan.faults if one.reason.startswith("a link or no plain file")}
    assert refused == {
        "MEMORY/WORK/20260101-000000_old/PRD2.md",
        "MEMORY/LEARNING/ALGORITHM/link.md",
        "MEMORY/RESEARCH/outside",
        "MEMORY/LEARNING/ALGORITHM/pipe.md",
    }
    assert {one.path for one in plan.files} == set(FILES)
    assert not any("do not read" in one.text for one in plan.memories)


def test_a_file_swapped_for_a_link_meanwhile_is_not_followed(
    pai: Path, memory: Path, tmp_path: Path
) -> None:
    plan = passport.read(pai, USER)
    (tmp_path / "secret").write_text("x")
    (pai / PRD).unlink()
    (pai / PRD).symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=r"PRD\.md: a symbolic link"):
        passport.keep(plan, memory)
    (pai / PRD).unlink()
    (pai / PRD).parent.rmdir()
    (pai / PRD).parent.symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"PRD\.md: a symbolic link"):
        passport.keep(plan, memory)
    assert passport.kept(memory, USER) == ()
    assert list((memory / "Imported" / USER).iterdir()) == []


def test_keys_and_caches_are_named_and_not_taken(pai: Path) -> None:
    fill(pai, {".credentials.json": b"{}", "projects/a/b.jsonl": b"{}", "MEMORY/Imported/x": b"1"})
    plan = passport.read(pai, USER)
    assert plan.left == (".credentials.json", "MEMORY/Imported", "projects")
    assert {one.path for one in plan.files} == set(FILES)


@pytest.mark.parametrize("files", [{}, {"a.txt": b"x", "TELOS/README.md": b"x"}])
def test_a_folder_without_pai_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(InputError, match="is no PAI folder"):
        passport.read(fill(tmp_path, files), USER)


def test_no_folder_or_too_much_is_refused(pai: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is no folder"):
        passport.read(pai / "nowhere", USER)
    with pytest.raises(InputError, match="is no folder"):
        passport.read(pai / "settings.json", USER)
    monkeypatch.setattr(passport_read, "READ_BYTES", 600)
    large = {one.file for one in passport.read(pai, USER).faults if "too large" in one.reason}
    assert RATINGS in large
    monkeypatch.setattr(passport_read, "FILE_BYTES", 600)
    with pytest.raises(InputError, match="is larger than"):
        passport.read(pai, USER)
    monkeypatch.undo()
    monkeypatch.setattr(passport_read, "FILES_MAX", 3)
    with pytest.raises(InputError, match="more than 3 files"):
        passport.read(pai, USER)


# Kept ------------------------------------------------------------------------------------------


def test_originals_are_kept_once_for_each_user(pai: Path, memory: Path) -> None:
    first = passport.keep(passport.read(pai, USER), memory)
    assert passport.keep(passport.read(pai, USER), memory) == first
    assert contents(first) == FILES
    assert passport.kept(memory, USER) == (first,)
    assert passport.kept(memory, "other") == ()
    (pai / PRD).write_bytes(b"## Context\n\nnew\n")
    second = passport.keep(passport.read(pai, USER), memory)
    assert passport.kept(memory, USER) == (first, second)
    odd = passport.keep(passport.read(pai, "../../*"), memory)
    assert odd.resolve().is_relative_to((memory / "Imported").resolve())
    assert passport.kept(memory, "../../*") == (odd,)


# Out -------------------------------------------------------------------------------------------


def test_a_round_trip_is_the_same_to_the_byte(pai: Path, memory: Path, tmp_path: Path) -> None:
    passport.keep(passport.read(pai, USER), memory)
    out = tmp_path / "out"
    kept = passport.kept(memory, USER)
    done = passport.write(out, user_id=USER, originals=kept)
    assert contents(out) == FILES
    assert set(done.written) == set(FILES)
    assert not done.backed_up
    for path in FILES:
        assert (out / path).stat().st_mtime_ns == (pai / path).stat().st_mtime_ns
    again = passport.write(out, user_id=USER, originals=kept)
    assert set(again.unchanged) == set(FILES)
    assert passport.read(out, USER).memories == passport.read(pai, USER).memories


def new_things() -> dict[str, Any]:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    lesson = Memory(
        collection=Collection.LEARNINGS, user_id=USER, kind="learning", phase="EXECUTE",
        text="Take a lock first\n\n## Lesson\n\nthen: write", outcome="success", created_at=at,
        applies_when="two\nwrite", evidence="measured", task_id="t1", tags=("a",),
        extra={"key": "ü\u2028"},
    )  # fmt: skip
    fact = Memory(
        user_id=USER, text="The port is 8000\nsince May", agent="infra", tainted=True,
        created_at=at, conversation_id="c1", seq=4,
    )  # fmt: skip
    theirs = Memory(user_id="other", text="not yours", created_at=at)
    signals = [
        Signal(kind=SignalKind.USER_RATING, user_id=USER, rating=given, weight=(given - 3) / 2,
               comment="so so", root_id="r1", at=at)
        for given in (1, 2, 3, 4, 5)
    ]  # fmt: skip
    end = Signal(kind=SignalKind.TASK_SUCCESS, user_id=USER, root_id="r1", at=at)
    return {"memories": [fact, theirs], "learnings": [lesson], "signals": [*signals, end]}


def test_what_is_new_since_leaves_too_and_comes_back(
    pai: Path, memory: Path, tmp_path: Path
) -> None:
    plan = passport.read(pai, USER)
    passport.keep(plan, memory)
    new, out = new_things(), tmp_path / "out"
    new["memories"] += plan.memories  # what the keeper has also holds what came by import
    new["signals"] += plan.signals
    prd = tmp_path / "PRD.md"
    prd.write_text("---\ntask: ours\n---\n\n## Context\n\nx\n")
    done = passport.write(
        out, user_id=USER, originals=passport.kept(memory, USER),
        work={"20260301-120000_ours": prd}, **new,
    )  # fmt: skip
    found = contents(out)
    fresh = set(found) - set(FILES)
    (page,) = [one for one in fresh if "LEARNING" in one]
    assert fresh == {
        page,
        "MEMORY/AI-INFRA/memories.jsonl",
        "MEMORY/WORK/20260301-120000_ours/PRD.md",
    }
    assert fresh < set(done.written)
    assert page.startswith(
        "MEMORY/LEARNING/ALGORITHM/2026-03/2026-03-01-120000_LEARNING_take-a-lock"
    )
    assert {path: raw for path, raw in found.items() if path in FILES and path != RATINGS} == {
        path: raw for path, raw in FILES.items() if path != RATINGS
    }
    assert found[RATINGS].startswith(FILES[RATINGS] + b"\n")
    rows = [json.loads(line) for line in found[RATINGS][len(FILES[RATINGS]) :].splitlines()[1:]]
    assert [one["rating"] for one in rows] == [1, 3, 6, 8, 10]
    assert {one["source"] for one in rows} == {"explicit"}
    assert "not yours" not in repr(found)

    back = passport.read(out, USER)
    alike = {"exclude": {"id"}}
    (lesson,) = [one for one in back.memories if one.task_id == "t1"]
    assert lesson.model_dump(**alike) == new["learnings"][0].model_dump(**alike)
    (fact,) = [one for one in back.memories if one.agent == "infra"]
    assert fact.model_dump(**alike) == new["memories"][0].model_dump(**alike)
    assert back.first[fact.id] == new["memories"][0].id
    passport.keep(back, memory)
    assert [
        len(found)
        for found in passport.where(memory, USER, [fact.id, back.first[fact.id]]).values()
    ] == [1, 1]
    ours = [one for one in back.signals if one.scale == 5]
    assert [one.model_dump(**alike) for one in ours] == [
        one.model_dump(**alike) for one in new["signals"][:5]
    ]
    twice = passport.write(
        out, user_id=USER, originals=passport.kept(memory, USER),
        work={"20260301-120000_ours": prd}, **new,
    )  # fmt: skip
    assert (twice.written, twice.appended, dict(twice.backed_up)) == ((), (), {})
    assert contents(out) == found


def test_without_an_import_a_folder_of_4_0_3_is_made(tmp_path: Path) -> None:
    passport.write(tmp_path / "out", user_id=USER, **new_things(), telos={"mission": "Help.\n"})
    paths = set(contents(tmp_path / "out"))
    assert {RATINGS, "MEMORY/AI-INFRA/memories.jsonl", "TELOS/MISSION.md"} < paths
    assert len(passport.read(tmp_path / "out", USER).signals) == 5


def test_a_file_of_the_person_is_never_overwritten_without_a_backup(
    pai: Path, memory: Path
) -> None:
    passport.keep(passport.read(pai, USER), memory)
    (pai / PRD).write_bytes(b"my own change\n")
    os.utime(pai / PRD, (1_700_000_999, 1_700_000_999))
    (pai / RATINGS).write_bytes(b'{"mine": 1}')
    done = passport.write(pai, user_id=USER, originals=passport.kept(memory, USER))
    assert done.written == (PRD,)
    assert done.appended == (RATINGS,)
    backup = pai / done.backed_up[PRD]
    assert backup.parent == (pai / PRD).parent
    assert backup.read_bytes() == b"my own change\n"
    assert int(backup.stat().st_mtime) == 1_700_000_999
    assert (pai / PRD).read_bytes() == FILES[PRD]
    rows = (pai / RATINGS).read_bytes().splitlines()
    assert rows[0] == b'{"mine": 1}'
    assert rows[1:] == [line for line in FILES[RATINGS].splitlines() if line]
    (pai / PRD).write_bytes(b"changed again\n")
    more = passport.write(pai, user_id=USER, originals=passport.kept(memory, USER))
    assert {(pai / done.backed_up[PRD]).read_bytes(), (pai / more.backed_up[PRD]).read_bytes()} == {
        b"my own change\n",
        b"changed again\n",
    }


def test_of_two_imports_the_later_counts_and_rows_are_joined(
    pai: Path, memory: Path, tmp_path: Path
) -> None:
    passport.keep(passport.read(pai, USER), memory)
    row = b'{"timestamp":"2026-05-01T00:00:00Z","rating":8,"source":"explicit"}\n'
    other = fill(tmp_path / "other", {PRD: b"## Context\n\nlater\n", RATINGS: row})
    passport.keep(passport.read(other, USER), memory)
    out = tmp_path / "out"
    done = passport.write(out, user_id=USER, originals=passport.kept(memory, USER))
    assert done.superseded == (PRD,)
    assert contents(out) == FILES | {
        PRD: b"## Context\n\nlater\n",
        RATINGS: FILES[RATINGS] + b"\n" + row,
    }


@pytest.mark.parametrize("link", ["MEMORY", "MEMORY/LEARNING/SIGNALS", "MEMORY/README.md"])
def test_a_link_in_the_way_of_an_export_is_refused(
    pai: Path, memory: Path, tmp_path: Path, link: str
) -> None:
    passport.keep(passport.read(pai, USER), memory)
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    (out / link).parent.mkdir(parents=True, exist_ok=True)
    (out / link).symlink_to(outside if "." not in link else outside / "README.md")
    with pytest.raises(InputError, match="symbolic link"):
        passport.write(out, user_id=USER, originals=passport.kept(memory, USER))
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["../../up", "/etc", "a/../../..", "..", ""])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    prd = tmp_path / "PRD.md"
    prd.write_text("x")
    out = tmp_path / "a" / "b"
    with pytest.raises(InputError, match="no path inside the folder"):
        passport.write(out, user_id=USER, work={name: prd})
    for path in ("../x", "/x", "a//b", "./a", "a/", "", "a\0b", ".."):
        with pytest.raises(InputError, match="no path inside"):
            tree.put(tmp_path, path, b"")
    (tmp_path / "link").symlink_to(prd)
    for path in ("link", "a"):
        (tmp_path / "a").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="no plain file"):
            tree.put(tmp_path, path, b"")
    assert prd.read_text() == "x"


def test_an_export_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file"):
        passport.write(tmp_path / "file", user_id=USER, **new_things())


def test_names_of_memories_cannot_lead_out(tmp_path: Path) -> None:
    odd = Memory(
        id="../../../etc/passwd", collection=Collection.LEARNINGS, user_id=USER, text="../../x y"
    )
    done = passport.write(tmp_path / "out", user_id=USER, learnings=[odd])
    assert len(done.written) == 1
    assert (tmp_path / "out" / done.written[0]).resolve().is_relative_to(tmp_path / "out")


# TELOS -----------------------------------------------------------------------------------------


def test_telos_leaves_only_where_it_changed(pai: Path, memory: Path, tmp_path: Path) -> None:
    plan = passport.read(pai, USER)
    passport.keep(plan, memory)
    ours = passport.goals(plan.telos)
    template = (telos.SHIPPED / "vision.md").read_text()
    out, kept = tmp_path / "out", passport.kept(memory, USER)
    passport.write(out, user_id=USER, originals=kept, telos={**ours, "vision": template})
    assert contents(out) == FILES
    changed = {**ours, "mission": "# Mission\n\nHelp more.\n", "values": "Honesty.\n"}
    done = passport.write(out, user_id=USER, originals=kept, telos=changed)
    assert done.written == ("TELOS/MISSION.md", "TELOS/VALUES.md")
    assert contents(out)["TELOS/MISSION.md"] == b"# Mission\n\nHelp more.\n"
    with pytest.raises(InputError, match="'goals' is none of mission"):
        passport.write(out, user_id=USER, telos={"goals": "x"})


def test_one_file_of_goals_changes_in_its_section_alone(memory: Path, tmp_path: Path) -> None:
    raw = b"# TELOS\r\nmine\n\n## Mission\n\nHelp.\n\n## Goals\n\n- G0\n\n## Wisdom\n\nWait.\n"
    pai = fill(tmp_path / "pai", {"PAI/USER/TELOS/TELOS.md": raw})
    passport.keep(passport.read(pai, USER), memory)
    out = tmp_path / "out"
    passport.write(
        out, user_id=USER, originals=passport.kept(memory, USER),
        telos={"mission": "# Mission\n\nHelp more.\n\n## How\n\nSlowly.\n", "success": "Peace.\n"},
    )  # fmt: skip
    assert contents(out) == {
        "PAI/USER/TELOS/TELOS.md": raw.replace(
            b"Help.", b"Help more.\n\n#### How\n\nSlowly."
        ) + b"\n## Success\n\nPeace.\n\n"
    }  # fmt: skip
    assert passport.read(out, USER).telos["success"] == "Peace."


def test_adopted_goals_leave_a_backup_of_what_stood_there(tmp_path: Path) -> None:
    folder = tmp_path / "TELOS"
    folder.mkdir()
    (folder / "mission.md").write_text("mine\n")
    done = passport.adopt({"mission": "theirs\n", "vision": "far\n"}, folder)
    assert (folder / "mission.md").read_text() == "theirs\n"
    assert (folder / done.backed_up["mission.md"]).read_text() == "mine\n"
    assert passport.adopt({"mission": "theirs\n"}, folder).unchanged == ("mission.md",)
    with pytest.raises(InputError, match="is none of"):
        passport.adopt({"../x": "y"}, folder)


# Forgotten -------------------------------------------------------------------------------------


def test_what_is_forgotten_leaves_the_originals(pai: Path, memory: Path, tmp_path: Path) -> None:
    plan = passport.read(pai, USER)
    passport.keep(plan, memory)
    page, row = of_file(plan, PRD)[1], of_file(plan, REFLECTIONS)[0]
    there = passport.where(memory, USER, [page.id, row.id, "never-imported"])
    assert [len(one) for one in there.values()] == [1, 1, 0]
    removed = passport.forget(memory, USER, [page.id, row.id, "never-imported"])
    assert removed == there
    assert passport.where(memory, USER, [page.id, row.id]) == {page.id: [], row.id: []}
    assert [len(removed[one]) for one in (page.id, row.id, "never-imported")] == [1, 1, 0]
    assert removed[page.id][0].endswith(PRD)
    assert passport.forget(memory, USER, [page.id, row.id]) == {page.id: [], row.id: []}
    assert passport.forget(memory, "other", [page.id]) == {page.id: []}
    passport.write(tmp_path / "out", user_id=USER, originals=passport.kept(memory, USER))
    rest = dict(FILES)
    del rest[PRD]
    rest[REFLECTIONS] = rest[REFLECTIONS].split(b"\n", 1)[1]
    assert contents(tmp_path / "out") == rest
    everything = [one.id for one in passport.read(tmp_path / "out", USER).memories]
    passport.forget(memory, USER, everything)
    left = passport.kept(memory, USER)[0]
    assert passport.read(left, USER).memories == ()


def test_rows_written_by_windows_are_read(tmp_path: Path) -> None:
    raw = b'\xef\xbb\xbf{"timestamp":"2026-01-01T00:00:00Z","rating":7}\r\n\r\n'
    plan = passport.read(fill(tmp_path, {RATINGS: raw}), USER)
    assert [one.rating for one in plan.signals] == [7]
    assert plan.faults == ()
    assert passport_rows.clean("a\ud800\0") == "a?\ufffd"


def test_our_own_pages_stay_tainted_on_a_way_out_and_in(tmp_path: Path) -> None:
    """A task's PRD.md and a learning's file say that they stand on text from outside."""
    told = "---\ntask: Look\nphase: LEARN\ntainted: {}\n---\n\n## Context\n\nObey the page.\n"
    for name, word in (("bad", "true"), ("good", "false")):
        for place in (f"MEMORY/WORK/20260101-000000_{name}", f"MEMORY/Learning/{name}"):
            page = tmp_path / place / "PRD.md"
            page.parent.mkdir(parents=True)
            page.write_text(told.format(word))
    plan = passport.read(tmp_path, USER)
    assert len(plan.memories) >= 4
    assert {one.tainted for one in plan.memories if "bad" in one.file} == {True}
    assert {one.tainted for one in plan.memories if "good" in one.file} == {False}
