"""git for the broker: one bare repository of ours for each at GitHub, and the way between them.

The token is in the environment of git alone, for a credential helper that lies on no disk; it is
in no argument, no address and no file. No hook, no configuration of the machine and no protocol
besides the remote's own counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from base.errors import ConflictError
from base.redact import redact

#: Runs in git's own shell, which takes the token from its environment.
ASK = (
    '!f() { test "$1" = get && echo username=x-access-token && echo "password=$AI_GIT_TOKEN"; }; f'
)
REMOTE_S, LOCAL_S = 240.0, 120.0
PLAIN, PROGRAM = "100644", "100755"
TOLD_CHARS = 600
#: What git says when somebody else pushed meanwhile, before or in the same moment.
MOVED = ("non-fast-forward", "fetch first", "cannot lock ref")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file in a commit: its mode and the name of its content."""

    mode: str
    oid: str


class RejectedError(ConflictError):
    """The remote has moved on since it was fetched; look at it again."""


def oid(data: bytes) -> str:
    """The name that git gives the content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class Repo:
    """The bare repository in `folder` and the remote one at `url`. Made at the first use."""

    def __init__(self, folder: Path, url: str, branch: str, token: SecretStr, author: str) -> None:
        self._folder = folder
        self._url = url
        self._branch = branch
        self._token = token
        self._author = author

    async def ready(self) -> None:
        if not (self._folder / "HEAD").exists():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._git("init", "-q", "--bare", "--template=", str(self._folder))

    async def fetch(self) -> str | None:
        """The remote branch's commit, now here too; None while the branch is not there."""
        heads = await self._git(
            "ls-remote", "--heads", self._url, f"refs/heads/{self._branch}", remote=True
        )
        if not heads.strip():
            return None
        await self._git(
            "fetch", "-q", "--no-tags", "--depth=1", self._url,
            f"+refs/heads/{self._branch}:refs/there", remote=True,
        )  # fmt: skip
        return await self.commit("refs/there")

    async def push(self, commit: str) -> None:
        """Never forced. Raises RejectedError when the branch has moved meanwhile."""
        try:
            await self._git(
                "push", "-q", "--porcelain", self._url, f"{commit}:refs/heads/{self._branch}",
                remote=True,
            )  # fmt: skip
        except ConflictError as error:
            if any(words in str(error) for words in MOVED):
                raise RejectedError(f"{self._branch} moved meanwhile") from error
            raise

    async def commit(self, ref: str) -> str | None:
        """The commit that `ref` names, None for none."""
        try:
            return (
                (await self._git("rev-parse", "-q", "--verify", f"{ref}^{{commit}}"))
                .decode()
                .strip()
            )
        except ConflictError:
            return None

    async def tree(self, commit: str | None) -> dict[str, Blob]:
        """Every file of the commit; links and submodules have their own modes."""
        if commit is None:
            return {}
        found = {}
        for entry in (await self._git("ls-tree", "-r", "-z", "--full-tree", commit)).split(b"\0"):
            if entry:
                about, _, path = entry.partition(b"\t")
                mode, _, name = about.decode().split(" ")
                found[os.fsdecode(path)] = Blob(mode=mode, oid=name)
        return found

    async def data(self, blob: Blob) -> bytes:
        return await self._git("cat-file", "blob", blob.oid)

    def store(self, data: bytes) -> str:
        """Keep the content, from any thread; its name. What no commit names goes after a while."""
        name = oid(data)
        path = self._folder / "objects" / name[:2] / name[2:]
        if not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            beside = path.parent / f".{os.urandom(8).hex()}"
            beside.write_bytes(zlib.compress(b"blob %d\0" % len(data) + data, 1))
            beside.rename(path)
        return name

    async def write(
        self, ref: str, parent: str | None, changes: Mapping[str, Blob | None], message: str
    ) -> str:
        """A commit on `parent` with `changes` (None: taken away), named by `ref`; its name."""
        text = message.encode()
        stream = [b"commit refs/scratch\n", b"committer %s now\n" % self._author.encode()]
        stream.append(b"data %d\n%s\n" % (len(text), text))
        stream.append(b"from %s\n" % parent.encode() if parent else b"")
        for path, change in sorted(changes.items(), key=lambda one: (one[1] is not None, one[0])):
            name = _quoted(path)
            if change is None:
                stream.append(b"D %s\n" % name)
            else:
                stream.append(b"M %s %s %s\n" % (change.mode.encode(), change.oid.encode(), name))
        stream.append(b"done\n")
        await self._git("update-ref", "-d", "refs/scratch")
        await self._git(
            "fast-import", "--quiet", "--done", "--date-format=now", into=b"".join(stream)
        )
        made = await self.commit("refs/scratch")
        assert made is not None
        await self._git("update-ref", ref, made)
        return made

    async def merge(self, base: bytes, here: bytes, there: bytes) -> bytes | None:
        """Both changes of a text together, None where they meet."""
        folder = self._folder / "merge"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            for name, data in (("here", here), ("base", base), ("there", there)):
                (folder / name).write_bytes(data)
            names = [str(folder / name) for name in ("here", "base", "there")]
            return await self._git("merge-file", "-p", "-q", *names)
        except ConflictError:
            return None
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def tidy(self) -> None:
        await self._git("gc", "-q", "--auto")

    async def _git(self, *words: str, into: bytes | None = None, remote: bool = False) -> bytes:
        """What git prints. Raises ConflictError with git's own words, without a secret."""
        git = shutil.which("git", path="/usr/local/bin:/usr/bin:/bin")
        if git is None:
            raise ConflictError("git is not installed: apt-get install git")
        scheme = urlsplit(self._url).scheme
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LC_ALL": "C",
            "HOME": str(self._folder),
            "GIT_DIR": str(self._folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": scheme,
        }
        settings = {
            "core.hooksPath": "/dev/null",
            "http.followRedirects": "false",
            "gc.autoDetach": "false",
            "fetch.fsckObjects": "true",
        }
        if remote:
            environment["AI_GIT_TOKEN"] = self._token.get_secret_value()
            settings["credential.helper"] = ASK
        for number, (key, value) in enumerate(settings.items()):
            environment[f"GIT_CONFIG_KEY_{number}"] = key
            environment[f"GIT_CONFIG_VALUE_{number}"] = value
        environment["GIT_CONFIG_COUNT"] = str(len(settings))
        return await _ran([git, *words], environment, into, REMOTE_S if remote else LOCAL_S)


async def _ran(
    argv: Sequence[str], environment: dict[str, str], into: bytes | None, limit_s: float
) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=environment,
        stdin=asyncio.subprocess.PIPE if into is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(limit_s):
            out, told = await process.communicate(into)
    except TimeoutError as error:
        raise ConflictError(f"git {argv[1]} took longer than {limit_s:.0f} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
    if process.returncode:
        text = redact((told + b"\n" + out).decode(errors="replace")).strip()
        raise ConflictError(f"git {argv[1]}: {text[:TOLD_CHARS] or f'code {process.returncode}'}")
    return out


def _quoted(path: str) -> bytes:
    data = os.fsencode(path).replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"%s"' % data
