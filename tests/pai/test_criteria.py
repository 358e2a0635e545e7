"""Criteria: what is refused, what is only advised, and what stays as ordered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from base.messages import Criterion, Probe
from pai.criteria import advice, gate, probe_fault

WORKSPACE = Path("/w/main")
GOOD = {"text": "The tests of the parser pass", "probe": {"kind": "command", "command": "pytest"}}


def criterion(number: int, text: str = "x", **probe: Any) -> Criterion:
    made = Probe.model_validate(probe or {"kind": "file", "path": "a"})
    return Criterion(id=f"ISC-{number}", text=text, probe=made)


@pytest.mark.parametrize(
    "command",
    [
        "true", ":", "exit 0", "exit 0;", "echo ok", "echo ok && true", "pytest || true",
        "pytest; true", "pytest || echo failed", "grep x f | echo", "printf done", "/bin/true",
        "X=1 true", "pytest\ntrue", "", "   ", "sleep 1", "test -f a; exit 0", "false &  echo",
    ],
)  # fmt: skip
def test_a_command_that_cannot_fail_is_refused(command: str) -> None:
    assert probe_fault(Probe(kind="command", command=command)) is not None


@pytest.mark.parametrize(
    "command",
    [
        "pytest", "test -f a", "grep -q x f", "echo x | grep y", "true && test -f a",
        "test -f a && echo ok", "python -c 'print(1)'", "exit 1", "cd sub && make",
        "diff <(sort a) b", "[ -s a ] || exit 1", "bash -c 'it''s odd", "! grep -q x f",
    ],
)  # fmt: skip
def test_a_command_that_can_fail_is_taken(command: str) -> None:
    assert probe_fault(Probe(kind="command", command=command)) is None


def test_output_that_counts_can_fail_unless_it_is_fixed() -> None:
    assert probe_fault(Probe(kind="command", command="cat a; true", pattern="x")) is None
    assert probe_fault(Probe(kind="command", command="echo $(cat a)", pattern="x")) is None
    assert probe_fault(Probe(kind="command", command="echo x", pattern="x")) is not None


@pytest.mark.parametrize(
    ("probe", "why"),
    [
        ({"kind": "file"}, "needs a path"),
        ({"kind": "file", "path": "/etc/passwd"}, "outside the workspace"),
        ({"kind": "file", "path": "../x"}, "outside the workspace"),
        ({"kind": "file", "path": "a/../../x"}, "outside the workspace"),
        ({"kind": "pattern", "path": "a"}, "needs a pattern"),
        ({"kind": "pattern", "path": "a", "pattern": "("}, "no regular expression"),
        ({"kind": "pattern", "path": "a", "pattern": "a{99999999999}"}, "no regular expression"),
        ({"kind": "pattern", "path": "a", "pattern": ".*"}, "matches anything"),
        ({"kind": "http", "url": "https://127.0.0.1/"}, "only http://127.0.0.1"),
        ({"kind": "http", "url": "http://example.org/"}, "only http://127.0.0.1"),
        ({"kind": "http", "url": "http://169.254.169.254/"}, "only http://127.0.0.1"),
        ({"kind": "http", "url": "http://127.0.0.1:x/"}, "is no URL"),
        ({"kind": "http"}, "only http://127.0.0.1"),
        ({"kind": "judge", "question": " "}, "needs a question"),
    ],
)
def test_a_probe_that_measures_nothing_is_refused(probe: dict[str, Any], why: str) -> None:
    assert why in (probe_fault(Probe.model_validate(probe)) or "")


@pytest.mark.parametrize(
    "probe",
    [
        {"kind": "file", "path": "a/b.txt"},
        {"kind": "pattern", "path": "a", "pattern": "^$"},
        {"kind": "http", "url": "http://localhost:8000/x"},
        {"kind": "http", "url": "http://[::1]:80/"},
        {"kind": "judge", "question": "Is it polite?"},
    ],
)
def test_a_sound_probe_is_taken(probe: dict[str, Any]) -> None:
    assert probe_fault(Probe.model_validate(probe)) is None


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ("text", "must be an object"),
        ({}, "text is missing"),
        ({"text": "x" * 401, "probe": {}}, "401 characters"),
        ({"text": "x"}, "probe is missing"),
        ({"text": "x", "probe": {"kind": "wish"}}, "probe.kind"),
        ({"text": "x", "probe": {"kind": "command", "command": 5}}, "probe.command"),
    ],
)
def test_each_bad_criterion_is_one_fault_and_the_others_stay(item: object, why: str) -> None:
    found = gate((), (), [item, GOOD], floor=1, workspace=WORKSPACE)
    assert [one.id for one in found.criteria] == ["ISC-1"]
    assert len(found.faults) == 1
    assert why in found.faults[0]


def test_ids_go_on_and_anti_criteria_have_their_own() -> None:
    raw = [GOOD, {**GOOD, "anti": True}, {**GOOD, "id": "ISC-A-7"}]
    found = gate((criterion(3),), (), raw, floor=0, workspace=WORKSPACE)
    assert [one.id for one in found.criteria] == ["ISC-3", "ISC-4", "ISC-A-1", "ISC-A-2"]


def test_what_was_ordered_stays_and_ones_own_may_be_refined() -> None:
    ordered, own = (criterion(1, "ordered"),), (criterion(2, "own"),)
    raw = [{**GOOD, "id": "ISC-1"}, {**GOOD, "id": "ISC-2"}]
    found = gate(ordered, own, raw, floor=0, workspace=WORKSPACE)
    assert [(one.id, one.text) for one in found.criteria] == [
        ("ISC-1", "ordered"),
        ("ISC-2", GOOD["text"]),
    ]


def test_an_ordered_criterion_with_an_unsound_probe_may_be_refined() -> None:
    bad = criterion(1, "bad", kind="command", command="true")
    assert "cannot fail" in gate((bad,), (), [], floor=0, workspace=WORKSPACE).faults[0]
    found = gate((bad,), (), [{**GOOD, "id": "ISC-1"}], floor=1, workspace=WORKSPACE)
    assert [one.text for one in found.criteria] == [GOOD["text"]]
    assert not found.faults


def test_too_few_is_a_fault() -> None:
    found = gate((), (), [GOOD], floor=2, workspace=WORKSPACE)
    assert found.faults == ("1 usable criteria, this effort needs at least 2",)


def test_an_absolute_path_inside_the_workspace_becomes_relative() -> None:
    raw = [{"text": "x", "probe": {"kind": "file", "path": "/w/main/a/b"}}]
    found = gate((), (), raw, floor=0, workspace=WORKSPACE)
    assert found.criteria[0].probe.path == "a/b"


def test_wording_is_advice_only() -> None:
    assert advice(criterion(1, "Each of the eight words here is good enough")) == ()
    told = " ".join(advice(criterion(1, "All tests and linters pass")))
    assert "5 words" in told
    assert "'and'" in told
    assert "'All'" in told
