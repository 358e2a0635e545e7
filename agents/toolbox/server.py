"""The program's loop: a line of JSON in, one call done, a line of JSON out.

It is process 1 of the sandbox, so when it ends all else in there ends. Requests are
`{"id", "verb", "input", "at_s"}` (monotonic seconds, the same clock inside and outside) and
`{"stop": id}`; the first one is `begin`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable

from .checks import Checks
from .files import Files
from .processes import Processes
from .search import Search
from .shell import Shell
from .wire import Lines, OutOfTime, Refused, alarm, clip, send

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from typing import Any

_PR_SET_DUMPABLE = 4
_IDLE_S = 3600.0
#: Verbs that start no process have this long at most.
_QUICK_S = 30.0


class Toolbox:
    """The verbs. Each returns its reply; Refused and OutOfTime are replies as well."""

    def __init__(self, lines: Lines, workspace: str, limits: dict[str, int]) -> None:
        env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TERM")}
        self.processes = Processes(lines, limits["output_bytes"])
        self.files = Files(workspace)
        self.search = Search(self.files, self.processes, env)
        self.shell = Shell(self.processes, workspace, env, limits["processes"])
        self.checks = Checks(self.files, self.shell)

    def answer(self, verb: str, given: dict[str, Any], at_s: float, number: int) -> dict[str, Any]:
        if verb == "shell":
            limit_s = float(given.get("limit_s", 120))
            at_s = min(at_s, time.monotonic() + limit_s)
            ran = self.shell.run(given["command"], at_s, number)
            return {"ok": ran["ok"], "text": ran["text"]}
        if verb == "check.command":
            return self.checks.command(given["command"], given.get("pattern"), at_s, number)
        if verb == "grep" and self.search.ripgrep:
            return self.search.grep(**given, at_s=at_s, number=number)
        with alarm(min(at_s, time.monotonic() + _QUICK_S)):
            return self._quick(verb, given, at_s, number)

    def _quick(self, verb: str, given: dict[str, Any], at_s: float, number: int) -> dict[str, Any]:
        if verb == "grep":
            return self.search.grep(**given, at_s=at_s, number=number)
        quick: dict[str, Callable[..., dict[str, Any]]] = {
            "read": self.files.read,
            "write": self.files.write,
            "edit": self.files.edit,
            "glob": self.search.glob,
            "check.file": self.checks.file,
            "check.pattern": self.checks.pattern,
            "check.http": self.checks.http,
        }
        return quick[verb](**given)


def begin(lines: Lines, out: int) -> Toolbox:
    """Close the doors (limits, no debugging of this process), then say what was found."""
    first = _next(lines)
    limits = first["limits"]
    _limit(resource.RLIMIT_NPROC, limits["processes"])
    _limit(resource.RLIMIT_DATA, limits["memory_bytes"])
    _limit(resource.RLIMIT_AS, limits["memory_bytes"] * 16)
    _limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    _limit(resource.RLIMIT_NOFILE, limits["open_files"])
    _limit(resource.RLIMIT_CPU, limits["cpu_s"])
    _limit(resource.RLIMIT_CORE, 0)
    # Not dumpable: the tools' processes cannot open /proc/1/fd or /proc/1/mem.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    os.umask(0o022)
    workspace = first["workspace"]
    toolbox = Toolbox(lines, workspace, limits)
    writable = os.access(workspace, os.R_OK | os.W_OK | os.X_OK)
    send(out, {"id": first["id"], "ok": writable, "text": workspace, "uid": os.getuid()})
    return toolbox


def main() -> None:
    lines, out = Lines(os.dup(0)), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.closerange(max(lines.fd, out, null) + 1, 256)
    toolbox = begin(lines, out)
    while True:
        while (request := lines.take()) is None:
            if lines.ended:
                os._exit(0)
            toolbox.processes.pump(_IDLE_S)
        if "stop" not in request:
            send(out, {"id": request["id"], **_reply(toolbox, request)})


def _reply(toolbox: Toolbox, request: dict[str, Any]) -> dict[str, Any]:
    verb, at_s = str(request["verb"]), float(request["at_s"])
    try:
        reply = toolbox.answer(verb, request["input"], at_s, int(request["id"]))
    except OutOfTime:
        reply = {"ok": False, "text": f"{verb}: gave up, the time limit was reached"}
    except Refused as error:
        reply = {"ok": False, "text": str(error)}
    except MemoryError:
        reply = {"ok": False, "text": f"{verb}: gave up, the memory limit was reached"}
    except Exception as error:
        reply = {"ok": False, "text": f"{verb}: {type(error).__name__}: {error}"}
    return {**reply, "text": clip(str(reply["text"]))}


def _next(lines: Lines) -> dict[str, Any]:
    while (request := lines.take()) is None:
        if lines.ended:
            sys.exit("no request came")
        lines.fill()
    return request


def _limit(what: int, most: int) -> None:
    """Lower the limit; one that is lower already stays."""
    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))
