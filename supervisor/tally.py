"""What was spent and who is alive: api_usage, agent_heartbeats and the leases they renew."""

from __future__ import annotations

from collections.abc import Sequence

from base.messages import UNPAID_PROVIDER, Heartbeat, ModelCall
from supervisor.record import COLUMNS, Reads, known_id, task
from supervisor.tasks import Task


async def spent_today(reads: Reads) -> dict[str, float]:
    """Dollars by agent since midnight UTC; what the rehearsal model would have cost is left out."""
    rows = await reads.fetch(
        "SELECT agent, SUM(cost_usd) AS usd FROM api_usage"
        " WHERE (timestamp AT TIME ZONE 'UTC')::DATE = (NOW() AT TIME ZONE 'UTC')::DATE"
        " AND provider <> $1 GROUP BY agent",
        UNPAID_PROVIDER,
    )
    return {row["agent"]: float(row["usd"]) for row in rows}


async def add_usage(writes: Reads, call: ModelCall) -> bool:
    """Record a model call; False when it was recorded before."""
    written = await writes.fetchval(
        "INSERT INTO api_usage (id, agent, provider, model, purpose, input_tokens, output_tokens,"
        " cache_read_tokens, cache_write_tokens, cost_usd, latency_ms, task_id)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,"
        " (SELECT id FROM tasks WHERE id = $12)) ON CONFLICT (id) DO NOTHING RETURNING id",
        *(call.id, call.agent[:50], call.provider[:50], call.model[:100], call.purpose[:20]),
        *(call.usage.input_tokens, call.usage.output_tokens),
        *(call.usage.cache_read_tokens, call.usage.cache_write_tokens),
        *(call.usage.cost_usd, call.latency_ms, known_id(call.task_id or "")),
    )
    return written is not None


async def beat(writes: Reads, beats: Sequence[Heartbeat]) -> None:
    """Write the agents' last words into agent_heartbeats."""
    for one in beats:
        await writes.execute(
            "INSERT INTO agent_heartbeats (agent_name, status, last_heartbeat, current_task_id,"
            " metrics, updated_at) VALUES ($1, $2, NOW(), $3, $4, NOW())"
            " ON CONFLICT (agent_name) DO UPDATE SET status = $2, last_heartbeat = NOW(),"
            " current_task_id = $3, metrics = $4, updated_at = NOW()",
            *(one.agent[:50], one.status, known_id(one.task_id or "")),
            {
                "pid": one.pid,
                "paused": one.paused,
                "rss_bytes": one.rss_bytes,
                "phase": one.phase,
                "epoch": one.epoch,
            },
        )


async def renew(writes: Reads, beat: Heartbeat, lease_s: float) -> Task | None:
    """Renew the lease that the heartbeat's agent holds; None when it does not hold it."""
    if (task_id := known_id(beat.task_id or "")) is None:
        return None
    row = await writes.fetchrow(
        "UPDATE tasks SET lease_until = NOW() + make_interval(secs => $4),"
        " pai_phase = COALESCE($5, pai_phase)"
        " WHERE id = $1 AND epoch = $2 AND assigned_agent = $3"
        f" AND status IN ('in_progress', 'waiting') RETURNING {COLUMNS}",
        *(task_id, beat.epoch, beat.agent, lease_s, beat.phase),
    )
    return None if row is None else task(row)


async def is_elsewhere(reads: Reads, beat: Heartbeat) -> bool:
    """Whether the task that the heartbeat names has ended or is not the sender's at that epoch.

    An order sent and not yet taken at the same epoch is still the sender's.
    """
    if (task_id := known_id(beat.task_id or "")) is None:
        return True
    mine = await reads.fetchval(
        "SELECT TRUE FROM tasks WHERE id = $1 AND epoch = $2 AND assigned_agent = $3"
        " AND status IN ('assigned', 'in_progress', 'waiting')",
        *(task_id, beat.epoch, beat.agent),
    )
    return not mine
