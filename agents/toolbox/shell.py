"""The shell: a bash a call; the current folder and the exported variables live on."""

from __future__ import annotations

import contextlib
import os
import re
import time

from .processes import Processes, Running

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from typing import Any

_PLACE = "/run/hands"
_COMMAND, _STATE, _NEXT = f"{_PLACE}/command", f"{_PLACE}/state", f"{_PLACE}/state.new"
_STATE_END = b"\n# end\n"
_STATE_MAX_BYTES = 256_000

#: The trap saves what lives on; a command that sets its own EXIT trap keeps the state before it.
_SOFT = """
builtin echo 800 2>/dev/null >/proc/self/oom_score_adj"""
_FRESH = f"""{_SOFT}
. {_COMMAND}"""
_KEPT = f"""
builtin trap 'builtin trap - EXIT
{{ builtin printf "builtin cd -- %q\\n" "$PWD"; builtin export -p
builtin printf "\\n# end\\n"; }} 2>/dev/null >|{_NEXT}' EXIT
if [ -r {_STATE} ]; then . {_STATE} 2>/dev/null; fi{_FRESH}"""


class Shell:
    """`process_limit`: how many processes the sandbox may have; near it, leftovers are killed."""

    def __init__(
        self, processes: Processes, workspace: str, env: dict[str, str], process_limit: int
    ) -> None:
        self._processes = processes
        self._workspace = workspace
        self._env = env
        self._process_limit = process_limit
        self._had_folder: str | None = None

    def job(self, command: str, name: str) -> Running:
        """Start `command` in the present folder and variables; it changes neither."""
        path = f"{_PLACE}/command-{name}"
        with open(path, "w", encoding="utf-8") as file:
            file.write(command + "\n")
        code = f"if [ -r {_STATE} ]; then . {_STATE} 2>/dev/null; fi{_SOFT}\n. {path}"
        argv = ["/bin/bash", "--noprofile", "--norc", "-c", code]
        return self._processes.start_job(argv, self._env, f"/tmp/output/{name}.txt")

    def run(self, command: str, at_s: float, number: int, *, fresh: bool = False) -> dict[str, Any]:
        """Run `command`; `fresh`: from the workspace, with none of the state, leaving none.

        Answers ok, text, code (None when killed here), how and the raw output's both ends.
        """
        with contextlib.suppress(OSError):
            os.unlink(_NEXT)
        with open(_COMMAND, "w", encoding="utf-8") as file:
            file.write(command + "\n")
        begun_s = time.monotonic()
        argv = ["/bin/bash", "--noprofile", "--norc", "-c", _FRESH if fresh else _KEPT]
        running = self._processes.start(argv, self._env)
        how = self._processes.wait(running, at_s, number)
        took_s = time.monotonic() - begun_s
        moved = "" if fresh or how != "exited" else self._keep()
        code = running.code if how == "exited" else None
        text = self._head(how, code, took_s) + moved + self._leftovers(running)
        shown = running.output.text().rstrip("\n")
        text += "\n" + (shown if shown.strip() else "(no output)")
        raw = running.output.raw()
        return {"ok": code == 0, "text": text, "code": code, "how": how, "raw": raw}

    @staticmethod
    def _head(how: str, code: int | None, took_s: float) -> str:
        if how == "deadline":
            return f"killed after {took_s:.0f} s, its time limit, with all it had started"
        if how == "stop":
            return "stopped from outside, with all it had started"
        if code is not None and code < 0:
            return f"killed by signal {-code}"
        return f"exit code {code}"

    def _leftovers(self, running: Running) -> str:
        count = self._processes.left_behind(running)
        if count > self._process_limit // 2:
            self._processes.kill_all()
            return f"; it left {count} processes behind, too many: all were killed"
        return f"; {count} still running in the background" if count else ""

    def _keep(self) -> str:
        """Make the state that the command left the next one's. Says so when the folder changed."""
        try:
            fd = os.open(_NEXT, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(fd, "rb") as file:
                state = file.read(_STATE_MAX_BYTES + 1)
        except OSError:
            return ""
        if not state.endswith(_STATE_END):
            return "; folder and variables were not kept"
        with open(_STATE, "wb") as file:
            file.write(state)
        found = re.search(rb"^declare -x PWD=\"(.*)\"$", state, re.MULTILINE)
        folder = found[1].decode("utf-8", "replace") if found else self._workspace
        changed = folder != (self._had_folder or self._workspace)
        self._had_folder = folder
        return f"; now in {folder}" if changed else ""
