"""Schemas and the one line that mends a wrong call."""

from __future__ import annotations

import pytest

from agents.tools import ARGUMENT_MAX_BYTES, TOOLS, fault, schemas


def test_the_tools_and_where_they_run() -> None:
    where = {name: tool.where for name, tool in TOOLS.items()}
    assert where == {
        **dict.fromkeys(
            [
                "shell",
                "read",
                "write",
                "edit",
                "patch",
                "glob",
                "grep",
                "jobs",
                "python",
                "git",
                "sql",
                "web_fetch",
            ],
            "sandbox",
        ),
        **dict.fromkeys(
            ["web_search", "memory_search", "memory_write", "ask_peer", "handoff"], "bus"
        ),
        **dict.fromkeys(["broadcast", "request_permission", "report_progress", "broker"], "bus"),
    }


def test_schemas_are_what_the_messages_api_takes() -> None:
    shell, edit = schemas(["shell", "edit"])
    assert set(shell) == {"name", "description", "input_schema"}
    assert shell["input_schema"]["required"] == ["command"]
    assert edit["input_schema"]["additionalProperties"] is False
    with pytest.raises(KeyError):
        schemas(["shell", "fly"])


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("shell", {"command": "echo $(date) | tee `x` && rm -rf /"}),
        ("shell", {"command": "sleep 1", "limit_s": 3600}),
        ("write", {"path": "a", "content": ""}),
        ("write", {"path": "a", "content": "nul \0 and esc \x1b"}),
        ("edit", {"path": "a", "old": "x", "new": "", "replace_all": True}),
        ("read", {"path": "a", "offset": 1, "limit": 1}),
        ("grep", {"pattern": "(", "glob": "*.py", "ignore_case": False}),
        ("handoff", {"agent": "qa", "notes": "ready"}),
    ],
)
def test_a_valid_call_has_no_fault(name: str, given: dict[str, object]) -> None:
    assert fault(name, given) is None


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("fly", {}, "no tool named 'fly'; there are: shell, read, write, edit, patch, glob, grep"),
        ("shell", [], "shell: the input must be an object, not array"),
        ("shell", None, "shell: the input must be an object, not null"),
        ("shell", {}, "shell: field 'command' is missing; it takes: command, limit_s, background"),
        ("shell", {"command": 5}, "shell: field 'command' must be a string, not integer"),
        ("shell", {"command": None}, "shell: field 'command' must be a string, not null"),
        ("shell", {"command": ""}, "shell: field 'command' must not be empty"),
        ("shell", {"command": "a\0b"}, "shell: field 'command' holds a NUL character"),
        ("shell", {"command": "x", "limit_s": "5"}, "'limit_s' must be an integer, not string"),
        ("shell", {"command": "x", "limit_s": True}, "'limit_s' must be an integer, not boolean"),
        ("shell", {"command": "x", "limit_s": 0}, "'limit_s' must be from 1 to 3600, not 0"),
        ("shell", {"command": "x", "cmd": "y"}, "there is no field 'cmd'; it takes: command, lim"),
        ("edit", {"path": "a", "old": "b"}, "edit: field 'new' is missing"),
        ("edit", {"path": "a", "old": "b", "new": "c", "replace_all": 1}, "must be a boolean"),
        ("read", {"path": "\ud800"}, "holds half a surrogate pair"),
        ("write", {"path": "a", "content": "x" * (ARGUMENT_MAX_BYTES + 1)}, "1,000,001 bytes"),
        ("write", {"path": "a", "content": "é" * (ARGUMENT_MAX_BYTES // 2 + 1)}, "1,000,002 byt"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(name: str, given: object, told: str) -> None:
    line = fault(name, given)
    assert line is not None
    assert told in line
    assert "\n" not in line
    assert len(line) < 400
