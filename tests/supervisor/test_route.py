"""Routes by tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from base.errors import UnknownAgentError
from supervisor.route import Candidate, route

CODE = Candidate(name="code", capabilities=("code", "python", "bug"))
DATA = Candidate(name="data", capabilities=("sql", "csv", "report"))
QA = Candidate(name="qa", capabilities=("test", "review"))
BUSY_CODE, GONE_CODE = replace(CODE, load=1), replace(CODE, barred="is paused")


@pytest.mark.parametrize(
    ("text", "candidates", "asked", "agent", "why"),
    [
        ("fix the python bug", (QA, CODE, DATA), {}, "code", "knows bug, python"),
        ("read the reports", (CODE, DATA), {}, "data", "knows reports"),
        ("hello", (QA, CODE), {}, "code", "nobody's words match"),
        ("hello", (replace(CODE, served=2), QA), {}, "qa", "nobody's words match"),
        ("fix the bug", (BUSY_CODE, QA), {}, "qa", "1 busy"),
        ("fix the bug", (BUSY_CODE,), {}, None, "every agent is busy"),
        ("fix the bug", (GONE_CODE,), {}, None, "no agent can take it: code is paused"),
        ("write sql", (CODE, DATA), {"planned": "code"}, "code", "named by the plan"),
        ("write sql", (BUSY_CODE, DATA), {"planned": "code"}, None, "for code, which is busy"),
        ("write sql", (GONE_CODE, DATA), {"planned": "code"}, "data", "place of code, which is"),
        ("write sql", (DATA,), {"planned": "old"}, "data", "old, which is not in the roster"),
        ("write sql", (CODE, DATA), {"requested": "code"}, "code", "asked for by name"),
        ("write sql", (CODE, DATA), {"requested": "code", "planned": "data"}, "code", "asked for"),
        ("write sql", (GONE_CODE, DATA), {"requested": "code"}, None, "which is paused"),
        ("write sql", (BUSY_CODE, DATA), {"requested": "code"}, None, "which is busy"),
    ],
)  # fmt: skip
def test_route(
    text: str, candidates: tuple[Candidate, ...], asked: dict[str, str], agent: str | None, why: str
) -> None:
    choice = route(text, candidates, **asked)
    assert choice.agent == agent
    assert why in choice.why


def test_unknown_requested_agent_names_those_there_are() -> None:
    with pytest.raises(UnknownAgentError, match="no agent named 'x'; there are: code, data"):
        route("t", (CODE, DATA), requested="x")
