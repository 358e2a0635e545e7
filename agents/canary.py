"""A trial of the sandbox: what must be denied is denied, what must work works."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from agents import sandbox
from agents.hands import Hands, ToolResult
from base.deadline import Deadline
from base.errors import SandboxError
from base.levels import STANDARD, Levels

CALL_S = 20.0
#: A name that no level lets through: the proxy must refuse it and tell.
REFUSED = "canary.invalid"
_BREACHES = {
    "READ": "a file outside the workspace could be read",
    "CONNECTED": "a network connection could be made",
    "SOCKET": "a Unix socket could be reached",
    "WROTE": "the system could be written",
}
_SCRIPT = """
cat {folder}/outside && echo READ
cat /etc/shadow && echo READ
(exec 3<>/dev/tcp/127.0.0.1/{port}) && echo CONNECTED
socat -u OPEN:/dev/null UNIX-CONNECT:socket && echo SOCKET
touch /usr/canary /etc/canary && echo WROTE
who=${{HTTP_PROXY#*//}} who=$(printf '%b' "${{who%@*}}" | sed 's/%3D/=/g' | base64 -w0)
(exec 3<>/dev/tcp/127.0.0.1/3128
printf 'CONNECT {refused}:443 HTTP/1.1\\r\\nProxy-Authorization: Basic %s\\r\\n\\r\\n' "$who" >&3
timeout 5 head -n 1 <&3)
echo {word} > inside
echo done
"""


async def canary(user: str | None) -> None:
    """Prove the sandbox. SandboxError unless reads, writes, connections and sockets outside are
    denied, a refused address is told, and the workspace can be written.
    """
    who = sandbox.account(user)
    folder = Path(tempfile.mkdtemp(prefix="ai-canary-", dir="/tmp"))
    workspace = folder / "workspace"
    word = secrets.token_hex(8)
    try:
        folder.chmod(0o755)
        (folder / "outside").write_text(f"{word}\n", encoding="utf-8")
        workspace.mkdir()
        tcp = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        unix = await asyncio.start_unix_server(
            lambda _, writer: writer.close(), workspace / "socket"
        )
        async with tcp, unix:
            if who.switch:
                os.chown(workspace, who.uid, who.gid)
            (workspace / "socket").chmod(0o777)
            port = tcp.sockets[0].getsockname()[1]
            script = _SCRIPT.format(folder=folder, port=port, refused=REFUSED, word=word)
            level = Levels.load().get(STANDARD)
            hands = await Hands.open(workspace=workspace, user=user, level=level)
            try:
                result = await hands.call(
                    "shell", {"command": script}, deadline=Deadline.after(CALL_S)
                )
            finally:
                await hands.close()
        _judge(result, workspace / "inside", word)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _judge(result: ToolResult, inside: Path, word: str) -> None:
    lines = result.text.splitlines()
    for mark, breach in _BREACHES.items():
        if mark in lines:
            raise SandboxError(f"the sandbox does not hold: {breach}")
    if "done" not in lines or word in result.text:
        raise SandboxError(f"the sandbox does not work: {result.text[-300:]}")
    if not inside.is_file() or inside.read_text(encoding="utf-8").strip() != word:
        raise SandboxError("the sandbox does not work: the workspace could not be written")
    if f"{REFUSED}:443" not in result.refused:
        raise SandboxError("the sandbox does not work: a refused address was not told")
