"""Which requests need no plan; everything doubtful gets one."""

from __future__ import annotations

import pytest

from base.messages import Effort
from supervisor.effort import infer


@pytest.mark.parametrize(
    "text",
    [
        "Hello!",
        "hi there",
        "Thanks",
        "Danke!",
        "What is a heap?",
        "who was Ada Lovelace?",
        "How many bits has a byte?",
        "Why is the sky blue?",
        'What is 2+2?\n\n```rehearsal\n{"say": "4"}\n```',
    ],
)
def test_minimal(text: str) -> None:
    assert infer(text) is Effort.MINIMAL


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Fix the bug",
        "What is in this folder?",
        "What is the disk usage?",
        "Could you write a script?",
        "Why does main.py fail?",
        "Is the server up?",
        "What does `ls` do?",
        "Explain quicksort",
        "Wie spät ist es?",
        "Kannst du die Datei löschen?",
        "What is a heap? Write one in C.",
        "What is a heap?\n\nAnd a tree?\n\nAnd a graph?",
        "What is " + "very " * 60 + "long?",
        'What is it?\n\n```rehearsal\n{"for": "planner", "plan": {}}\n```',
        'Hello\n\n```rehearsal\n{"tool": "write", "input": {}}\n```',
    ],
)
def test_plan(text: str) -> None:
    assert infer(text) is None
