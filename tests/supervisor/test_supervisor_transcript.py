"""Window 0 shows text of models and users: it must not be able to drive the terminal."""

from __future__ import annotations

import io

from supervisor.transcript import WIDTH, Transcript


def test_control_characters_never_pass() -> None:
    out = io.StringIO()
    Transcript(out).tell("a\x1b]0;title\x07b\x9b31mc\u202ed\r\ne")
    assert out.getvalue()[8:] == " a␛]0;title␇b⟨9b⟩31mc⟨202e⟩d e\n"


def test_lines_fit_the_window_and_carry_the_time_once() -> None:
    out = io.StringIO()
    Transcript(out).tell("word " * 60)
    lines = out.getvalue().splitlines()
    assert all(len(line) <= WIDTH for line in lines)
    assert lines[0][2] == ":"
    assert all(line.startswith(" " * 9) for line in lines[1:])


def test_empty_text_and_a_closed_window_are_no_error() -> None:
    out = io.StringIO()
    shown = Transcript(out)
    shown.tell("")
    out.close()
    shown.tell("x")
