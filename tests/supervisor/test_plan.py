"""Plans by tables: what can be run, and every fault by name."""

from __future__ import annotations

from typing import Any

import pytest

from base.errors import PlanError
from base.messages import Effort
from supervisor.plan import at_effort, cycle, single, validate

AGENTS = ("code", "data", "qa")


def step(key: str = "s1", agent: str = "code", **more: Any) -> dict[str, Any]:
    return {"key": key, "agent": agent, "instruction": "do it", "effort": "standard", **more}


def criterion(id_: str = "ISC-1", **probe: Any) -> dict[str, Any]:
    return {"id": id_, "text": "it is there", "probe": probe or {"kind": "file", "path": "a"}}


def test_good_plan_keeps_everything() -> None:
    plan = validate(
        {
            "summary": "s",
            "subtasks": [
                step("a", budget_share=0.5, criteria=[criterion()], title="first"),
                step("b", "qa", depends_on=["a"], effort="deep"),
            ],
        },
        AGENTS,
    )
    first, second = plan.steps
    assert (first.key, first.agent, first.title, first.share) == ("a", "code", "first", 0.5)
    assert first.criteria[0].probe.path == "a"
    assert (second.depends_on, second.effort, second.share) == (("a",), Effort.DEEP, 0.5)
    assert plan.effort is Effort.DEEP


@pytest.mark.parametrize(
    ("subtasks", "fault"),
    [
        ([], "at least one subtask"),
        ("x", "must be a list"),
        ([step(), "x"], "must be an object"),
        ([step("a", "nobody")], "a: no agent named 'nobody'; there are: code, data, qa"),
        ([step("a", "")], "no agent named ''"),
        ([step(""), step("b")], "subtask 1 has no key"),
        ([step("a"), step("a")], "key 'a' is used twice"),
        ([step("a", instruction=" ")], "a: the instruction is empty"),
        ([step("a", instruction="x" * 20_001)], "longer than 20000"),
        ([step("a", effort="huge")], "no effort named 'huge'; there are: minimal, standard"),
        ([step("a", depends_on=["z"])], "a: depends_on names 'z', which is no subtask"),
        ([step("a", depends_on="b")], "a: depends_on must be a list"),
        ([step("a", depends_on=["a"])], "circle: a → a"),
        ([step("a", depends_on=["b"]), step("b", depends_on=["a"])], "circle: a → b → a"),
        ([step(f"s{n}") for n in range(13)], "13 subtasks; at most 12"),
        ([step("a", budget_share=0)], "a: budget_share must be above 0"),
        ([step("a", budget_share="much")], "budget_share must be above 0"),
        ([step("a", budget_share=True)], "budget_share must be above 0"),
        ([step("a", criteria="x")], "a: criteria must be a list"),
        ([step("a", criteria=[{"id": "ISC-1"}])], "a: a criterion is malformed at text"),
        ([step("a", criteria=[criterion("X-1")])], "id 'X-1' is not like ISC-1"),
        ([step("a", criteria=[criterion(), criterion()])], "ISC-1 is used twice"),
        ([step("a", criteria=[criterion(kind="command")])], "needs a command"),
    ],
)
def test_faults(subtasks: Any, fault: str) -> None:
    with pytest.raises(PlanError) as caught:
        validate({"subtasks": subtasks}, AGENTS)
    assert any(fault in one for one in caught.value.faults), caught.value.faults


def test_all_faults_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        validate({"subtasks": [step("a", "x"), step("b", effort="y", depends_on=["c"])]}, AGENTS)
    assert len(caught.value.faults) == 3


def test_twelve_are_allowed() -> None:
    assert len(validate({"subtasks": [step(f"s{n}") for n in range(12)]}, AGENTS).steps) == 12


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ({}, None),
        ({"a": (), "b": ("a",), "c": ("a", "b")}, None),
        ({"a": ("b",), "b": ("c",), "c": ("b",)}, ("b", "c", "b")),
        ({"a": ("unknown",)}, None),
        ({"d": ("a",), "a": ("b", "c"), "b": (), "c": ("d",)}, ("d", "a", "c", "d")),
    ],
)
def test_cycle(graph: dict[str, tuple[str, ...]], found: tuple[str, ...] | None) -> None:
    assert cycle(graph) == found


@pytest.mark.parametrize(
    ("given", "shares"),
    [
        ([None, None], [0.5, 0.5]),
        ([0.2, None], [0.2, 0.8]),
        ([0.2, 0.3], [0.2, 0.3]),
        ([1.0, 1.0], [0.5, 0.5]),
        ([0.9, 0.9, 0.2], [0.45, 0.45, 0.1]),
        ([1.0, None], [0.6667, 0.3333]),
    ],
)
def test_shares(given: list[float | None], shares: list[float]) -> None:
    raw = [
        step(f"s{n}", **({} if share is None else {"budget_share": share}))
        for n, share in enumerate(given)
    ]
    plan = validate({"subtasks": raw}, AGENTS)
    assert [one.share for one in plan.steps] == pytest.approx(shares, abs=1e-3)
    assert sum(one.share for one in plan.steps) <= 1 + 1e-9


def test_broadcast_becomes_a_step_an_agent() -> None:
    plan = validate(
        {"subtasks": [step("all", "*", budget_share=0.6), step("z", depends_on=["all"])]}, AGENTS
    )
    assert [(one.key, one.agent) for one in plan.steps] == [
        ("all-code", "code"),
        ("all-data", "data"),
        ("all-qa", "qa"),
        ("z", "code"),
    ]
    assert plan.steps[3].depends_on == ("all-code", "all-data", "all-qa")
    assert plan.steps[0].share == pytest.approx(0.2)


def test_a_probe_that_cannot_fail_is_a_fault_of_the_plan() -> None:
    criterion = {"id": "ISC-1", "text": "It is done", "probe": {"kind": "command", "command": ":"}}
    with pytest.raises(PlanError, match="a: ISC-1: the command ':' cannot fail"):
        validate({"subtasks": [step("a", criteria=[criterion])]}, AGENTS)


def test_chosen_effort_rules_every_step() -> None:
    plan = validate({"subtasks": [step("a"), step("b", effort="minimal")]}, AGENTS)
    assert {one.effort for one in at_effort(plan, Effort.DEEP).steps} == {Effort.DEEP}
    assert at_effort(plan, None) is plan


def test_single_is_titled_by_its_first_line() -> None:
    plan = single("\n" + "word " * 40 + "\nmore", Effort.MINIMAL, None)
    assert len(plan.steps[0].title) <= 80
    assert plan.steps[0].title.endswith("…")
