"""What the agent's window shows: a readable transcript in plain ANSI for 80 columns.

Everything that came from a model, a tool or a person passes `redact`, so that no secret stays in
the scrollback, and `neutral`, so that nothing in it can move the cursor, colour the screen or hide
text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from base.messages import Checked, Usage, Verdict, WorkOrder
from base.plural import counted
from base.redact import Flow, redact
from base.terminal import neutral, short

WIDTH = 80
RESULT_LINES = 4
MARKS = {Verdict.PASSED: ("✓", "32"), Verdict.FAILED: ("✗", "31"), Verdict.UNMEASURED: ("?", "33")}


class Transcript:
    """Writes to `out`; `plain` leaves the colours out. Never raises for odd text."""

    def __init__(self, out: TextIO, *, plain: bool) -> None:
        self._out = out
        self._plain = plain
        self._column = 0
        self._word = ""
        self._flow = Flow()

    def banner(self, agent: str, title: str, model: str, *, rehearsal: bool) -> None:
        self._rule(f"{agent} · {title}")
        self.line(f"model {model}", "2")
        if rehearsal:
            self.line("REHEARSAL: no model provider is set up; answers follow a script.", "33")
        self.line("Type to steer the running task; /help lists the commands.", "2")

    def task(self, order: WorkOrder, *, resumed: bool) -> None:
        self._rule(f"task {order.task_id[:8]}" + (" (resumed)" if resumed else ""))
        self.line(short(redact(order.instruction), 2 * WIDTH))
        budget = f"{order.budget.tokens:,} tokens, ${order.budget.usd:.2f}"
        self.line(f"for {short(order.user_id, 24)} · effort {order.effort} · budget {budget}", "2")

    def phase(self, phase: str, round_number: int) -> None:
        again = f" (round {round_number})" if round_number > 1 else ""
        self.line(f"── {phase}{again} ".ljust(WIDTH - 1, "─"), "1;36")

    def text(self, piece: str) -> None:
        """A piece of streamed text, wrapped at words."""
        self._wrap(self._flow.feed(piece))

    def _wrap(self, text: str) -> None:
        for part in re.split(r"(\s)", neutral(text)):
            if part and not part.isspace():
                self._word += part
            elif part:
                self._flush_word()
                if part == "\n":
                    self._newline()
                elif 0 < self._column < WIDTH - 1:
                    self._put(" ")
        self._out.flush()

    def tool(self, name: str, summary: str) -> None:
        self.line(short(redact(f"→ {name} {summary}"), WIDTH - 1), "35")

    def result(self, text: str, *, ok: bool) -> None:
        lines = [line for line in neutral(redact(text)).splitlines() if line.strip()]
        for line in lines[:RESULT_LINES]:
            self.line("  " + short(line, WIDTH - 4), "2" if ok else "31")
        if len(lines) > RESULT_LINES:
            self.line(f"  … {counted(len(lines) - RESULT_LINES, 'more line')}", "2")

    def recalled(self, entries: Sequence[Mapping[str, Any]], note: str) -> None:
        """What memory told the task, each with where it is from and what spoke for it."""
        if note:
            self.line(f"memory: {note}", "33")
        for one in entries:
            sign = "✎" if one.get("applies_when") else "◷"
            self.line(short(redact(f"{sign} {one['about']}: {one['text']}"), WIDTH - 1), "34")
            if one["why"]:
                self.line(
                    "    " + short(redact("because " + "; ".join(one["why"])), WIDTH - 6), "2"
                )

    def criterion(self, checked: Checked) -> None:
        mark, colour = MARKS[checked.verdict]
        self.line(short(redact(f"{mark} {checked.id} {checked.text}"), WIDTH - 1), colour)
        if checked.evidence:
            self.line("    " + short(redact(checked.evidence), WIDTH - 6), "2")

    def cost(self, usage: Usage) -> None:
        cached = f", {usage.cache_read_tokens:,} of them cached" if usage.cache_read_tokens else ""
        self.line(
            f"{counted(usage.model_calls, 'model call')}, "
            f"{counted(usage.tokens, 'token')}{cached}, ${usage.cost_usd:.4f}",
            "2",
        )

    def line(self, text: str, colour: str = "") -> None:
        """One line of its own, not wrapped."""
        self._wrap(self._flow.end())
        self._flush_word()
        if self._column:
            self._newline()
        safe = neutral(redact(text)).replace("\n", " ")
        self._out.write(
            f"\x1b[{colour}m{safe}\x1b[0m\n" if colour and not self._plain else f"{safe}\n"
        )
        self._out.flush()

    def _rule(self, title: str) -> None:
        self.line(f"══ {short(redact(title), WIDTH - 8)} ".ljust(WIDTH - 1, "═"), "1")

    def _flush_word(self) -> None:
        if self._word:
            if self._column and self._column + len(self._word) >= WIDTH:
                self._newline()
            self._put(self._word)
            self._word = ""

    def _put(self, text: str) -> None:
        self._out.write(text)
        self._column += len(text)

    def _newline(self) -> None:
        self._out.write("\n")
        self._column = 0
