"""The program's loop: a line of JSON in, one call done, a line of JSON out.

It is what process 1 of the sandbox waits for: when it ends all else in there ends. Requests are
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
from .git import Git
from .hooks import Hooks
from .jobs import Jobs
from .patch import Patch
from .processes import Processes
from .programs import Programs
from .python import Python
from .search import Search
from .shell import Shell
from .sql import Sql
from .web import Web
from .wire import Lines, OutOfTime, Refused, alarm, clip, send

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from typing import Any

_PR_SET_DUMPABLE, _PR_SET_NAME = 4, 15
_IDLE_S = 3600.0
#: What the shells on the way here left in the environment.
_OF_A_SHELL = {"PWD", "OLDPWD", "SHLVL", "_", "SRT_ALLOW_NESTED_USERNS"}
#: The least a file may have: the shell's own state is kept in one.
_FILE_MIN_BYTES = 1 << 20
#: Verbs that start no process have this long at most.
_QUICK_S = 30.0


class Toolbox:
    """The verbs. Each returns its reply; Refused and OutOfTime are replies as well."""

    def __init__(self, lines: Lines, workspace: str, limits: dict[str, int]) -> None:
        env = {name: value for name, value in os.environ.items() if name not in _OF_A_SHELL}
        runtime = env.pop("HANDS_RUNTIME", None)
        self.processes = Processes(lines, limits["output_bytes"])
        self.files = Files(workspace)
        self.search = Search(self.files, self.processes, env)
        self.shell = Shell(self.processes, workspace, env, limits["processes"])
        self.jobs = Jobs(self.shell, self.processes)
        self.patch = Patch(self.files)
        self.python = Python(self.files, self.shell)
        programs = Programs(self.processes, env, runtime)
        self.git = Git(self.files, programs)
        self.web = Web(self.files, programs)
        self.sql = Sql(self.files, programs)
        self.checks = Checks(self.files, self.shell)
        self.hooks = Hooks(self.processes, env)

    def answer(self, verb: str, given: dict[str, Any], at_s: float, number: int) -> dict[str, Any]:
        if verb == "shell":
            if given.get("background"):
                return self.jobs.start(given["command"], given.get("limit_s"))
            limit_s = float(given.get("limit_s", 120))
            at_s = min(at_s, time.monotonic() + limit_s)
            ran = self.shell.run(given["command"], at_s, number)
            return {"ok": ran["ok"], "text": ran["text"]}
        if verb == "check.command":
            return self.checks.command(given["command"], given.get("pattern"), at_s, number)
        if verb == "hooks":
            return self.hooks.run(given["jobs"], number)
        if verb in {"jobs", "git", "sql"}:
            longer = {"jobs": self.jobs.answer, "git": self.git.run, "sql": self.sql.run}
            return longer[verb](given, at_s, number)
        if verb in {"python", "web_fetch"}:
            run = self.python.run if verb == "python" else self.web.fetch
            return run(**given, at_s=at_s, number=number)
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
            "patch": self.patch.apply,
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
    _limit(resource.RLIMIT_FSIZE, max(limits["file_bytes"], _FILE_MIN_BYTES))
    _limit(resource.RLIMIT_NOFILE, limits["open_files"])
    _limit(resource.RLIMIT_CPU, limits["cpu_s"])
    _limit(resource.RLIMIT_CORE, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NAME, b"hands", 0, 0, 0)
    # Not dumpable: the tools' processes cannot open /proc/1/fd or /proc/1/mem.
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    os.umask(0o022)
    workspace = first["workspace"]
    toolbox = Toolbox(lines, workspace, limits)
    wanted = os.R_OK | os.X_OK | (os.W_OK if first["write"] else 0)
    usable = os.access(workspace, wanted)
    send(out, {"id": first["id"], "ok": usable, "text": workspace, "uid": os.getuid()})
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
