"""PRD.md is taken apart and put together again without losing a byte."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from base.messages import Budget, Checked, Criterion, Probe, Verdict, WorkOrder
from pai import document, prd
from pai.record import Prd

TEXT = """---
task: "Fix: the parser: again"
slug: 20260224-020000_fix-the-parser
effort: extended
phase: complete
progress: 1/3
mode: interactive
started: 2026-02-24T02:00:00Z
updated: 2026-02-24 02:20
iteration: 2
nested:
  - kept: as it stands
---

# Fix the parser

## Context

What was asked.

### Plan

- one: two

## Criteria

- [x] ISC-1: Parser reads empty files without any error [E]
- [ ] ISC-2: Parser names the line of every fault
- [X] ISC-A-1: Anti: No file is ever written to
- [ ] not a criterion

## Sprint Contract

| ISC | how |

## Decisions

- 2026-02-24 02:00: Chose X over Y

## Verification

- ISC-1: 14/14
"""


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.replace("\n", "\r\n"),
        "",
        "\n",
        "no front matter\n## A\nx",
        "---\nnever: closed\n\n## A\n",
        "---\n---\n",
        "--- \nkey: a\n---\t\nrest",
        "## A\n## A\n\n##  B \nx\n##no\n",
        "a\x0cb\x85c\u2028d\x1ce\rf\n## g\u2029h\n\n",
        "---\n: x\n:::\nkey:\nkey: 'again'\n---\n## \n",
    ],
)
def test_what_is_not_touched_is_the_same_to_the_byte(text: str) -> None:
    assert document.parse(text).render() == text


def test_front_matter_is_split_on_the_first_colon() -> None:
    keys = document.parse(TEXT).keys
    assert keys["task"] == "Fix: the parser: again"
    assert keys["iteration"] == "2"
    assert "- kept" not in keys
    assert document.parse("---\r\nkey: 'a'\r\n---\r\n").keys == {"key": "a"}


def test_only_a_line_feed_ends_a_line() -> None:
    page = document.parse("## A\none\u2028## B\x0b## C\r## D\n")
    assert [one.title for one in page.sections] == ["A"]


def test_a_key_or_section_changes_in_its_place_and_nothing_else() -> None:
    page = document.parse(TEXT)
    assert page.put("phase", "observe").render() == TEXT.replace(
        "phase: complete", "phase: observe"
    )
    added = page.put("owner", "two\nlines").render()
    assert added == TEXT.replace("\n---\n\n# Fix", "\nowner: two lines\n---\n\n# Fix")
    changed = page.put_section("decisions", "- none")
    assert changed.section("Decisions") == "- none"
    assert changed.section("Verification") == "- ISC-1: 14/14"
    assert changed.put_section("New", "x").render().endswith("- ISC-1: 14/14\n\n## New\n\nx\n\n")
    windows = document.parse("---\r\nkey: a\r\n---\r\n").put("key", "b")
    assert windows.render() == "---\r\nkey: b\r\n---\r\n"
    bare = document.parse("text\n").put("key", "value")
    assert bare.render() == "---\nkey: value\n---\ntext\n"


def test_a_file_of_4_0_3_is_understood() -> None:
    page = prd.read(TEXT)
    assert (page.task, page.phase, page.effort) == (
        "Fix: the parser: again",
        "complete",
        "extended",
    )
    assert page.started == datetime(2026, 2, 24, 2, tzinfo=UTC)
    assert page.updated == datetime(2026, 2, 24, 2, 20, tzinfo=UTC)
    assert [(one.id, one.passed, one.anti) for one in page.criteria] == [
        ("ISC-1", True, False),
        ("ISC-2", False, False),
        ("ISC-A-1", True, True),
    ]
    assert page.progress == "2/3"
    assert page.faults() == ()
    assert "no key slug" in prd.read("## Context\n").faults()
    assert "no section Criteria" in prd.read("## Context\n").faults()


def test_a_tick_brings_progress_along_and_moves_nothing_else() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    ticked = prd.read(TEXT).tick(["ISC-2", "ISC-9"], now).document.render()
    assert ticked == TEXT.replace("- [ ] ISC-2", "- [x] ISC-2").replace(
        "progress: 1/3", "progress: 3/3"
    ).replace("updated: 2026-02-24 02:20", "updated: 2026-03-01T00:00:00+00:00")


def test_what_our_own_record_writes_is_read_back() -> None:
    order = WorkOrder(
        task_id="12345678-a", root_id="r", epoch=1, agent="code", user_id="u",
        conversation_id="c", created_at=datetime(2026, 2, 3, tzinfo=UTC),
        instruction="Fix: the parser", request="x", budget=Budget(tokens=1, usd=1),
        workspace="main",
    )  # fmt: skip
    probe = Probe(kind="command", command="true")
    ours = Prd(
        order=order,
        phase="complete",
        started=datetime(2026, 2, 3, 4, tzinfo=UTC),
        frame={"context": "why", "wanted": ["a"], "plan": "do it"},
        criteria=[
            Criterion(id="ISC-1", text="One holds", probe=probe),
            Criterion(id="ISC-A-1", text="Two does not", probe=probe),
        ],
        checked=[Checked(id="ISC-1", text="One holds", verdict=Verdict.PASSED, evidence="ran")],
        decisions=["took X"],
        learned=["that Y"],
    )
    text = ours.render(datetime(2026, 2, 3, 5, tzinfo=UTC))
    page = prd.read(text)
    assert page.document.render() == text
    assert page.faults() == ()
    assert set(page.document.keys) == set(prd.KEYS)
    assert tuple(one.title for one in page.document.sections) == prd.SECTIONS
    assert page.task == "Fix: the parser"
    assert page.progress == page.document.keys["progress"] == "1/2"
    assert [(one.id, one.text, one.passed) for one in page.criteria] == [
        ("ISC-1", "One holds", True),
        ("ISC-A-1", "Two does not", False),
    ]
    assert page.document.section("Decisions") == "- took X"
    assert page.document.section("Verification") == "- ISC-1: passed: ran\n- LEARN: that Y"


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-01-12T10:00:00Z", 10),
        ("2026-01-12T10:00:00-08:00", 18),
        ("2026-01-12 10:00:00 PST", 18),
        ("2026-01-12 10:00:00", 10),
    ],
)
def test_times_are_read_as_pai_writes_them(text: str, hour: int) -> None:
    assert prd.moment(text) == datetime(2026, 1, 12, hour, tzinfo=UTC)


def test_what_is_no_time_is_none() -> None:
    assert prd.moment("yesterday") is None
    assert prd.moment("") is None
    assert prd.moment("0001-01-01T00:00:00+14:00") is None
