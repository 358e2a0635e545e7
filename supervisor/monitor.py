"""The monitor window: a table of agents, queues and cost that redraws itself.

`python -m supervisor.monitor RUN_FOLDER`. It reads the picture that the watchdog leaves in
`run/watch.json` and imports nothing heavy, because it stays open for ever. `q` or Ctrl-C ends it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import termios
import time
import tty
from pathlib import Path
from typing import Any

from base.terminal import neutral

LOOK_S = 2.0
OLD_S = 30.0
GREEN, YELLOW, RED, DIM, BOLD, PLAIN = (f"\x1b[{code}m" for code in (32, 33, 31, 2, 1, 0))
COLOURS = {"running": GREEN, "starting": YELLOW, "stopping": YELLOW, "backoff": YELLOW}


def main(run: Path) -> int:
    """Redraw when something changed, at most every LOOK_S. Ends with 0 on request."""
    shown = ""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with _Keys() as keys:
        while True:
            text = render(*read(run / "watch.json"), os.get_terminal_size().columns)
            if text != shown:
                sys.stdout.write("\x1b[H\x1b[2J" + text.replace("\n", "\r\n"))
                sys.stdout.flush()
                shown = text
            if keys.pressed(LOOK_S) in {"q", "\x03"}:
                return 0


def read(path: Path) -> tuple[dict[str, Any], float | None]:
    """The picture and its age in seconds; an empty one and None when there is none."""
    try:
        age_s = max(0.0, time.time() - path.stat().st_mtime)
        picture = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}, None
    return picture, age_s


def render(picture: dict[str, Any], age_s: float | None, columns: int) -> str:
    """The whole screen, no line longer than `columns` visible characters."""
    if age_s is None:
        return "The watchdog has not written anything yet."
    cost_usd = picture.get("cost_usd")
    facts = f"model {picture.get('model')}   cost today "
    facts += "-" if cost_usd is None else f"${cost_usd:.4f}"
    lines = [(BOLD, f"AI Infrastructure   {facts}"), ("", "")]
    if age_s > OLD_S:
        lines.append((RED, f"The watchdog wrote this {int(age_s)} s ago: is it running?"))
    if not picture.get("wire"):
        lines.append((RED, "Redis cannot be reached."))
    head = (
        f"{'WINDOW':<12}{'STATE':<10}{'DOES':<9}{'PHASE':<9}{'TASK':<10}{'MB':>5}{'RESTARTS':>10}"
    )
    lines.append((DIM, head))
    agents = picture.get("agents", {})
    for name, window in picture.get("windows", {}).items():
        beat = agents.get(name, {})
        if beat.get("pid") != window.get("pid"):
            beat = {}
        does = "paused" if beat.get("paused") else beat.get("status") or "-"
        mb = f"{beat['rss_bytes'] / 2**20:.0f}" if beat.get("rss_bytes") else "-"
        state = str(window.get("state"))
        row = f"{name:<12}{state:<10}{does:<9}{beat.get('phase') or '-':<9}"
        row += f"{(beat.get('task_id') or '-')[:8]:<10}{mb:>5}{window.get('restarts', 0):>10}"
        lines.append((COLOURS.get(state, RED), row))
    waiting = {name: size for name, size in picture.get("queues", {}).items() if size}
    text = "   ".join(f"{name} {size}" for name, size in waiting.items()) or "empty"
    lines += [("", ""), ("", f"queues: {text}")]
    return "\n".join(f"{colour}{neutral(line)[:columns]}{PLAIN}" for colour, line in lines)


class _Keys:
    """Single keys from the terminal, without echo; none when there is no terminal."""

    def __enter__(self) -> _Keys:
        self._before = termios.tcgetattr(0) if sys.stdin.isatty() else None
        if self._before is not None:
            tty.setcbreak(0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._before)

    def pressed(self, limit_s: float) -> str:
        """The next key within `limit_s`, or ""; the end of input counts as q."""
        if self._before is None:
            time.sleep(limit_s)
            return ""
        ready, _, _ = select.select([0], [], [], limit_s)
        return (os.read(0, 1).decode(errors="replace") or "q") if ready else ""


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(0)
