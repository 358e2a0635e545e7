"""One bubblewrap around the toolbox: started, watched by a handle on its process 1."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import marshal
import os
import zipfile
from functools import cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

from agents import sandbox
from base.deadline import Deadline
from base.errors import SandboxError

LINE_MAX_BYTES = 4_000_000
START_S = 15.0
REAP_S = 2.0


async def start(
    workspace: Path, who: sandbox.Account, scratch_bytes: int
) -> tuple[asyncio.subprocess.Process, int]:
    """The process and a descriptor (pidfd) of the sandbox's process 1, which the caller closes.

    SandboxError with the reason when there is no sandbox to be had.
    """
    bwrap = sandbox.bwrap()
    python, more = sandbox.python(who)
    inside = {sandbox.TOOLBOX: toolbox()}
    inside |= {path: text.encode() for path, text in sandbox.etc(who).items()}
    with contextlib.ExitStack() as fds:
        files = {path: _memory(fds, data) for path, data in inside.items()}
        info, info_write = os.pipe()
        fds.callback(os.close, info)
        view = sandbox.View(
            bwrap=bwrap,
            python=python,
            workspace=str(workspace),
            roots=sandbox.roots(),
            files=files,
            info_fd=info_write,
            more=more,
            scratch_bytes=scratch_bytes,
        )
        try:
            process = await _start(sandbox.argv(view), who, (info_write, *files.values()))
        except OSError as error:
            raise SandboxError(f"cannot start {bwrap}: {error.strerror}") from error
        finally:
            os.close(info_write)
        try:
            return process, await _pidfd(process, info)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise


async def reap(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of bubblewrap, which follows that of its sandbox; or bring it about."""
    try:
        await asyncio.wait_for(process.wait(), REAP_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def ended(pidfd: int, deadline: Deadline) -> bool:
    """Wait until the sandbox, and so all that is in it, is dead. False: still not at the deadline.

    A pid handle becomes readable once its process, and so its namespace, is dead.
    """
    return await _readable(pidfd, deadline)


def explain(complaint: str) -> str:
    """One line of what went wrong, and what mends it where that is known."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    reason = lines[-1][:300] if lines else "it was killed"
    low = complaint.lower()
    if "namespace" in low or "uid map" in low or "rtm_newaddr" in low:
        reason += (
            ". Unprivileged user namespaces must be allowed: "
            "sysctl kernel.unprivileged_userns_clone=1, or on Ubuntu "
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile for bwrap"
        )
    elif "unknown option" in low:
        reason += ". bubblewrap 0.8 or newer is needed: apt-get install bubblewrap"
    return reason


@cache
def toolbox() -> bytes:
    """The program that runs inside, as a zip file that Python can import from.

    The byte code beside the sources saves their compilation; another version passes it over.
    """
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for path in sorted((Path(__file__).parent / "toolbox").glob("*.py")):
            source = path.read_bytes()
            archive.writestr(f"toolbox/{path.name}", source)
            archive.writestr(f"toolbox/{path.stem}.pyc", _compiled(source, path.name))
    return data.getvalue()


async def _start(
    argv: list[str], who: sandbox.Account, fds: tuple[int, ...]
) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    become: dict[str, Any] = (
        {"user": who.uid, "group": who.gid, "extra_groups": []} if who.switch else {}
    )
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        limit=LINE_MAX_BYTES,
        cwd="/",
        env={},
        pass_fds=fds,
        **become,
    )


async def _pidfd(process: asyncio.subprocess.Process, info: int) -> int:
    """A handle on the sandbox's process 1, which bubblewrap tells on `info`."""
    os.set_blocking(info, False)
    data = b""
    deadline = Deadline.after(START_S)
    while not data.rstrip().endswith(b"}") and not deadline.passed:
        await _readable(info, deadline)
        try:
            piece = os.read(info, 4096)
        except BlockingIOError:
            continue
        if not piece:
            break
        data += piece
    try:
        return os.pidfd_open(int(json.loads(data)["child-pid"]))
    except (ValueError, KeyError, ProcessLookupError) as error:
        if process.stdin is not None:
            process.stdin.close()
        await reap(process)
        complaint = await process.stderr.read(4096) if process.stderr is not None else b""
        reason = explain(complaint.decode("utf-8", "replace"))
        raise SandboxError(f"the sandbox did not start: {reason}") from error


async def _readable(fd: int, deadline: Deadline) -> bool:
    """Wait until `fd` can be read (True) or the deadline passed."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ready.wait(), deadline.left_s)
    finally:
        loop.remove_reader(fd)
    return ready.is_set()


def _compiled(source: bytes, name: str) -> bytes:
    """Byte code as in a .pyc file that is never checked against its source (PEP 552)."""
    code = compile(source, f"toolbox/{name}", "exec", dont_inherit=True)
    header = MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
    return header + marshal.dumps(code)


def _memory(fds: contextlib.ExitStack, data: bytes) -> int:
    """A descriptor of an anonymous file with `data`, at its start."""
    fd = os.memfd_create("hands")
    fds.callback(os.close, fd)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
