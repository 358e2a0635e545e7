"""What a call needs, and which inputs no tool takes."""

from __future__ import annotations

from typing import Any

import pytest

from agents.tool_input import DEPTH_MAX
from agents.tool_shape import Need, Tool
from agents.tools import TOOLS, fault, needs


def test_no_tool_of_rank_0_writes_or_executes() -> None:
    assert {name for name, tool in TOOLS.items() if tool.level == 0} == {
        "read", "glob", "grep", "memory_search", "ask_peer", "handoff", "broadcast",
        "request_permission", "report_progress",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given", "rank", "destructive", "host"),
    [
        ("read", {"path": "a"}, 0, False, None),
        ("shell", {"command": "rm -rf ."}, 1, False, None),
        ("git", {"verb": "log"}, 1, False, None),
        ("git", {"verb": "clone", "url": "https://GitHub.com/a/b"}, 1, False, "github.com:443"),
        ("git", {"verb": "push", "branch": "b"}, 3, False, None),
        ("git", {"verb": "push", "url": "https://h:8/x", "branch": "b"}, 3, False, "h:8"),
        ("git", {"verb": "push", "branch": "b", "force": True}, 3, True, None),
        ("git", {"verb": "push", "branch": "b", "delete": True}, 3, True, None),
        ("git", {"verb": "branch", "branch": "b"}, 1, False, None),
        ("git", {"verb": "branch", "branch": "b", "delete": True}, 1, True, None),
        ("git", {"verb": "reset"}, 1, False, None),
        ("git", {"verb": "reset", "hard": True}, 1, True, None),
        ("git", {"verb": "clean"}, 1, False, None),
        ("git", {"verb": "clean", "force": True}, 1, True, None),
        ("git", {"verb": "checkout", "ref": "b"}, 1, False, None),
        ("git", {"verb": "checkout", "paths": ["a"]}, 1, True, None),
        ("web_fetch", {"url": "https://a.example./x"}, 1, False, "a.example:443"),
        ("web_fetch", {"url": "http://[::1]:80/x"}, 1, False, "[::1]:80"),
        ("web_fetch", {"url": "https://a:99999/"}, 1, False, None),
        ("sql", {"query": "q", "database": "postgres://h/x"}, 1, False, "h:5432"),
        ("sql", {"query": "q", "database": "a.db"}, 1, False, None),
    ],
)
def test_what_a_call_needs(
    name: str, given: dict[str, Any], rank: int, destructive: bool, host: str | None
) -> None:
    assert fault(name, given) is None
    need = needs(name, given)
    assert (need.rank, need.destructive, need.host) == (rank, destructive, host)
    assert need.why


def nested(deep: int) -> Any:
    value: Any = "x"
    for _ in range(deep):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("git", {"verb": "rebase"}, "field 'verb' must be one of status, log"),
        ("git", {"verb": "add", "paths": "a"}, "field 'paths' must be an array, not string"),
        ("git", {"verb": "add", "paths": [1]}, "field 'paths.0' must be a string, not integer"),
        ("git", {"verb": "add", "paths": ["a"] * 501}, "has 501 entries; at most 500"),
        ("git", {"verb": "add", "paths": ["a\0b"]}, "field 'paths' holds a NUL character"),
        ("git", {"verb": "add", "paths": ["\ud800"]}, "holds half a surrogate pair"),
        ("git", {"verb": "add", "paths": [""]}, "field 'paths.0' must not be empty"),
        ("shell", {"command": nested(5000)}, f"is nested more than {DEPTH_MAX} deep"),
        ("shell", {"command": {"a": "b"}}, "must be a string, not object"),
        ("write", {"path": "a", "content": "x" * 5_000_000}, "has 5,000,000 bytes; at most 1,000"),
        ("shell", {"x" * 5_000_000: "a"}, "a field's name has 5,000,000 bytes"),
        ("shell", {"\ud800": "a"}, "a field's name holds half a surrogate"),
        ("git", {"verb": "add", "paths": ["x" * 999_999] * 6}, "more than 2,000,000 bytes"),
        ("sql", {"query": "q", "parameters": [{}]}, "must be a string or a number or a boolean"),
        ("x" * 5000, {}, "no tool named 'xxxx"),
    ],
)
def test_what_no_tool_takes_is_told(name: str, given: object, told: str) -> None:
    line = fault(name, given)
    assert line is not None
    assert told in line
    assert "\n" not in line
    assert len(line) < 700


def foreign(schema: dict[str, Any]) -> dict[str, Tool]:
    return {"f": Tool(name="f", told="d", input_schema=schema, where="mcp", level=2)}


def test_a_foreign_servers_schema_is_checked_and_does_no_harm() -> None:
    known = foreign({"type": "object", "properties": {"n": {"type": "number", "minimum": 1}}})
    assert fault("f", {"n": 2}, known) is None
    assert fault("f", {"n": 0}, known) == "f: field 'n': 0 is less than the minimum of 1"
    assert needs("f", {"n": 2}, known) == Need(rank=2, why="f is for level 2 and above")
    slow = foreign({"properties": {"s": {"type": "string", "pattern": "^(a+)+$"}}})
    assert fault("f", {"s": "a" * 60 + "!"}, slow) is None, "its patterns are not run"
    for broken in ({"$ref": "https://evil.example/schema"}, {"type": 7}, {"$ref": "#"}):
        line = fault("f", {}, foreign(broken))
        assert line is not None
        assert "its schema cannot be checked" in line


def test_every_schema_is_valid_and_says_what_each_field_is() -> None:
    from jsonschema import Draft202012Validator

    for tool in TOOLS.values():
        Draft202012Validator.check_schema(tool.input_schema)
        assert tool.input_schema["additionalProperties"] is False
        for name, field in tool.input_schema["properties"].items():
            assert field["description"], f"{tool.name}.{name}"
