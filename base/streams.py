"""Every key on the wire: name, writer, reader, retention. No key is spelled anywhere else.

| key | writer | reader (group) | retention |
|---|---|---|---|
| tasks:new | outbox relay (portal, supervisor) | supervisor (supervisor) | deleted once handled |
| agent:<name> | outbox relay (supervisor) | that agent (agent) | deleted once handled |
| results | agents | supervisor (supervisor) | deleted once handled |
| usage | agents, supervisor | supervisor (supervisor) | deleted once handled |
| memory | agents, outbox relay (supervisor, portal) | keeper (keeper) | deleted once handled |
| audit | everybody, outbox relay | supervisor's audit writer (audit) | deleted once written |
| heartbeats | every process | supervisor, watchdog (tail) | newest 2,000 |
| control:<name> | portal, supervisor | that agent (tail from its start) | newest 200 |
| broadcast | agents | agents (tail) | newest 500 |
| events | supervisor, agents, portal | portal feed (tail), `ai-infra events` | newest 50,000 |
| ask:<service> | anybody | that service (service) | deleted once handled |
| reply:<uuid> | the service asked | the asker | 60 s |
| ai:dlq:<stream> | bus | `ai-infra dlq` | newest 10,000, 7 days |

A work stream (deleted once handled) is never trimmed by length: trimming loses unread work.
"""

from __future__ import annotations

import hashlib

TASKS_NEW = "tasks:new"
RESULTS = "results"
USAGE = "usage"
MEMORY = "memory"
AUDIT = "audit"
HEARTBEATS = "heartbeats"
BROADCAST = "broadcast"
EVENTS = "events"

#: Live-view streams and how many entries each keeps; everything else is a work stream.
KEEP = {HEARTBEATS: 2_000, BROADCAST: 500, EVENTS: 50_000}
KEEP_CONTROL = 200
KEEP_DLQ = 10_000
DLQ_DAYS = 7
REPLY_TTL_S = 60

#: Consumer groups. One group per reading process kind; the consumer is the process's name.
GROUP_SUPERVISOR = "supervisor"
GROUP_AGENT = "agent"
GROUP_SERVICE = "service"
GROUP_AUDIT = "audit"
GROUP_KEEPER = "keeper"

DLQ_PREFIX = "ai:dlq:"
AGENT_PREFIX = "agent:"
CONTROL_PREFIX = "control:"
ASK_PREFIX = "ask:"
REPLY_PREFIX = "reply:"

#: Services that answer `bus.ask`.
SERVICE_SUPERVISOR = "supervisor"
SERVICE_WATCH = "watch"
SERVICE_MEMORY = "memory"
SERVICE_EMBED = "embed"
SERVICE_SCORE = "score"
SERVICE_LISTEN = "listen"

#: Keys that are no streams: `embedding:<model>:<hash>` (embedding worker, 30 days, bytes of
#: float32) and `memory:hot:<id>` (keeper; the record is in PostgreSQL).
EMBEDDING_PREFIX = "embedding:"
HOT_PREFIX = "memory:hot:"

#: Patterns of every key that is ours but the cache of embeddings, for who clears them.
OURS = (
    TASKS_NEW, RESULTS, USAGE, MEMORY, AUDIT, HEARTBEATS, BROADCAST, EVENTS,
    f"{DLQ_PREFIX}*", f"{AGENT_PREFIX}*", f"{CONTROL_PREFIX}*", f"{ASK_PREFIX}*",
    f"{REPLY_PREFIX}*", f"{HOT_PREFIX}*",
)  # fmt: skip


def embedding(model: str, text: str) -> str:
    """The cache key of a text's vector: the seed plan's hash of the text as it was given."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{EMBEDDING_PREFIX}{model}:{digest[:32]}"


def agent(name: str) -> str:
    return AGENT_PREFIX + name


def control(name: str) -> str:
    return CONTROL_PREFIX + name


def ask(service: str) -> str:
    return ASK_PREFIX + service


def peer(name: str) -> str:
    """The service name under which an agent answers its peers' questions."""
    return "peer." + name


def dlq(stream: str) -> str:
    return DLQ_PREFIX + stream


def keep(stream: str) -> int | None:
    """How many entries a live-view stream keeps; None for a work stream."""
    if stream.startswith(CONTROL_PREFIX):
        return KEEP_CONTROL
    if stream.startswith(DLQ_PREFIX):
        return KEEP_DLQ
    return KEEP.get(stream)
