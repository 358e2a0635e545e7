"""The window's text: wrapped, and nothing in it can act on the terminal."""

from __future__ import annotations

import io

import pytest

from agents.transcript import Transcript
from base.messages import Checked, Usage, Verdict
from base.terminal import neutral, short


def shown(plain: bool = True) -> tuple[Transcript, io.StringIO]:
    out = io.StringIO()
    return Transcript(out, plain=plain), out


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("\x1b[31mred", "␛[31mred"),
        ("a\x9b2Jb", "a⟨9b⟩2Jb"),
        ("bell\x07 back\x08 del\x7f", "bell␇ back␈ del␡"),
        ("\u202eevil\u2066", "⟨202e⟩evil⟨2066⟩"),
        ("line\r\nline\rover", "line\nline␍over"),
        ("tab\tand\nnewline ä 漢 🎉", "tab\tand\nnewline ä 漢 🎉"),
        ("\ud800", "⟨d800⟩"),
    ],
)
def test_control_characters_become_visible(text: str, safe: str) -> None:
    assert neutral(text) == safe


def test_streamed_text_wraps_at_words_and_keeps_line_ends() -> None:
    transcript, out = shown()
    for piece in ["lorem ipsum " * 20, "dolor", "sit\n\n", "amet"]:
        transcript.text(piece)
    transcript.line("end")
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-3:] == ["", "amet", "end"]
    assert lines[-4].endswith("dolorsit")


def test_a_word_longer_than_the_line_is_not_lost() -> None:
    transcript, out = shown()
    transcript.text("x" * 300 + " y\n")
    assert out.getvalue().replace("\n", "").replace(" ", "") == "x" * 300 + "y"


def test_plain_has_no_escapes_and_colour_ends_on_its_line() -> None:
    for plain in (True, False):
        transcript, out = shown(plain)
        transcript.phase("OBSERVE", 2)
        transcript.tool("shell", "rm \x1b[2J")
        transcript.result("a\n\nb\nc\nd\ne\nf", ok=False)
        transcript.criterion(
            Checked(id="ISC-1", text="t", verdict=Verdict.UNMEASURED, evidence="none")
        )
        transcript.cost(Usage(model_calls=2, input_tokens=1_000, cache_read_tokens=500))
        text = out.getvalue()
        assert ("\x1b" in text) is not plain
        assert all(line.count("\x1b") in {0, 2} for line in text.splitlines())
        for part in ("(round 2)", "␛[2J", "? ISC-1 t", "… 2 more lines", "500 of them cached"):
            assert part in text


def test_short_is_one_line_of_its_length() -> None:
    assert short("a\nb\tc", 10) == "a b c"
    assert short("x" * 50, 10) == "x" * 9 + "…"
