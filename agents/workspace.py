"""Which folder may be a task's workspace, and making the product's own ones."""

from __future__ import annotations

import os
from pathlib import Path

from agents.sandbox import SCRATCH, Account, blocked
from base.errors import SandboxError
from base.settings import Settings

SYSTEM = ("/usr", "/etc", "/proc", "/dev", "/sys", "/boot", "/bin", "/sbin", "/lib", "/lib64")


def refusal(workspace: Path, settings: Settings) -> str | None:
    """Why a folder cannot be a workspace; None when it can. `workspace` is a real path."""
    own = Path(os.path.realpath(settings.workspaces))
    home, run = (Path(os.path.realpath(path)) for path in (settings.home, settings.run))
    if any(workspace == Path(path) for path in ("/", *SCRATCH, "/var", "/var/lib", "/srv")):
        return f"{workspace} is a folder of the system"
    if any(workspace.is_relative_to(path) for path in SYSTEM):
        return f"{workspace} is part of the system"
    for name, kept in (("state", home), ("workspaces", own), ("sockets", run)):
        if kept.is_relative_to(workspace):
            return f"{workspace} holds the product's own {name}"
    if workspace.is_relative_to(own):
        few = len(workspace.relative_to(own).parts) < 2
        return f"{workspace} holds all workspaces of a user" if few else None
    for kept in (home, run):
        if workspace.is_relative_to(kept):
            return f"{workspace} is part of the product's own state"
    return None


def prepare(workspace: Path, settings: Settings, who: Account) -> Path:
    """The workspace's real path. One of the product's own is made, for the hands alone.

    SandboxError when it cannot be one, or cannot be reached. Safe to call again.
    """
    asked = Path(os.path.abspath(workspace))
    real = Path(os.path.realpath(workspace))
    own = Path(os.path.realpath(settings.workspaces))
    inside = [base for base in (settings.workspaces, own) if asked.is_relative_to(base)]
    straight = own / asked.relative_to(inside[0]) if inside else asked
    if real != straight and (inside or real.is_relative_to(own)):
        raise SandboxError(f"the workspace {asked} leads to {real}: no link may do that")
    reason = refusal(real, settings)
    if reason is not None:
        raise SandboxError(f"no workspace: {reason}; give a folder made for the task")
    if real.is_relative_to(own) and len(real.relative_to(own).parts) == 2:
        _make(own, real, who)
    if not real.is_dir():
        raise SandboxError(f"no workspace: there is no folder {real}")
    folder = blocked(real / "x", who)
    if folder is not None and folder != real:
        raise SandboxError(
            f"{who.name} cannot reach the workspace {real}: "
            f"setfacl -m u:{who.name}:x {folder}, or give another folder"
        )
    return real


def ownership(workspace: str, who: Account) -> str:
    """The message for a workspace that the hands cannot write."""
    return (
        f"{who.name} cannot read and write the workspace {workspace}: "
        f"setfacl -R -m u:{who.name}:rwX -m d:u:{who.name}:rwX {workspace} "
        f"(or chown -R {who.name}: {workspace})"
    )


def _make(own: Path, real: Path, who: Account) -> None:
    """`own/<user>/<name>`: the parents are ours and let others only pass."""
    try:
        for folder in (own, real.parent):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        real.mkdir(mode=0o700, exist_ok=True)
        if who.switch:
            for folder in (own, real.parent):
                folder.chmod(0o711)
            if real.stat().st_uid != who.uid:
                os.chown(real, who.uid, who.gid, follow_symlinks=False)
    except OSError as error:
        raise SandboxError(
            f"cannot make the workspace {real}: {error.strerror} ({error.filename})"
        ) from error
