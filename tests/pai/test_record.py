"""The journal survives a torn end; PRD.md has the form of PAI v4.0.3."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from base.errors import ConflictError, InputError
from base.messages import Budget, Checked, Criterion, Probe, Verdict, WorkOrder
from pai.record import JOURNAL, Journal, Prd, folder_name, read

ORDER = WorkOrder(
    task_id="12345678-aaaa",
    root_id="r",
    epoch=1,
    agent="code",
    user_id="u",
    conversation_id="c",
    created_at=datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC),
    instruction="Fix: the parser,\n## and more; please do it now quickly",
    request="x",
    budget=Budget(tokens=1, usd=1),
    workspace="main",
)


def test_the_folder_is_the_same_for_every_delivery() -> None:
    assert folder_name(ORDER) == "20260203-040506_fix-the-parser-and-more-please-12345678"
    again = ORDER.model_copy(update={"epoch": 2, "delivery": 3})
    assert folder_name(again) == folder_name(ORDER)
    odd = ORDER.model_copy(update={"instruction": "../../??", "task_id": "../x"})
    assert folder_name(odd) == "20260203-040506_task-x"


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    journal, before = Journal.open(tmp_path)
    written = [
        journal.append({"kind": "a", "text": "ä\u2028\ud800\r\n"}),
        journal.append({"kind": "b"}),
    ]
    journal.close()
    _, found = Journal.open(tmp_path)
    assert before == []
    assert found == written


@pytest.mark.parametrize(
    "torn", [b'{"kind": "c', b'{"kind": "c"}', b"\xff\xfe", b"{}x\n", b"[1]\n"]
)
def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    journal, _ = Journal.open(tmp_path)
    journal.append({"kind": "a"})
    journal.close()
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(torn)
    journal, found = Journal.open(tmp_path)
    journal.append({"kind": "b"}, sync=True)
    assert [one["kind"] for one in found] == ["a"]
    assert [one["kind"] for one in read(tmp_path / JOURNAL)] == ["a", "b"]


def test_damage_before_the_end_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    raw = b'{"kind": "a"}\nxx\n{"kind": "b"}\n'
    (tmp_path / JOURNAL).write_bytes(raw)
    with pytest.raises(InputError, match="line 2 is damaged"):
        Journal.open(tmp_path)
    assert (tmp_path / JOURNAL).read_bytes() == raw


def test_one_process_holds_the_journal(tmp_path: Path) -> None:
    first, _ = Journal.open(tmp_path)
    with pytest.raises(ConflictError):
        Journal.open(tmp_path)
    first.close()
    Journal.open(tmp_path)


def test_the_prd_has_eight_flat_keys_and_four_sections(tmp_path: Path) -> None:
    probe = Probe(kind="file", path="a")
    Prd(
        order=ORDER,
        phase="verify",
        started=ORDER.created_at,
        frame={"context": "why\n## Criteria", "wanted": ["w"], "plan": "one"},
        criteria=[Criterion(id=f"ISC-{n}", text=f"t{n}\n## x", probe=probe) for n in (1, 2)],
        checked=[
            Checked(id="ISC-1", text="t1", verdict=Verdict.PASSED, evidence="seen"),
            Checked(id="ISC-2", text="t2", verdict=Verdict.UNMEASURED, evidence="no\nsandbox"),
        ],
        decisions=["d"],
        learned=["l"],
    ).write(tmp_path)
    text = (tmp_path / "PRD.md").read_text()
    _, front, body = text.split("---\n", 2)
    keys = dict(line.split(":", 1) for line in front.splitlines())
    assert list(keys) == [
        "task", "slug", "effort", "phase", "progress", "mode", "started", "updated",
    ]  # fmt: skip
    assert keys["progress"] == " 1/2"
    assert keys["task"] == " Fix: the parser, ## and more; please do it now quickly"
    assert re.findall(r"^## (.*)$", body, re.MULTILINE) == [
        "Context", "Criteria", "Decisions", "Verification",
    ]  # fmt: skip
    criteria = body.split("\n## Criteria\n")[1].split("\n## ")[0].split()
    assert " ".join(criteria) == "- [x] ISC-1: t1 ## x - [ ] ISC-2: t2 ## x"
    assert "- ISC-2: unmeasured: no sandbox" in body
    assert [path.name for path in tmp_path.iterdir()] == ["PRD.md"]


def test_the_prd_of_a_tainted_task_says_so() -> None:
    at = datetime(2026, 2, 3, tzinfo=UTC)
    page = Prd(
        order=ORDER, phase="learn", started=at, frame={}, criteria=(), checked=(), decisions=(),
        learned=(), tainted=True,
    )  # fmt: skip
    assert "\ntainted: true\n---\n" in page.render(at)
