"""One sandbox around the toolbox: the driver that starts it, and a handle on its process 1.

What is handed in lies in a folder of its own in /tmp, which goes with the sandbox; one whose agent
was killed is swept away by the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import marshal
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

from agents import runtime_install, sandbox
from agents.workspace import planted
from base.deadline import Deadline
from base.errors import SandboxError

LINE_MAX_BYTES = 4_000_000
#: Under a second as a rule; a machine under full load takes long.
START_S = 30.0
REAP_S = 2.0
PREFIX = "ai-hands-"
_PLACE = Path("/tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a sandbox shall be. rules: what may be reached; why: told to who is refused.

    command: what runs inside; none: the toolbox.
    """

    workspace: Path
    who: sandbox.Account
    writable: bool
    read: Sequence[str] = ()
    write: Sequence[str] = ()
    frozen: Sequence[str] = ()
    hidden: Sequence[str] = ()
    rules: Sequence[Mapping[str, object]] = ()
    denied_ranges: Sequence[str] = ()
    why: str = ""
    scratch_bytes: int
    environment: Mapping[str, str] = field(default_factory=dict)
    with_node: bool = False
    command: Sequence[str] = ()


@dataclass(slots=True, kw_only=True)  # mutable: it is removed once
class Box:
    """A sandbox that runs. `process` is the driver; `pidfd` a handle on the sandbox's process 1."""

    process: asyncio.subprocess.Process
    pidfd: int
    pid: int
    folder: Path
    events: asyncio.StreamReader
    frozen: Sequence[str]
    _lock: int
    _control: int
    _events: asyncio.ReadTransport
    _gone: bool = False

    def say(self, line: Mapping[str, object]) -> None:
        """Tell the driver. SandboxError when it does not listen any more."""
        try:
            os.write(self._control, json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise SandboxError(f"the sandbox is gone: {error.strerror}") from error

    async def remove(self) -> None:
        """Wait for the driver's end and take its folder away. Call it once all inside is dead."""
        if self._gone:
            return
        self._gone = True
        with contextlib.suppress(OSError):
            os.close(self._control)
        try:
            await reap(self.process)
        finally:
            self._events.close()
            os.close(self.pidfd)
            for path in planted(self.frozen):
                with contextlib.suppress(OSError):
                    os.unlink(path)
            await asyncio.to_thread(shutil.rmtree, self.folder, True)
            os.close(self._lock)


async def start(wish: Wish) -> Box:
    """Start it. SandboxError with the reason when there is no sandbox to be had."""
    programs = sandbox.programs()
    runtime = runtime_install.find(wish.who)
    sweep()
    try:
        return await _started(wish, runtime, programs)
    except OSError as error:
        raise SandboxError(f"the sandbox did not start: {error}") from error


async def _started(
    wish: Wish, runtime: runtime_install.Runtime, programs: Mapping[str, str]
) -> Box:
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as theirs:
        folder, lock = _folder(wish.who)
        undo.callback(os.close, lock)
        undo.callback(shutil.rmtree, folder, True)
        first, wrapper = _prepare(wish, runtime, folder, programs["bwrap"])
        pipes = [os.pipe() for _ in range(3)]
        (events, events_write), (control_read, control), (info, info_write) = pipes
        told = undo.enter_context(os.fdopen(events, "rb", 0))
        undo.callback(os.close, control)
        given = (events_write, control_read, info_write)
        for fd in given:
            theirs.callback(os.close, fd)
        argv = [programs["setpriv"], "--pdeathsig", "KILL", "--", str(runtime.node / "bin/node")]
        argv += ["--max-semi-space-size=1", "--max-old-space-size=256"]
        argv += [str(runtime.code / "driver.mjs"), "run", *map(str, given)]
        with os.fdopen(info, "rb", 0):
            process = await _start(argv, wish.who, given, folder)
            undo.callback(_kill, process)
            theirs.close()
            _write(control, json.dumps({**first, "wrapper": wrapper}).encode() + b"\n")
            pid, pidfd = await _pidfd(process, info)
        undo.callback(os.close, pidfd)
        reader = asyncio.StreamReader(limit=LINE_MAX_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), told
        )
        undo.pop_all()
        return Box(
            process=process,
            pidfd=pidfd,
            pid=pid,
            folder=folder,
            events=reader,
            frozen=wish.frozen,
            _lock=lock,
            _control=control,
            _events=transport,
        )


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def sweep() -> None:
    """Take away the folders of sandboxes whose agent is gone. Never raises."""
    for folder in _PLACE.glob(f"{PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / "lock", os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(lock)


async def reap(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of bubblewrap, which follows that of its sandbox; or bring it about."""
    try:
        async with asyncio.timeout(REAP_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def ended(pidfd: int, deadline: Deadline) -> bool:
    """Wait until the sandbox, and so all that is in it, is dead. False: still not at the deadline.

    A pid handle becomes readable once its process, and so its namespace, is dead.
    """
    return await _readable(pidfd, deadline)


def explain(complaint: str, code: int | None = None) -> str:
    """One line of what went wrong, and what mends it where that is known.

    `code`: how the driver ended, as subprocess tells it; None: not known.
    """
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    reason = lines[-1][:300] if lines else "it was killed"
    if not lines and code is not None:
        reason = f"it was killed by signal {-code}" if code < 0 else f"it ended with code {code}"
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


def _folder(who: sandbox.Account) -> tuple[Path, int]:
    """A new folder that only we may change, and the descriptor that holds its lock.

    `bridge` inside is the driver's own: sockets of the runtime lie there.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_PLACE))
    lock = os.open(folder / "lock.new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / "lock.new").rename(folder / "lock")  # held before `sweep` can find it
    (folder / "bridge").mkdir(mode=0o700)
    (folder / "etc").mkdir(mode=0o755)
    if who.switch:
        os.chown(folder / "bridge", who.uid, who.gid)
    folder.chmod(0o755)
    return folder, lock


def _prepare(
    wish: Wish, runtime: runtime_install.Runtime, folder: Path, bwrap: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Write what is handed in; the driver's settings and the variables of its bubblewrap."""
    node = str(runtime.node) if wish.with_node else None
    inner = [str(runtime.code), str(runtime.library / "vendor" / "seccomp"), str(folder / "bridge")]
    view = sandbox.look(
        workspace=wish.workspace,
        writable=wish.writable,
        read=[*wish.read, *inner, *([node, str(runtime.tree / "node_modules")] if node else [])],
        write=wish.write,
        frozen=wish.frozen,
        hidden=wish.hidden,
        box=folder,
        who=wish.who,
        code=runtime.code,
        scratch_bytes=wish.scratch_bytes,
        environment=sandbox.environment(
            [str(rule["address"]) for rule in wish.rules],
            {**wish.environment, "HANDS_RUNTIME": str(runtime.code)},
            node=node,
        ),
    )
    for name, text in sandbox.etc(wish.who).items():
        _put(folder / "etc" / name, text.encode())
    _put(folder / "toolbox.zip", toolbox())
    _put(folder / "first", _words(sandbox.first(sandbox.INFO_FD)))
    _put(folder / "last", _words(sandbox.last(view)))
    settings = sandbox.settings(view)
    settings["network"]["deniedResolvedAddresses"] = list(wish.denied_ranges)
    first = {
        "library": str(runtime.library / "dist" / "index.js"),
        "settings": settings,
        "rules": list(wish.rules),
        "reason": wish.why,
        "command": sandbox.line(wish.command) if wish.command else sandbox.command(view),
    }
    wrapper = {
        "HANDS_BWRAP": bwrap,
        "HANDS_FIRST": str(folder / "first"),
        "HANDS_LAST": str(folder / "last"),
        "HANDS_SCRATCH": "\n".join(
            f"{path} {size}" for path, size in sandbox.shares(view.scratch_bytes).items()
        ),
    }
    return first, wrapper


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o644)


def _words(words: Sequence[str]) -> bytes:
    """As bubblewrap's --args reads them."""
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


async def _start(
    argv: list[str], who: sandbox.Account, fds: tuple[int, ...], folder: Path
) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    become: dict[str, Any] = (
        {"user": who.uid, "group": who.gid, "extra_groups": []} if who.switch else {}
    )
    bridge = str(folder / "bridge")
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        limit=LINE_MAX_BYTES,
        cwd=bridge,
        env={"PATH": sandbox.PATH, "HOME": bridge, "TMPDIR": bridge, "LANG": "C.UTF-8"},
        pass_fds=fds,
        **become,
    )


async def _pidfd(process: asyncio.subprocess.Process, info: int) -> tuple[int, int]:
    """The sandbox's process 1, which bubblewrap tells on `info`, and a handle on it."""
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
        pid = int(json.loads(data)["child-pid"])
        return pid, os.pidfd_open(pid)
    except (ValueError, KeyError, ProcessLookupError) as error:
        late = deadline.passed
        if process.stdin is not None:
            process.stdin.close()
        await reap(process)
        complaint = await process.stderr.read(8192) if process.stderr is not None else b""
        reason = explain(complaint.decode("utf-8", "replace"), process.returncode)
        if late:
            reason = f"not ready within {START_S:g} s (is the machine overloaded?); {reason}"
        raise SandboxError(f"the sandbox did not start: {reason}") from error


async def _readable(fd: int, deadline: Deadline) -> bool:
    """Wait until `fd` can be read (True) or the deadline passed."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline.left_s):
                await ready.wait()
    finally:
        loop.remove_reader(fd)
    return ready.is_set()


def _compiled(source: bytes, name: str) -> bytes:
    """Byte code as in a .pyc file that is never checked against its source (PEP 552)."""
    code = compile(source, f"toolbox/{name}", "exec", dont_inherit=True)
    header = MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
    return header + marshal.dumps(code)
