"""Programs run for one tool call: python, git, and node with its request and reply."""

from __future__ import annotations

import json
import os
import time

from .processes import Processes
from .wire import Refused, clean_output

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from typing import Any

#: A reply of node beyond this is a fault.
REPLY_MAX_BYTES = 2_000_000
BODY_MAX_BYTES = 64_000_000


class Programs:
    """`env` is what they inherit; `runtime` our programs for node, which lies beside them."""

    def __init__(self, processes: Processes, env: dict[str, str], runtime: str | None) -> None:
        self._processes = processes
        self._env = env
        self._runtime = runtime

    def run(
        self, argv: list[str], env: dict[str, str], at_s: float, number: int
    ) -> tuple[int | None, str]:
        """Exit code (None: killed at the deadline or stopped) and what it printed."""
        running = self._processes.start(argv, {**self._env, **env})
        how = self._processes.wait(running, at_s, number)
        printed = running.output.text().rstrip("\n")
        if how == "deadline":
            return None, f"killed, the time limit was reached\n{printed}".rstrip("\n")
        if how == "stop":
            return None, "stopped from outside"
        return running.code, printed

    def ask(
        self, script: str, request: dict[str, Any], at_s: float, number: int
    ) -> tuple[dict[str, Any], bytes]:
        """The reply of one of our node programs, and the body that it stored.

        It reads a line of JSON from 0, writes one to 3 and bytes to 4; 1 and 2 are complaints.
        """
        node = os.path.join(os.path.dirname(self._runtime or "/"), "node/bin/node")
        if self._runtime is None or not os.access(node, os.X_OK):
            raise Refused("this tool needs node, which this sandbox does not have")
        fds = {0: os.memfd_create("ask"), 3: os.memfd_create("reply"), 4: os.memfd_create("body")}
        try:
            left_s = max(0.0, at_s - time.monotonic())
            os.write(fds[0], json.dumps({**request, "left_s": left_s}).encode())
            os.lseek(fds[0], 0, os.SEEK_SET)
            argv = [node, "--no-warnings", f"{self._runtime}/{script}"]
            running = self._processes.start(argv, {**self._env, "NODE_USE_ENV_PROXY": "1"}, fds)
            how = self._processes.wait(running, at_s, number)
            if how != "exited":
                raise Refused("gave up, the time limit was reached")
            size_bytes = os.fstat(fds[3]).st_size
            if running.code or not 0 < size_bytes <= REPLY_MAX_BYTES:
                told = clean_output(running.output.raw()).strip()[-600:]
                raise Refused(f"its program failed (exit code {running.code}): {told}")
            reply = json.loads(os.pread(fds[3], size_bytes, 0))
            body = os.pread(fds[4], min(BODY_MAX_BYTES, os.fstat(fds[4]).st_size), 0)
        finally:
            for fd in fds.values():
                os.close(fd)
        return reply, body
