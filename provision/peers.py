"""Who is at the other end of the socket, as the kernel says, and what they may say of themselves.

A program says for whom it asks; nothing of that is believed beyond what its user may say. People's
programs speak for a user, whose role is looked up; agents' programs speak for an agent, never as
an administrator, however the process behind them lies.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from typing import Literal

from base.errors import ForbiddenError
from base.store import Store
from base.verbs import By
from provision.rules import Peers

ROOT = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process at the other end. speaks: for whom it may; None: for nobody."""

    uid: int
    pid: int
    name: str
    speaks: Literal["people", "agents"] | None


def peer_of(connection: socket.socket, peers: Peers) -> Peer:
    """Who opened the connection, by the kernel's word."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", raw)
    return named(uid, gid, pid, peers)


def named(uid: int, gid: int, pid: int, peers: Peers) -> Peer:
    """That user as the rules have it; who is both a person and an agent is an agent."""
    try:
        name = pwd.getpwuid(uid).pw_name
        groups = {_group(one) for one in os.getgrouplist(name, gid)}
    except KeyError:
        name, groups = str(uid), set()
    ours = {name, *(f"@{group}" for group in groups if group)}
    speaks: Literal["people", "agents"] | None = None
    if ours & set(peers.agents):
        speaks = "agents"
    elif ours & set(peers.people):
        speaks = "people"
    return Peer(uid=uid, pid=pid, name=name, speaks=speaks)


def _group(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None


async def speaker(peer: Peer, by: By, store: Store) -> By:
    """`by` as far as it may be believed: with the role that it really has.

    Raises ForbiddenError for what this peer may not say.
    """
    if peer.speaks is None:
        raise ForbiddenError(f"the user {peer.name} may not speak to the broker")
    if peer.speaks == "agents":
        if by.role != "user":
            raise ForbiddenError(f"{peer.name} speaks for agents, which are no {by.role}")
        if by.agent is None or by.task_id is None or by.user_id is None:
            raise ForbiddenError(
                f"{peer.name} speaks for agents: say agent, task_id and user_id; people use the "
                "portal, or root's own shell"
            )
        return by
    if by.agent is not None or by.task_id is not None or by.approval_id is not None:
        raise ForbiddenError(f"{peer.name} speaks for people, not for agents")
    if by.user_id is not None:
        return by.model_copy(update={"role": await role(store, by.user_id)})
    if peer.uid != ROOT:
        raise ForbiddenError(f"{peer.name} speaks for people: say user_id")
    return by


async def role(store: Store, user_id: str) -> str:
    """The role of an active user. Raises ForbiddenError for one who is none."""
    found: str | None = await store.fetchval(
        "SELECT role FROM users WHERE id::text = $1 AND is_active", user_id
    )
    if found is None:
        raise ForbiddenError("no active user of that id")
    return found
